"""Batches of sequences of different lengths: padded to one length, or packed without padding (`torch.nn.utils.rnn`)."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.modes import mode
from ...core.shape import fail
from ...core.tensor import Tensor, new_tensor
from ...devices import open_device
from ...ops.creation import full
from ...ops.index import index_select
from ...ops.join import cat, stack
from ...ops.sort import argsort
from ...ops.view import narrow, reshape, select, transpose

__all__ = ["PackedSequence", "invert_permutation", "pack_padded_sequence", "pad_packed_sequence", "pad_sequence",
           "unpad_sequence", "pack_sequence", "unpack_sequence"]

Lengths = Tensor | Sequence[int] | np.ndarray


class _Packed(NamedTuple):
    """The fields of `PackedSequence`."""

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Sequences of different lengths without padding, the longest first.

    data              the first elements of all sequences, then the second elements of those that have one, and so on
    batch_sizes       int64, on the CPU: how many first elements, second elements, ... there are
    sorted_indices    the position of each sequence in the batch that was packed; None: the batch was in order
    unsorted_indices  the inverse permutation
    """

    __slots__ = ()

    def __new__(cls, data: Any, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
                unsorted_indices: Tensor | None = None) -> PackedSequence:
        if batch_sizes is None:
            if not (isinstance(data, tuple | list) and len(data) == 2):
                fail("PackedSequence", "without batch_sizes, data must be the pair (data, batch_sizes)",
                     type(data).__name__, kind=AssertionError)
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(f"[PackedSequence] batch_sizes must be on the CPU; got {batch_sizes.device}; "
                             "use pack_sequence or pack_padded_sequence, which make it")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """`data` (and, to another device, the indices) converted by `Tensor.to`; `batch_sizes` stay on the CPU."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        moved = [None if i is None else i.to(data.device) for i in (self.sorted_indices, self.unsorted_indices)]
        return type(self)(data, self.batch_sizes, *moved)

    def cpu(self) -> PackedSequence:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = "cuda") -> PackedSequence:
        """On a GPU, given by name or number."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device)

    def double(self) -> PackedSequence:
        """With `data` as float64."""
        return self.to(np.dtype("float64"))

    def float(self) -> PackedSequence:
        """With `data` as float32."""
        return self.to(np.dtype("float32"))

    def half(self) -> PackedSequence:
        """With `data` as float16."""
        return self.to(np.dtype("float16"))

    def long(self) -> PackedSequence:
        """With `data` as int64."""
        return self.to(np.dtype("int64"))

    def int(self) -> PackedSequence:
        """With `data` as int32."""
        return self.to(np.dtype("int32"))

    def short(self) -> PackedSequence:
        """With `data` as int16."""
        return self.to(np.dtype("int16"))

    def char(self) -> PackedSequence:
        """With `data` as int8."""
        return self.to(np.dtype("int8"))

    def byte(self) -> PackedSequence:
        """With `data` as uint8."""
        return self.to(np.dtype("uint8"))

    @property
    def is_cuda(self) -> bool:
        """Is `data` on a GPU?"""
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        """False: there is no pinned memory."""
        return False


# ---- lengths: whole numbers that decide shapes, so they are read on the host ----


def _constant(values: Any, like: Tensor | None = None) -> Tensor:
    """int64 values as a tensor that nothing rewrites, so that a captured program may use it."""
    device = open_device("cpu") if like is None else like.device
    return new_tensor(device.constant(np.ascontiguousarray(values, np.int64)), None)


def host_lengths(op: str, lengths: Any) -> np.ndarray:
    """Lengths (a list, an array, a tensor) as int64 on the host."""
    if isinstance(lengths, Tensor):
        if mode.recorder is not None and type(lengths.array).__name__ != "External":
            mode.recorder.refuse(f"{op}(lengths=tensor)")
        lengths = lengths.detach().cpu().array.np
    values = np.asarray(lengths)
    if values.ndim != 1 or values.dtype.kind not in "iu" and values.size:
        fail(op, "lengths must be whole numbers, one for each sequence", f"{values.dtype}{list(values.shape)}")
    return values.astype(np.int64)


def check_lengths(op: str, lengths: np.ndarray, batch: int, steps: int) -> None:
    """Raises unless there is a length from 1 to `steps` for each sequence of the batch."""
    if lengths.shape != (batch,):
        fail(op, "lengths must have one entry for each sequence of the batch",
             [f"{len(lengths)} lengths", f"batch size {batch}"])
    if (lengths <= 0).any():
        fail(op, "each length must be greater than 0", lengths.tolist(), "leave empty sequences out of the batch")
    if (lengths > steps).any():
        fail(op, "no length may exceed the number of steps of the padded input",
             [f"lengths {lengths.tolist()}", f"{steps} steps"])


def host_batch_sizes(packed: PackedSequence) -> np.ndarray:
    """`batch_sizes` on the host, checked, so that nothing is read out of bounds."""
    if mode.recorder is not None and type(packed.batch_sizes.array).__name__ != "External":
        mode.recorder.refuse("PackedSequence.batch_sizes")
    sizes = packed.batch_sizes.array.np
    right = sizes.ndim == 1 and sizes.size and (np.diff(sizes) <= 0).all() and sizes[-1] >= 1
    if not right or sizes.sum() != packed.data.size(0):
        fail("PackedSequence", "batch_sizes must be positive, never grow, and add up to the length of data",
             [f"batch_sizes {sizes.tolist()}", f"data {packed.data.layout}"])
    return sizes


def packed_lengths(sizes: np.ndarray) -> np.ndarray:
    """The length of each sequence, the longest first."""
    return (sizes[None, :] > np.arange(sizes[0])[:, None]).sum(1)


def _places(sizes: np.ndarray, batch: int) -> np.ndarray:
    """The position of each element of the packed data in a padded batch (steps, batch), flattened."""
    return np.concatenate([t * batch + np.arange(n) for t, n in enumerate(sizes)])


# ---- the functions ----


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes this one."""
    return None if permutation is None else argsort(permutation)


def pack(input: Tensor, sizes: np.ndarray) -> Tensor:
    """The elements of a padded batch (steps, batch, *), the longest sequence first, that are no padding."""
    steps, batch, *rest = input.shape
    return index_select(reshape(input, (steps * batch, *rest)), 0, _constant(_places(sizes, batch), input))


def unpack(data: Tensor, sizes: np.ndarray, steps: int, padding_value: float = 0.0) -> Tensor:
    """The inverse of `pack`: (steps, batch, *), padded."""
    total, *rest = data.shape
    batch = int(sizes[0])
    table = np.full(steps * batch, total)
    table[_places(sizes, batch)] = np.arange(total)
    padding = full((1, *rest), padding_value, dtype=data.dtype, device=data.device)
    return reshape(index_select(cat([data, padding], 0), 0, _constant(table, data)), (steps, batch, *rest))


def pack_padded_sequence(input: Tensor, lengths: Lengths, batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Packs a padded batch, (steps, batch, *) or with `batch_first` (batch, steps, *), without its padding.

    With `enforce_sorted` the lengths must be in falling order; else the sequences are sorted, and
    `pad_packed_sequence` and the recurrent layers bring results back into the order of the batch. Raises RuntimeError
    on lengths that do not fit the batch.
    """
    if input.ndim < 2:
        fail("pack_padded_sequence", "input must have at least the dimensions (steps, batch)", input.layout)
    if batch_first:
        input = transpose(input, 0, 1)
    values = host_lengths("pack_padded_sequence", lengths)
    steps, batch = input.shape[:2]
    if not steps or not batch:
        fail("pack_padded_sequence", "there must be at least one sequence and one step", input.layout)
    check_lengths("pack_padded_sequence", values, batch, steps)
    order = None
    if not enforce_sorted:
        by_length = np.argsort(-values, kind="stable")
        values, order = values[by_length], _constant(by_length, input)
        input = index_select(input, 1, order)
    elif (np.diff(values) > 0).any():
        fail("pack_padded_sequence", "with enforce_sorted=True lengths must be in falling order", values.tolist(),
             "pass enforce_sorted=False")
    sizes = (values[:, None] > np.arange(values[0])[None, :]).sum(0)
    return PackedSequence(pack(input, sizes), _constant(sizes), order, None)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """The padded batch, in the order before packing, and its lengths (int64, on the CPU).

    Shapes: (steps, batch, *), or with `batch_first` (batch, steps, *). steps is the longest length, or `total_length`;
    ValueError if that is shorter.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError("[pad_packed_sequence] sequence must be a PackedSequence; got "
                        f"{type(sequence).__name__}; pack_padded_sequence(input, lengths) makes one")
    sizes = host_batch_sizes(sequence)
    steps = len(sizes)
    if total_length is not None:
        if total_length < steps:
            raise ValueError("[pad_packed_sequence] total_length must be at least the longest length; "
                             f"got total_length={total_length} and longest length {steps}")
        steps = total_length
    padded, lengths = unpack(sequence.data, sizes, steps, padding_value), _constant(packed_lengths(sizes))
    if sequence.unsorted_indices is not None:
        padded = index_select(padded, 1, sequence.unsorted_indices)
        lengths = index_select(lengths, 0, sequence.unsorted_indices.cpu())
    return (transpose(padded, 0, 1) if batch_first else padded), lengths


def pad_sequence(sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Stacks tensors (length, *) of different lengths, padded with `padding_value` on the right or the left.

    Shapes: -> (longest, batch, *), or with `batch_first` (batch, longest, *).
    """
    if not isinstance(sequences, Iterable):
        fail("pad_sequence", "sequences must be an iterable of tensors", type(sequences).__name__)
    tensors = list(sequences)
    if padding_side not in ("right", "left"):
        fail("pad_sequence", "padding_side must be 'right' or 'left'", repr(padding_side))
    if not tensors:
        fail("pad_sequence", "there must be at least one sequence", "an empty list")
    for t in tensors:
        if not isinstance(t, Tensor) or not t.ndim or t.shape[1:] != tensors[0].shape[1:]:
            fail("pad_sequence", "sequences must be tensors (length, *) that agree in all sizes but the first",
                 [x.layout if isinstance(x, Tensor) else type(x).__name__ for x in tensors])
    longest = max(t.shape[0] for t in tensors)
    whole = []
    for t in tensors:
        missing = longest - t.shape[0]
        if missing:
            padding = full((missing, *t.shape[1:]), padding_value, dtype=t.dtype, device=t.device)
            t = cat([t, padding] if padding_side == "right" else [padding, t], 0)
        whole.append(t)
    return stack(whole, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False) -> list[Tensor]:
    """The sequences (length, *) of a padded batch (steps, batch, *), or with `batch_first` (batch, steps, *)."""
    values = host_lengths("unpad_sequence", lengths)
    batch, steps = padded_sequences.shape[:2] if batch_first else padded_sequences.shape[1::-1]
    if len(values) != batch:
        raise ValueError("[unpad_sequence] lengths must have one entry for each sequence; "
                         f"got {len(values)} for a batch of {batch}")
    at = 0 if batch_first else 1
    return [narrow(select(padded_sequences, at, b), 0, 0, min(int(n), steps)) for b, n in enumerate(values)]


def pack_sequence(sequences: list[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs tensors (length, *) of different lengths; `enforce_sorted` as for `pack_padded_sequence`."""
    return pack_padded_sequence(pad_sequence(sequences), [t.shape[0] for t in sequences], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The tensors (length, *) that were packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
