"""Recurrent layers and cells: PyTorch's, and normalized ones. The steps and their kernels are in `ops/rnn.py`.

    RNN, LSTM, GRU              sequences, in one native call for each layer and direction (a loop of launches with
                                norm="batch" or reset_after=False)
    RNNCell, LSTMCell, GRUCell  one step
    Recurrent                   layers, directions and lengths around any cell

Beside PyTorch's options all take `norm="layer" | "rms" | "batch"`:

    "layer"  Ba, Kiros and Hinton 2016, eq. 20 to 22: LayerNorm of W_ih x and of W_hh h, each over all gates together,
             then biases; LSTM also LayerNorm of the cell state inside the output's tanh
    "rms"    the same with root mean squares (Zhang and Sennrich 2019): weights only
    "batch"  Cooijmans et al. 2016: BatchNorm in the same places, with statistics of its own for each of the first
             `norm_max_length` steps (later ones use the last); weights start at 0.1. The steps of the backward
             direction count from the end of a sequence

The norms are the submodules `norm_ih_l{k}`, `norm_hh_l{k}` and (LSTM) `norm_c_l{k}`, followed by `_reverse` for the
backward direction; those of cells are `norm_ih`, `norm_hh`, `norm_c`. Of "layer" and "rms" they hold the parameters
only: the kernels of the layer compute them, with the layer's `norm_eps`. `bias=False` is about `bias_ih` and `bias_hh`:
norms keep their biases.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..core.messages import one_dtype
from ..core.modes import mode, no_grad
from ..core.shape import BOOL, INT64, fail
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..devices.base import Device
from ..ops import rnn as ops
from ..ops.arrange import flip
from ..ops.creation import empty, ones, zeros
from ..ops.index import gather, index_select
from ..ops.join import cat, stack
from ..ops.math import gt, where
from ..ops.take import in_range
from ..ops.view import expand, reshape, select, squeeze, transpose, unsqueeze
from . import init
from .arguments import DeviceLike, DtypeLike
from .container import ModuleList
from .dropout import dropout
from .module import Module, Parameter
from .norm import LayerNorm, RMSNorm, batch_norm
from .utils.rnn import PackedSequence, check_lengths, host_batch_sizes, host_lengths, pack, packed_lengths, unpack

NORMS = (None, "layer", "rms", "batch")
Lengths = Tensor | Sequence[int] | np.ndarray | None


class _Kind(NamedTuple):
    """What differs between RNN, LSTM and GRU."""

    gates: int
    norms: tuple[str, ...]                      # what is normalized: "ih" W_ih x, "hh" W_hh h, "c" the cell state
    sequence: Any                               # the op of all steps
    cell: Any                                   # the op of one step
    step: Callable[..., Any]                    # one step as a formula that takes any normalization
    every: tuple[int | None, ...]               # which results of `sequence` are the fields of States


_KINDS = {"RNN": _Kind(1, ("ih", "hh"), ops.rnn_sequence, ops.rnn_cell, ops.rnn_step, (0, None, None)),
          "LSTM": _Kind(4, ("ih", "hh", "c"), ops.lstm_sequence, ops.lstm_cell, ops.lstm_step, (0, 3, 4)),
          "GRU": _Kind(3, ("ih", "hh"), ops.gru_sequence, ops.gru_cell, ops.gru_step, (0, None, 2))}
_MODES = {"RNN_TANH": "RNN", "RNN_RELU": "RNN", "LSTM": "LSTM", "GRU": "GRU"}


class States(NamedTuple):
    """What `return_states=True` adds: every step's hidden state `h`, cell state `c` (LSTM) and gates.

    Gates are i f g o for LSTM, r z n for GRU, side by side. Shapes: (layers * directions, steps, batch, size), or with
    `batch_first` (layers * directions, batch, steps, size).
    """

    h: Tensor
    c: Tensor | None
    gates: Tensor | None


# ---- checks of options ----


def _dropout_probability(owner: str, name: str, dropout: Any) -> float:
    """`dropout` as a float; ValueError unless it is a number between 0 and 1."""
    number = isinstance(dropout, numbers.Number) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout <= 1:
        raise ValueError(f"[nn.{owner}] {name} must be a number between 0 and 1, the probability of an element to be "
                         f"zeroed; got {dropout!r}")
    return float(dropout)


def _check_size(owner: str, name: str, value: Any, least: int = 1) -> None:
    """Raises unless `value` is an int of at least `least`."""
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"[nn.{owner}] {name} must be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"[nn.{owner}] {name} must {'be greater than zero' if least else 'not be negative'}; "
                         f"got {value}")


def _check_nonlinearity(owner: str, nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"[nn.{owner}] nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}")


def _check_reset(owner: str, reset_after: bool, norm: str | None) -> None:
    if not reset_after and norm is not None:
        raise ValueError(f"[nn.{owner}] norm needs reset_after=True, which normalizes W_hh h of all gates together; "
                         f"got reset_after=False and norm={norm!r}")


# ---- norms ----


class StepBatchNorm(Module):
    """BatchNorm over a batch (batch, size) with running statistics of its own for each of `max_length` steps.

    Later steps use the last statistics (Cooijmans et al. 2016).
    """

    def __init__(self, size: int, max_length: int, eps: float, momentum: float, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        self.size, self.max_length, self.eps, self.momentum = size, max_length, eps, momentum
        self.weight = Parameter(empty(size, device=device, dtype=dtype))
        self.bias = Parameter(empty(size, device=device, dtype=dtype))
        self.register_buffer("running_mean", zeros(max_length, size, device=device, dtype=dtype))
        self.register_buffer("running_var", ones(max_length, size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to 0.1, bias to 0 and the statistics to mean 0, variance 1.

        With weight 1 the tanh saturates and gradients vanish (Cooijmans et al. 2016, section 4).
        """
        init.constant_(self.weight, 0.1)
        init.zeros_(self.bias)
        init.zeros_(self.running_mean)          # type: ignore[arg-type]
        init.ones_(self.running_var)            # type: ignore[arg-type]

    def forward(self, input: Tensor, step: int, live: Tensor | None = None) -> Tensor:
        """(batch, size) -> same; in training, rows where `live` (batch, 1) is false do not count."""
        at = min(step, self.max_length - 1)
        mean, var = select(self.running_mean, 0, at), select(self.running_var, 0, at)
        return batch_norm(input, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps,
                          mask=live if self.training else None)

    def extra_repr(self) -> str:
        return f"{self.size}, max_length={self.max_length}, eps={self.eps}, momentum={self.momentum}"


class _NormOptions:
    """The options that say how to normalize, checked, and what they add to a layer."""

    def __init__(self, name: str, norm: str | None, eps: float, max_length: int | None, momentum: float) -> None:
        if norm not in NORMS:
            fail(name, "norm must be None, 'layer', 'rms' or 'batch'", repr(norm), kind=ValueError)
        if norm is not None and not eps > 0:
            fail(name, "norm_eps must be positive", repr(eps), kind=ValueError)
        if norm == "batch" and (not isinstance(max_length, int) or max_length < 1):
            fail(name, "norm='batch' keeps statistics for each step and needs to know for how many",
                 f"norm_max_length={max_length!r}",
                 "pass norm_max_length=, the number of steps of the longest training sequence", kind=ValueError)
        self.norm, self.eps, self.max_length, self.momentum = norm, eps, max_length, momentum

    def module(self, size: int, device: DeviceLike, dtype: DtypeLike) -> Module:
        """A norm over `size` values."""
        if self.norm == "layer":
            return LayerNorm(size, self.eps, device=device, dtype=dtype)
        if self.norm == "rms":
            return RMSNorm(size, self.eps, device=device, dtype=dtype)
        return StepBatchNorm(size, self.max_length or 1, self.eps, self.momentum, device, dtype)

    def add_to(self, module: Module, suffix: str, kind: str, hidden: int, device: DeviceLike, dtype: DtypeLike) -> None:
        """Adds the norms of one layer and direction to `module`."""
        if self.norm is not None:
            for which in _KINDS[kind].norms:
                size = hidden if which == "c" else _KINDS[kind].gates * hidden
                module.add_module(f"norm_{which}{suffix}", self.module(size, device, dtype))

    def text(self) -> str:
        """What `extra_repr` says of them."""
        if self.norm is None:
            return ""
        return f", norm={self.norm!r}" + (f", norm_max_length={self.max_length}" if self.norm == "batch" else "")


def _norm_parameters(module: Module, suffix: str, kind: str) -> list[Tensor | None]:
    """weight and bias of each norm of a layer, None where there is none."""
    found: list[Any] = []
    for which in _KINDS[kind].norms:
        norm = module._modules.get(f"norm_{which}{suffix}")
        found += [None, None] if norm is None else [norm.weight, getattr(norm, "bias", None)]
    return found


def _batch_norms(module: Module, suffix: str) -> Callable[[int, Tensor | None], ops.Normalize]:
    """The normalization of a step by the StepBatchNorms of a layer."""
    def at(t: int, live: Tensor | None) -> ops.Normalize:
        return lambda p, which: module._modules[f"norm_{which}{suffix}"](p, t, live)       # type: ignore[misc]
    return at


def _reset(module: Module, hidden: int, forget_bias: float | None) -> None:
    """Draws weights and biases from U(-k, k), k = 1 / sqrt(hidden); `forget_bias` is for the forget gates of LSTM."""
    bound = 1 / math.sqrt(hidden) if hidden else 0.0
    for name, p in module._parameters.items():
        if p is None:
            continue
        if name in ("h_0", "c_0"):
            init.zeros_(p)
            continue
        init.uniform_(p, -bound, bound)
        if forget_bias is not None and name.startswith("bias_"):
            with no_grad():                     # bias_ih and bias_hh are added
                p[hidden:2 * hidden] = forget_bias if name.startswith("bias_ih") else 0.0
    for child in module._modules.values():
        if child is not None:
            child.reset_parameters()


# ---- sequences of different lengths ----


@lru_cache(maxsize=256)
def _constant(values: tuple[int, ...], device: Device, column: bool = False) -> Tensor:
    """int64 values that nothing rewrites, so that a captured program may use them."""
    array = np.array(values, np.int64)
    return new_tensor(device.constant(array.reshape(-1, 1) if column else array), None)


def _lengths(name: str, lengths: Any, x: Tensor) -> Tensor:
    """The lengths of a padded batch x (steps, batch, *) as an int64 tensor on its device, checked.

    A captured step checks them at each replay.
    """
    steps, batch = x.shape[:2]
    if not isinstance(lengths, Tensor):
        values = host_lengths(name, lengths)
        check_lengths(name, values, batch, steps)
        return _constant(tuple(values.tolist()), x.device)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        fail(name, "lengths must be whole numbers, one for each sequence", lengths.layout)
    if mode.recorder is None:
        check_lengths(name, host_lengths(name, lengths), batch, steps)
        return lengths.detach().to(x.device).to(INT64)
    if lengths.shape != (batch,):
        fail(name, "lengths must have one entry for each sequence of the batch",
             [lengths.layout, f"batch size {batch}"])
    given = lengths.detach().to(x.device).to(INT64)
    in_range(given, 1, steps + 1, ValueError, "[{1}] lengths must lie between 1 and the number of steps {2}; got {0}",
             name, steps)
    return given


def _without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (steps, batch, *) with zeros after each length: what is there, nan too, changes no result and no gradient."""
    live = gt(lengths, _constant(tuple(range(x.shape[0])), x.device, True))
    return where(reshape(live, (*live.shape, *(1,) * (x.ndim - 2))), x, 0.0)


def _unpacked(name: str, input: PackedSequence, sizes: np.ndarray, lengths: Lengths) -> tuple[Tensor, Tensor | None]:
    """A packed sequence as a padded batch (steps, batch, size), and its lengths; None if all have one length."""
    if lengths is not None:
        fail(name, "a packed sequence has its own lengths", "lengths=", "leave lengths= out")
    x = unpack(input.data, sizes, len(sizes))
    if sizes[0] == sizes[-1]:
        return x, None
    return x, _constant(tuple(packed_lengths(sizes).tolist()), x.device)


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence of x (steps, batch, size) from its end to its start; padding stays where it is."""
    if lengths is None:
        return flip(x, (0,))
    t = _constant(tuple(range(x.shape[0])), x.device, True)
    source = where(gt(lengths, t), lengths - 1 - t, t)
    return gather(x, 0, expand(unsqueeze(source, 2), x.shape))


def _scan(step: Callable[..., tuple], x: Tensor, states: list[Tensor] | None, lengths: Tensor | None,
          reverse: bool) -> tuple[list, list]:
    """`ops.scan` for steps that use their number: the backward direction counts from the end of a sequence."""
    results, last = ops.scan(step, _turned(x, lengths) if reverse else x, states, lengths)
    return ([_turned(r, lengths) for r in results] if reverse else results), last


def _stacked(tensors: list[Tensor]) -> Tensor:
    """The tensors along a new first dimension."""
    return unsqueeze(tensors[0], 0) if len(tensors) == 1 else stack(tensors, 0)


# ---- layers ----


class RNNBase(Module):
    """What `RNN`, `LSTM` and `GRU` share: options, parameters, lengths, layers and directions.

    Beside PyTorch's options:

    norm, norm_eps, norm_max_length, norm_momentum: see the head of this file.
    return_states=True (here or in the call): every step's states and gates of all layers are a third result (`States`).
    learn_initial_state=True: a call without `hx` starts from the parameters `h_0` (and `c_0`).
    recurrent_dropout=p: in training h is zeroed with probability p before its product with W_hh, by one mask for the
    whole sequence, and scaled by 1 / (1 - p) (Gal and Ghahramani 2016).
    forget_bias= (LSTM): the initial sum of the two biases of the forget gates.
    reset_after=False (GRU): see `GRU`.

    Parameters have PyTorch's names: `weight_ih_l0` (gates * hidden_size, input_size), `weight_hh_l0`, `bias_ih_l0`, ...
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, norm: str | None = None, norm_eps: float = 1e-5,
                 norm_max_length: int | None = None, norm_momentum: float = 0.1, return_states: bool = False,
                 learn_initial_state: bool = False, recurrent_dropout: float = 0.0, forget_bias: float | None = None,
                 reset_after: bool = True) -> None:
        super().__init__()
        if mode not in _MODES:
            raise ValueError(f"[nn.RNNBase] unknown mode {mode!r}; use one of {', '.join(_MODES)}")
        self.mode, self.kind = mode, _MODES[mode]
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional, self.proj_size = bias, batch_first, bidirectional, proj_size
        self.dropout = _dropout_probability(self.kind, "dropout", dropout)
        self.recurrent_dropout = _dropout_probability(self.kind, "recurrent_dropout", recurrent_dropout)
        if self.dropout > 0 and num_layers == 1:
            warn(f"dropout acts between layers: with num_layers=1, dropout={dropout} does nothing")
        self.return_states, self.learn_initial_state = bool(return_states), bool(learn_initial_state)
        self.forget_bias, self.reset_after, self.norm = forget_bias, bool(reset_after), norm
        self._check_options()
        self._norms = _NormOptions(f"nn.{self.kind}", norm, norm_eps, norm_max_length, norm_momentum)
        self._add_parameters(device, dtype)
        self.reset_parameters()

    def _check_options(self) -> None:
        """Raises TypeError or ValueError on options that are wrong or do not fit together."""
        kind = self.kind
        for name in ("bias", "batch_first"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"[nn.{kind}] {name} must be a bool; got {type(getattr(self, name)).__name__}")
        for name in ("input_size", "hidden_size", "num_layers"):
            _check_size(kind, name, getattr(self, name))
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(f"[nn.{kind}] proj_size must be smaller than hidden_size, or 0 for no projection; "
                             f"got {self.proj_size}")
        if self.forget_bias is not None and (kind != "LSTM" or not self.bias):
            raise ValueError(f"[nn.{kind}] forget_bias needs an LSTM with bias=True")
        _check_reset("GRU", self.reset_after, self.norm)

    def _add_parameters(self, device: DeviceLike, dtype: DtypeLike) -> None:
        """Adds weights, biases and norms of each layer and direction, and the initial states."""
        hidden, outputs = self.hidden_size, self.proj_size or self.hidden_size
        directions = 2 if self.bidirectional else 1
        gates = _KINDS[self.kind].gates * hidden
        self._suffixes = [f"_l{layer}{'_reverse' if d else ''}" for layer in range(self.num_layers)
                          for d in range(directions)]
        self._all_weights: list[list[str]] = []
        for i, suffix in enumerate(self._suffixes):
            inputs = self.input_size if i < directions else outputs * directions
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, inputs), "weight_hh": (gates, outputs)}
            if self.bias:
                shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            if self.proj_size:
                shapes["weight_hr"] = (outputs, hidden)
            for name, shape in shapes.items():
                self.register_parameter(name + suffix, Parameter(empty(shape, device=device, dtype=dtype)))
            self._all_weights.append([name + suffix for name in shapes])
            self._norms.add_to(self, suffix, self.kind, hidden, device, dtype)
        if self.learn_initial_state:
            self.h_0 = Parameter(empty((len(self._suffixes), outputs), device=device, dtype=dtype))
            if self.kind == "LSTM":
                self.c_0 = Parameter(empty((len(self._suffixes), hidden), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draws weights and biases anew from U(-k, k), k = 1 / sqrt(hidden_size); sets initial states to 0."""
        _reset(self, self.hidden_size, self.forget_bias)

    def flatten_parameters(self) -> None:
        """Does nothing: the kernels pack the weights themselves. Here for programs that call it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights and biases of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def extra_repr(self) -> str:
        s = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                              ("dropout", 0), ("bidirectional", False), ("return_states", False),
                              ("learn_initial_state", False), ("recurrent_dropout", 0), ("forget_bias", None),
                              ("reset_after", True)):
            if getattr(self, name) != default:
                s += f", {name}={getattr(self, name)}"
        return s + self._norms.text()

    # ---- the call ----

    def forward(self, input: Tensor | PackedSequence, hx: Any = None, *, lengths: Lengths = None,
                return_states: bool | None = None) -> Any:
        """The output of the last layer and the last states of all layers: (output, h), for LSTM (output, (h, c)).

        input    (steps, batch, input_size), or with `batch_first` (batch, steps, input_size), or one sequence
                 (steps, input_size), or a `PackedSequence`
        hx       h, or for LSTM the pair (h, c), each (layers * directions, batch, size); None: zeros, or the states
                 that are learnt
        lengths  the lengths of the sequences of a padded batch, in any order, instead of packing: outputs after a
                 length are 0, last states are those at the length, the backward direction starts there
        output   like input, every step's h, the two directions side by side: size is directions * hidden_size (or
                 proj_size)
        """
        batched, order, back, valid, sizes = True, None, None, None, None
        packed: Any = input
        if isinstance(input, PackedSequence):
            self._check_input(input.data, 2)
            sizes, order, back = host_batch_sizes(input), input.sorted_indices, input.unsorted_indices
            x, valid = _unpacked(f"nn.{self.kind}", input, sizes, lengths)
        else:
            if not isinstance(input, Tensor):
                raise TypeError(f"[nn.{self.kind}] input must be a Tensor or a PackedSequence; "
                                f"got {type(input).__name__}")
            batched = input.ndim == 3
            if not batched and input.ndim != 2:
                self._fail("input must be (steps, batch, input_size), or (steps, input_size) for one sequence",
                           input.layout, kind=ValueError)
            self._check_input(input, input.ndim)
            x = unsqueeze(input, 1) if not batched else transpose(input, 0, 1) if self.batch_first else input
            if not x.shape[0]:
                self._fail("a sequence must have at least one step", input.layout)
            if lengths is not None:
                valid = _lengths(f"nn.{self.kind}", lengths, x)
                x = _without_padding(x, valid)
        y, last, results = self._layers(x, self._states(hx, x, batched, order), valid)
        if back is not None:
            last = [index_select(s, 1, back) for s in last]
        if sizes is not None:
            y = type(packed)(pack(y, sizes), packed.batch_sizes, order, back)
        elif not batched:
            y, last = squeeze(y, 1), [squeeze(s, 1) for s in last]
        elif self.batch_first:
            y = transpose(y, 0, 1)
        for s in last:
            s.source = None                                 # views of what nobody sees: they can be detached in place
        state = tuple(last) if self.kind == "LSTM" else last[0]
        if self.return_states if return_states is None else return_states:
            return y, state, self._every_state(results, batched, back)
        return y, state

    def _fail(self, invariant: str, got: Any, fix: str = "", kind: type[Exception] = RuntimeError) -> None:
        fail(f"nn.{self.kind}", invariant, got, fix, kind)

    def _check_input(self, input: Tensor, ndim: int) -> None:
        weight = self.weight_ih_l0
        if input.dtype != weight.dtype and mode.autocast is None:       # which casts both
            self._fail("input and weights must have one dtype", [f"input {input.dtype}", f"weights {weight.dtype}"],
                       one_dtype(input.dtype, weight.dtype), ValueError)
        if input.ndim != ndim or input.shape[-1] != self.input_size:
            self._fail(f"the last size of the input must be input_size {self.input_size}", input.layout)

    def _check_state(self, name: str, state: Any, batch: int, size: int) -> None:
        want = (len(self._suffixes), batch, size)
        if not isinstance(state, Tensor):
            raise TypeError(f"[nn.{self.kind}] {name} must be a Tensor; got {type(state).__name__}")
        if state.shape != want:
            self._fail(f"{name} must be (layers * directions, batch, size) = {list(want)}", state.layout)

    def _states(self, hx: Any, x: Tensor, batched: bool, order: Tensor | None) -> list[Tensor | None]:
        """h (and c) to start from, in the order of x; None for zeros."""
        sizes = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.kind == "LSTM" else [])]
        if hx is None:
            if not self.learn_initial_state:
                return [None] * len(sizes)
            learnt = [getattr(self, name) for name in ("h_0", "c_0")[:len(sizes)]]
            return [expand(unsqueeze(p, 1), (p.shape[0], x.shape[1], p.shape[1])) for p in learnt]
        given = list(hx) if self.kind == "LSTM" and isinstance(hx, tuple | list) else [hx]
        if len(given) != len(sizes):
            self._fail("hx must be the pair (h_0, c_0)", f"{type(hx).__name__}", kind=TypeError)
        for i, (state, size) in enumerate(zip(given, sizes, strict=True)):
            if isinstance(state, Tensor):
                if state.ndim != (3 if batched else 2):
                    wanted = "3 dimensions for a batched" if batched else "2 dimensions for an unbatched"
                    self._fail(f"hx must have {wanted} input", state.layout)
                given[i] = state = state if batched else unsqueeze(state, 1)
            self._check_state("hc"[i] + "_0", state, x.shape[1], size)
            if order is not None:
                given[i] = index_select(state, 1, order)
        return given

    def _layers(self, x: Tensor, states: list[Tensor | None],
                lengths: Tensor | None) -> tuple[Tensor, list[Tensor], list[tuple]]:
        """All layers and directions: the output, the last states, and what the ops returned."""
        results: list[tuple] = []
        directions = 2 if self.bidirectional else 1
        for i in range(0, len(self._suffixes), directions):
            if i and self.training and self.dropout > 0:
                x = dropout(x, self.dropout)
            both = []
            for d in range(directions):
                own = [None if s is None else select(s, 0, i + d) for s in states]
                both.append(self._sequence(self._suffixes[i + d], x, own, lengths, d == 1))
            results += both
            x = both[0][0] if directions == 1 else cat([both[0][0], both[1][0]], 2)
        return x, [_stacked([r[1 + k] for r in results]) for k in range(len(states))], results

    def _sequence(self, suffix: str, x: Tensor, states: list[Tensor | None], lengths: Tensor | None,
                  reverse: bool) -> tuple:
        """One layer in one direction: what its op returns."""
        own = self._parameters
        names = ("weight_ih" + suffix, "weight_hh" + suffix, "bias_ih" + suffix, "bias_hh" + suffix)
        weights: list[Any] = [own[n] if n in own else getattr(self, n, None) for n in names]
        mask = None
        if self.training and self.recurrent_dropout > 0:
            mask = dropout(ones(x.shape[1], weights[1].shape[1], dtype=x.dtype, device=x.device),
                           self.recurrent_dropout)
        options: dict[str, Any] = {}
        if self.kind == "RNN":
            options["nonlinearity"] = "tanh" if self.mode == "RNN_TANH" else "relu"
        elif self.kind == "GRU":
            options["reset_after"] = self.reset_after
        else:
            name = "weight_hr" + suffix
            weights.append(own[name] if name in own else getattr(self, name, None))
        if self.norm == "batch":
            return self._batch_sequence(suffix, x, states, weights, mask, lengths, reverse, options)
        norms = _norm_parameters(self, suffix, self.kind)
        return _KINDS[self.kind].sequence(x, *states, *weights, *norms, mask, lengths, norm=self.norm,
                                          eps=self._norms.eps, reverse=reverse, **options)

    def _batch_sequence(self, suffix: str, x: Tensor, states: list[Tensor | None], weights: list, mask: Tensor | None,
                        lengths: Tensor | None, reverse: bool, options: dict[str, Any]) -> tuple:
        """`_sequence` with norm="batch": a loop over the steps, each with its own statistics."""
        one, normalize = _KINDS[self.kind].step, _batch_norms(self, suffix)

        def step(t: int, now: Tensor, live: Tensor | None, *states: Tensor) -> tuple:
            return one(now, *states, *weights, mask, normalize(t, live), **options)
        sizes = [weights[1].shape[1], self.hidden_size]
        started = [ops.start(s, x, size) for s, size in zip(states, sizes, strict=False)]
        results, last = _scan(step, x, started, lengths, reverse)
        return (results[0], *last, *results[1:])

    def _every_state(self, results: list[tuple], batched: bool, back: Tensor | None) -> States:
        """The third result of `return_states=True`, from what the ops of the layers returned."""
        every: list[Tensor | None] = []
        for at in _KINDS[self.kind].every:
            s = None if at is None else _stacked([r[at] for r in results])
            if s is not None:
                s = s if back is None else index_select(s, 2, back)
                s = squeeze(s, 2) if not batched else transpose(s, 1, 2) if self.batch_first else s
            every.append(s)
        return States(*every)                   # type: ignore[arg-type]


class RNN(RNNBase):
    """Elman network (1990): h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu (`nonlinearity`). Options: see `RNNBase`.

        >>> output, h = nn.RNN(3, 4)(minigrad.ones(5, 2, 3))
        >>> output.shape, h.shape
        (Size([5, 2, 4]), Size([1, 2, 4]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, proj_size: int = 0,
                 norm: str | None = None, norm_eps: float = 1e-5, norm_max_length: int | None = None,
                 norm_momentum: float = 0.1, return_states: bool = False, learn_initial_state: bool = False,
                 recurrent_dropout: float = 0.0, forget_bias: float | None = None, reset_after: bool = True) -> None:
        if proj_size:
            raise ValueError("[nn.RNN] proj_size is an option of LSTM only")
        _check_nonlinearity("RNN", nonlinearity)
        self.__dict__["nonlinearity"] = nonlinearity
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype, norm=norm, norm_eps=norm_eps, norm_max_length=norm_max_length,
                         norm_momentum=norm_momentum, return_states=return_states,
                         learn_initial_state=learn_initial_state, recurrent_dropout=recurrent_dropout,
                         forget_bias=forget_bias, reset_after=reset_after)


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); states are pairs (h, c). Options: see `RNNBase`.

    `proj_size` adds a projection of h (Sak et al. 2014). The formulas are at `minigrad.ops.rnn.lstm_cell`.

        >>> output, (h, c) = nn.LSTM(3, 4)(minigrad.ones(5, 2, 3))
        >>> output.shape, h.shape, c.shape
        (Size([5, 2, 4]), Size([1, 2, 4]), Size([1, 2, 4]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: DeviceLike = None, dtype: DtypeLike = None, *,
                 norm: str | None = None, norm_eps: float = 1e-5, norm_max_length: int | None = None,
                 norm_momentum: float = 0.1, return_states: bool = False, learn_initial_state: bool = False,
                 recurrent_dropout: float = 0.0, forget_bias: float | None = None, reset_after: bool = True) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype, norm=norm, norm_eps=norm_eps, norm_max_length=norm_max_length,
                         norm_momentum=norm_momentum, return_states=return_states,
                         learn_initial_state=learn_initial_state, recurrent_dropout=recurrent_dropout,
                         forget_bias=forget_bias, reset_after=reset_after)


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014). Options: see `RNNBase`; the formulas are at `minigrad.ops.rnn.gru_cell`.

    `reset_after=False` is the paper's first version, n = tanh(W_in x + b_in + W_hn (r h) + b_hn). With `norm`, W_ih x
    and W_hh h of all gates are normalized together, and the reset comes after it.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, proj_size: int = 0,
                 norm: str | None = None, norm_eps: float = 1e-5, norm_max_length: int | None = None,
                 norm_momentum: float = 0.1, return_states: bool = False, learn_initial_state: bool = False,
                 recurrent_dropout: float = 0.0, forget_bias: float | None = None, reset_after: bool = True) -> None:
        if proj_size:
            raise ValueError("[nn.GRU] proj_size is an option of LSTM only")
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         device, dtype, norm=norm, norm_eps=norm_eps, norm_max_length=norm_max_length,
                         norm_momentum=norm_momentum, return_states=return_states,
                         learn_initial_state=learn_initial_state, recurrent_dropout=recurrent_dropout,
                         forget_bias=forget_bias, reset_after=reset_after)


# ---- cells ----


class RNNCellBase(Module):
    """What the cells share. A call takes input (batch, input_size) or (input_size,) and the state, None for zeros.

    `norm` and its options are those of the layers. With `norm="batch"` the call also takes `step=`, the number of the
    step whose statistics are used, and `live=` (batch, 1), false for rows that do not count.
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int, bias: bool, device: DeviceLike,
                 dtype: DtypeLike, *, norm: str | None = None, norm_eps: float = 1e-5,
                 norm_max_length: int | None = None, norm_momentum: float = 0.1,
                 forget_bias: float | None = None) -> None:
        super().__init__()
        _check_size(kind + "Cell", "input_size", input_size, 0)
        _check_size(kind + "Cell", "hidden_size", hidden_size, 0)
        if forget_bias is not None and not bias:
            raise ValueError(f"[nn.{kind}Cell] forget_bias needs bias=True")
        self.kind, self.input_size, self.hidden_size = kind, input_size, hidden_size
        self.bias, self.forget_bias, self.norm = bias, forget_bias, norm
        self._norms = _NormOptions(f"nn.{kind}Cell", norm, norm_eps, norm_max_length, norm_momentum)
        gates = _KINDS[kind].gates * hidden_size
        self.weight_ih = Parameter(empty((gates, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(empty((gates, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, device=device, dtype=dtype)) if bias else None)
        self._norms.add_to(self, "", kind, hidden_size, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights and biases anew from U(-k, k), k = 1 / sqrt(hidden_size)."""
        _reset(self, self.hidden_size, self.forget_bias)

    def again(self, input_size: int) -> RNNCellBase:
        """A further cell of the same options, for another input size."""
        options: dict[str, Any] = {"norm": self.norm, "norm_eps": self._norms.eps,
                                   "norm_max_length": self._norms.max_length, "norm_momentum": self._norms.momentum,
                                   **self._options()}
        made: Any = type(self)
        return made(input_size, self.hidden_size, self.bias, device=self.weight_ih.device, dtype=self.weight_ih.dtype,
                    **options)

    def _options(self) -> dict[str, Any]:
        """The options that only some cells have."""
        return {}

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False") + self._norms.text()

    def _run(self, input: Tensor, states: list[Any], step: int, live: Tensor | None, **options: Any) -> list[Tensor]:
        """The states after the step."""
        name = f"nn.{self.kind}Cell"
        if not isinstance(input, Tensor):
            raise TypeError(f"[{name}] input must be a Tensor; got {type(input).__name__}")
        if input.ndim not in (1, 2):
            fail(name, "input must be (batch, input_size) or (input_size,)", input.layout, kind=ValueError)
        if input.shape[-1] != self.input_size:
            fail(name, f"the last size of the input must be input_size {self.input_size}", input.layout)
        x = input if input.ndim == 2 else unsqueeze(input, 0)
        if not isinstance(step, int) or step < 0:
            fail(name, "step must be a whole number, at least 0", repr(step), kind=ValueError)
        if live is not None and (live.dtype != BOOL or live.shape != (x.shape[0], 1)):
            fail(name, f"live must be a bool tensor (batch, 1) = {[x.shape[0], 1]}", live.layout)
        for i, s in enumerate(states):
            if s is None:
                states[i] = zeros(x.shape[0], self.hidden_size, dtype=x.dtype, device=x.device)
                continue
            if not isinstance(s, Tensor):
                raise TypeError(f"[{name}] a state must be a Tensor; got {type(s).__name__}")
            if s.ndim not in (1, 2):
                fail(name, "a state must be (batch, hidden_size) or (hidden_size,)", s.layout, kind=ValueError)
            states[i] = s = s if s.ndim == 2 else unsqueeze(s, 0)
            if s.shape != (x.shape[0], self.hidden_size):
                fail(name, f"a state must be (batch, hidden_size) = {[x.shape[0], self.hidden_size]}", s.layout)
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, *([None] if self.kind == "LSTM" else [])]
        kind = _KINDS[self.kind]
        if self.norm == "batch":
            new = kind.step(x, *states, *weights, None, _batch_norms(self, "")(step, live), **options)[:len(states)]
        else:
            norms = _norm_parameters(self, "", self.kind)
            new = kind.cell(x, *states, *weights, *norms, None, norm=self.norm, eps=self._norms.eps, **options)
            new = new if isinstance(new, tuple) else (new,)
        return list(new) if input.ndim == 2 else [squeeze(s, 0) for s in new]


class RNNCell(RNNCellBase):
    """One step of `RNN`: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
                 device: DeviceLike = None, dtype: DtypeLike = None, **norm: Any) -> None:
        super().__init__("RNN", input_size, hidden_size, bias, device, dtype, **norm)
        _check_nonlinearity("RNNCell", nonlinearity)
        self.nonlinearity = nonlinearity

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")

    def forward(self, input: Tensor, hx: Tensor | None = None, *, step: int = 0, live: Tensor | None = None) -> Tensor:
        """(batch, input_size), (batch, hidden_size) -> the next state (batch, hidden_size)."""
        return self._run(input, [hx], step, live, nonlinearity=self.nonlinearity)[0]


class LSTMCell(RNNCellBase):
    """One step of `LSTM`; hx and the result are pairs (h, c).

    `forget_bias`: the initial sum of the two biases of the forget gate.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None, **norm: Any) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias, device, dtype, **norm)

    def _options(self) -> dict[str, Any]:
        return {"forget_bias": self.forget_bias}

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, step: int = 0,
                live: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(batch, input_size), the pair (h, c), each (batch, hidden_size) -> the next pair."""
        if hx is not None and (not isinstance(hx, tuple | list) or len(hx) != 2):
            raise TypeError(f"[nn.LSTMCell] hx must be the pair (h, c); got {type(hx).__name__}")
        h, c = self._run(input, [None, None] if hx is None else list(hx), step, live)
        return h, c


class GRUCell(RNNCellBase):
    """One step of `GRU`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None, *, reset_after: bool = True, **norm: Any) -> None:
        super().__init__("GRU", input_size, hidden_size, bias, device, dtype, **norm)
        _check_reset("GRUCell", reset_after, self.norm)
        self.reset_after = reset_after

    def _options(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}

    def forward(self, input: Tensor, hx: Tensor | None = None, *, step: int = 0, live: Tensor | None = None) -> Tensor:
        """(batch, input_size), (batch, hidden_size) -> the next state (batch, hidden_size)."""
        return self._run(input, [hx], step, live, reset_after=self.reset_after)[0]


# ---- any cell ----


class Recurrent(Module):
    """Layers, directions and lengths around any cell.

    A cell is a module that maps (input (batch, size), state or None) to the next state: a tensor h, or a tuple whose
    first is h. `cell` is

        a cell of this package: further layers and directions get cells of the same options
        any other module, where one cell is enough
        a list of cells, layer by layer, forward before backward
        a function (layer, direction) -> cell

        >>> output, h = nn.Recurrent(nn.GRUCell(3, 4), num_layers=2)(minigrad.ones(5, 2, 3))
        >>> output.shape, h.shape
        (Size([5, 2, 4]), Size([2, 2, 4]))
    """

    def __init__(self, cell: Any, num_layers: int = 1, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False) -> None:
        super().__init__()
        _check_size("Recurrent", "num_layers", num_layers)
        self.num_layers, self.batch_first, self.bidirectional = num_layers, batch_first, bidirectional
        self.dropout = _dropout_probability("Recurrent", "dropout", dropout)
        self.cells = ModuleList(self._cells(cell))

    def _cells(self, cell: Any) -> list[Module]:
        """The cells of all layers and directions, made of what the caller gave."""
        directions = 2 if self.bidirectional else 1
        count = self.num_layers * directions
        if isinstance(cell, Module) and not isinstance(cell, ModuleList):
            cells: list[Module] = [cell]
            if isinstance(cell, RNNCellBase):
                wide = cell.hidden_size * directions
                cells += [cell.again(cell.input_size if i < directions else wide) for i in range(1, count)]
            elif count != 1:
                fail("nn.Recurrent", "only this package's cells can be made again for further layers and directions",
                     type(cell).__name__, f"pass a list of {count} cells or a function (layer, direction) -> cell",
                     TypeError)
        elif callable(cell):
            cells = [cell(i // directions, i % directions) for i in range(count)]
        else:
            cells = list(cell)
        if len(cells) != count or not all(isinstance(c, Module) for c in cells):
            fail("nn.Recurrent", "there must be one cell (a module) for each layer and direction",
                 f"{len(cells)} for {self.num_layers} layers, {directions} directions", kind=ValueError)
        return cells

    def extra_repr(self) -> str:
        names = ("num_layers", "batch_first", "dropout", "bidirectional")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name))

    def forward(self, input: Tensor | PackedSequence, hx: Any = None, *, lengths: Lengths = None) -> Any:
        """The pair of the output of the last layer and the last state(s) of all, (layers * directions, batch, size).

        Arguments are those of `RNNBase.forward`. With `hx=None` the cells start from zeros: their first call gets None.
        """
        order, back, valid, sizes = None, None, None, None
        packed: Any = input
        if isinstance(input, PackedSequence):
            sizes, order, back = host_batch_sizes(input), input.sorted_indices, input.unsorted_indices
            x, valid = _unpacked("nn.Recurrent", input, sizes, lengths)
        else:
            if not isinstance(input, Tensor) or input.ndim != 3 or not input.numel():
                fail("nn.Recurrent", "input must be a tensor (steps, batch, size) with at least one step, or a "
                     "PackedSequence", input.layout if isinstance(input, Tensor) else type(input).__name__,
                     kind=ValueError)
            x = transpose(input, 0, 1) if self.batch_first else input
            if lengths is not None:
                valid = _lengths("nn.Recurrent", lengths, x)
                x = _without_padding(x, valid)
        several = isinstance(hx, tuple | list)
        given: list[Any] = [] if hx is None else list(hx) if several else [hx]
        for state in given:
            if not isinstance(state, Tensor) or state.ndim != 3 or state.shape[:2] != (len(self.cells), x.shape[1]):
                fail("nn.Recurrent", f"each state of hx must be (layers * directions = {len(self.cells)}, "
                     f"batch = {x.shape[1]}, size)",
                     state.layout if isinstance(state, Tensor) else type(state).__name__)
        if order is not None:
            given = [index_select(s, 1, order) for s in given]
        directions = 2 if self.bidirectional else 1
        last: list[list[Tensor]] = []
        for i in range(0, len(self.cells), directions):
            if i and self.training and self.dropout > 0:
                x = dropout(x, self.dropout)
            outputs = []
            for d in range(directions):
                own = [select(s, 0, i + d) for s in given]
                y, end, several = self._sequence(self.cells[i + d], x, own, several, valid, d == 1)
                outputs.append(y)
                last.append(end)
            x = outputs[0] if directions == 1 else cat(outputs, 2)
        ends = [_stacked(list(one)) for one in zip(*last, strict=True)]
        if back is not None:
            ends = [index_select(s, 1, back) for s in ends]
        if sizes is not None:
            x = type(packed)(pack(x, sizes), packed.batch_sizes, order, back)
        elif self.batch_first:
            x = transpose(x, 0, 1)
        return x, tuple(ends) if several else ends[0]

    def _sequence(self, cell: Any, x: Tensor, states: list[Tensor], several: bool, lengths: Tensor | None,
                  reverse: bool) -> tuple:
        """One cell over all steps: its h of each, its last states, and whether these are a tuple."""
        numbered = isinstance(cell, RNNCellBase) and cell.norm == "batch"

        def step(t: int, now: Tensor, live: Tensor | None, *states: Tensor) -> tuple:
            nonlocal several
            state: Any = None if not states else states if several else states[0]
            new = cell(now, state, step=t, live=live) if numbered else cell(now, state)
            several = isinstance(new, tuple | list)
            return tuple(new) if several else (new,)
        results, end = _scan(step, x, states or None, lengths, reverse)
        return results[0], end, several
