"""`Embedding`: a trained vector for each of a number of things; `EmbeddingBag`: sums, means or maxima of them."""
from __future__ import annotations

import math

import numpy as np

from ..core.half import rounds_once
from ..core.modes import no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import as_tensor, empty
from ..ops.embedding import embedding
from ..ops.formula import clamp_min
from ..ops.math import eq, logical_and, ne, where
from ..ops.take import add_at
from . import init
from .arguments import DeviceLike, DtypeLike
from .module import Module, Parameter


class Embedding(Module):
    """The rows of `weight` (num_embeddings, embedding_dim) that integers name: (*) -> (*, embedding_dim).

    `weight` starts in N(0, 1). The row `padding_idx` starts at 0 and gets no gradient. `max_norm`: rows that are used
    and whose `norm_type`-norm is larger are scaled down to it, in `weight` itself. `scale_grad_by_freq`: the gradient
    of a row is divided by how often the batch uses it. `sparse` changes nothing: the gradient is dense.

        >>> nn.Embedding(10, 3)(minigrad.tensor([[1, 2], [4, 5]])).shape
        Size([2, 2, 3])
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                 sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
                 device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                fail("Embedding", "padding_idx must be within num_embeddings",
                     [f"padding_idx {padding_idx}", f"num_embeddings {num_embeddings}"], kind=AssertionError)
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if _weight is None:
            self.weight = Parameter(empty((num_embeddings, embedding_dim), device=device, dtype=dtype),
                                    requires_grad=not _freeze)
            self.reset_parameters()
        else:
            if tuple(_weight.shape) != (num_embeddings, embedding_dim):
                fail("Embedding", "_weight must be (num_embeddings, embedding_dim)",
                     [_weight.layout, f"({num_embeddings}, {embedding_dim})"], kind=AssertionError)
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draws `weight` anew from N(0, 1), with zeros in the row `padding_idx`."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        """int32 or int64 (*) -> (*, embedding_dim)."""
        return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq,
                         self.sparse)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        text += f", scale_grad_by_freq={self.scale_grad_by_freq}" if self.scale_grad_by_freq else ""
        return text + (", sparse=True" if self.sparse else "")

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
                        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                        sparse: bool = False) -> Embedding:
        """An embedding whose weight is the given tensor (num_embeddings, embedding_dim); not trained if `freeze`."""
        if embeddings.ndim != 2:
            fail("Embedding.from_pretrained", "embeddings must have two dimensions, (num_embeddings, embedding_dim)",
                 embeddings.layout, kind=AssertionError)
        rows, size = embeddings.shape
        return cls(rows, size, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
                   scale_grad_by_freq=scale_grad_by_freq, sparse=sparse, _weight=embeddings, _freeze=freeze)


def _bags(offsets: Tensor, count: int, closed: bool) -> np.ndarray:
    """Where each bag begins, and the end of the last one. ValueError or RuntimeError for offsets that do not fit."""
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ValueError(f"[embedding_bag] offsets has to be a 1D Tensor of whole numbers; got {offsets.layout}")
    first = offsets.numpy(force=True).astype(np.int64)
    if closed and not first.size:
        fail("embedding_bag", "include_last_offset needs at least one offset", offsets.layout)
    if first.size and first[0] != 0:
        fail("embedding_bag", "offsets[0] has to be 0, i.e., the first bag has to start at 0", first.tolist())
    if (first[1:] < first[:-1]).any() or first.size and first[-1] > count:
        fail("embedding_bag", f"offsets must not fall, nor be larger than the length {count} of input", first.tolist())
    return np.append(first[:-1] if closed else first, count)


def _check_bag(input: Tensor, weight: Tensor, offsets: Tensor | None, mode: str, scale_grad_by_freq: bool,
               per_sample_weights: Tensor | None) -> None:
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError("[embedding_bag] per_sample_weights must have the same shape as the input; got "
                         f"{per_sample_weights.layout} and {input.layout}")
    if per_sample_weights is not None and per_sample_weights.dtype != weight.dtype:
        fail("embedding_bag", "per_sample_weights must have the dtype of weight",
             [per_sample_weights.layout, weight.layout])
    if weight.ndim != 2 or input.ndim not in (1, 2):
        raise ValueError("[embedding_bag] weight has to be 2D and input 1D or 2D; got "
                         f"{weight.layout} and {input.layout}")
    if (offsets is None) == (input.ndim == 1):
        raise ValueError("[embedding_bag] offsets go with an input of one dimension, which needs them; got input "
                         f"{input.layout}, offsets {None if offsets is None else offsets.layout}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"[embedding_bag] mode has to be one of sum, mean or max; got {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("[embedding_bag] max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(f"[embedding_bag] per_sample_weights are for mode='sum' only; got {mode!r}")


@rounds_once
def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """The sum, mean or maximum (`mode`) of the rows of `weight` that a bag of numbers names; 0 for an empty bag.

    Shapes: input (B, N), or (N) with `offsets` (B): where each bag begins (with `include_last_offset` (B + 1): the last
    one stands for the length of input, whatever it says), weight (V, D) -> (B, D). `per_sample_weights`, like input and
    of the dtype of weight, multiply the rows, for "sum". Numbers equal to `padding_idx` are left out. `max_norm`,
    `norm_type`, `scale_grad_by_freq`: see `Embedding`.
    """
    _check_bag(input, weight, offsets, mode, scale_grad_by_freq, per_sample_weights)
    rows = embedding(input.reshape(-1), weight, None, max_norm, norm_type, scale_grad_by_freq)
    if padding_idx is not None and not -weight.shape[0] <= padding_idx < weight.shape[0]:
        fail("embedding_bag", "padding_idx must be within num_embeddings", padding_idx)
    kept = None if padding_idx is None else ne(input.reshape(-1), padding_idx % weight.shape[0]).unsqueeze(1)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    if input.ndim == 2:
        count, length = input.shape
        ends = np.arange(count + 1) * length
    else:
        assert offsets is not None
        ends = _bags(offsets, input.numel(), include_last_offset)
    if mode == "max":
        return _largest(rows, kept, ends)
    rows = rows if kept is None else where(kept, rows, 0.0)
    bag = as_tensor(np.repeat(np.arange(len(ends) - 1), np.diff(ends)), device=input.device)
    rows = rows[:int(ends[-1])]
    total = add_at((len(ends) - 1, weight.shape[1]), rows, bag, 0)
    if mode == "sum":
        return total
    sizes = as_tensor(np.diff(ends).astype(weight.dtype), device=input.device) if kept is None else \
        add_at((len(ends) - 1,), kept[:int(ends[-1]), 0].to(weight.dtype), bag, 0)
    return total / clamp_min(sizes, 1).unsqueeze(1)


def _largest(rows: Tensor, kept: Tensor | None, ends: np.ndarray) -> Tensor:
    """The maxima of the rows of each bag: the bags side by side, shorter ones filled up."""
    sizes = np.diff(ends)
    longest = int(sizes.max(initial=0))
    if not longest:
        return rows.new_zeros((len(sizes), rows.shape[1])) + rows[:0].sum(0)        # in the graph, too
    place = np.minimum(ends[:-1, None] + np.arange(longest), max(len(rows) - 1, 0))
    index = as_tensor(place, device=rows.device)
    there = as_tensor(np.arange(longest) < sizes[:, None], device=rows.device)
    if kept is not None:
        there = logical_and(there, kept[:, 0][index])
    top = where(there.unsqueeze(2), rows[index], -math.inf).max(1).values
    return where(eq(there.sum(1), 0).unsqueeze(1), 0.0, top)


class EmbeddingBag(Module):
    """The sum, mean or maximum of the rows of `weight` (num_embeddings, embedding_dim) that a bag of numbers names.

    `weight` starts in N(0, 1), with 0 in the row `padding_idx`, which is left out of bags. Options: `embedding_bag`.

        >>> nn.EmbeddingBag(10, 3)(minigrad.tensor([1, 2, 4, 5]), minigrad.tensor([0, 1])).shape
        Size([2, 3])
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
                 scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                 _weight: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
                 device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__()
        table = Embedding(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
                          _weight, False, device, dtype)
        self.num_embeddings, self.embedding_dim, self.max_norm = num_embeddings, embedding_dim, max_norm
        self.norm_type, self.scale_grad_by_freq, self.padding_idx = norm_type, scale_grad_by_freq, table.padding_idx
        self.weight = table.weight
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset

    def reset_parameters(self) -> None:
        """Draws `weight` anew from N(0, 1), with zeros in the row `padding_idx`."""
        Embedding.reset_parameters(self)                # type: ignore[arg-type]

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(B, N), or (N) with offsets (B) -> (B, embedding_dim)"""
        return embedding_bag(input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
                             self.mode, self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        return text + f", mode={self.mode!r}" + ("" if self.padding_idx is None else
                                                 f", padding_idx={self.padding_idx}")

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None,
                        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
                        sparse: bool = False, include_last_offset: bool = False,
                        padding_idx: int | None = None) -> EmbeddingBag:
        """One whose weight is the given tensor (num_embeddings, embedding_dim); not trained if `freeze`."""
        if embeddings.ndim != 2:
            fail("EmbeddingBag.from_pretrained", "embeddings must have two dimensions, (num_embeddings, embedding_dim)",
                 embeddings.layout, kind=AssertionError)
        rows, size = embeddings.shape
        made = cls(rows, size, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset,
                   padding_idx)
        made.weight.requires_grad_(not freeze)
        return made
