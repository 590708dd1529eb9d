"""Recurrent layers and cells: PyTorch's, and normalised ones.

    RNN, LSTM, GRU              sequences, in one native call for each layer and direction (a loop of launches with norm="batch" or
                                reset_after=False)
    RNNCell, LSTMCell, GRUCell  one step
    Recurrent                   layers, directions and lengths around any cell

Beside PyTorch's options all take ``norm="layer" | "rms" | "batch"``:

    "layer"  Ba, Kiros and Hinton 2016, eq. 20 to 22: LayerNorm of W_ih x and of W_hh h, each over all gates together, then biases;
             LSTM also LayerNorm of the cell state inside the output's tanh
    "rms"    the same with root mean squares (Zhang and Sennrich 2019): weights only
    "batch"  Cooijmans et al. 2016: BatchNorm in the same places, with statistics of its own for each of the first ``norm_max_length``
             steps (later ones use the last); weights start at 0.1. The steps of the backward direction count from a sequence's end.

The norms are the submodules ``norm_ih_l{k}``, ``norm_hh_l{k}`` and (LSTM) ``norm_c_l{k}``, with ``_reverse`` behind; of cells
``norm_ih``, ``norm_hh``, ``norm_c``. Of "layer" and "rms" they hold the parameters only: the kernels of the layer run them, with
the layer's ``norm_eps``. ``bias=False`` is about ``bias_ih`` and ``bias_hh``: norms keep theirs.
"""
from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minigrad.ops import rnn as ops
from minigrad.ops.creation import empty, ones, zeros

from ..core.shape import BOOL, INT64, fail
from ..core.tape import mode, no_grad
from ..core.tensor import Tensor, new_tensor
from ..devices.base import Device
from ..ops.arrange import flip
from ..ops.index import gather, index_select
from ..ops.join import cat, stack
from ..ops.math import gt, where
from ..ops.take import check_index, guard
from ..ops.view import expand, reshape, select, squeeze, transpose, unsqueeze
from . import functional as F
from . import init
from .container import ModuleList
from .module import Module, Parameter
from .norm import LayerNorm, RMSNorm
from .utils.rnn import PackedSequence, check_lengths, host_batch_sizes, host_lengths, pack, packed_lengths, unpack

NORMS = (None, "layer", "rms", "batch")
_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
_OPS: dict[str, tuple[Any, Any]] = {"RNN": (ops.rnn_sequence, ops.rnn_cell), "LSTM": (ops.lstm_sequence, ops.lstm_cell),
                                    "GRU": (ops.gru_sequence, ops.gru_cell)}


class States(NamedTuple):
    """What ``return_states=True`` adds: every step's hidden state ``h``, cell state ``c`` (LSTM) and gates (LSTM i f g o, GRU r z n),
    each (layers * directions, steps, batch, size), or with ``batch_first`` (layers * directions, batch, steps, size)."""

    h: Tensor
    c: Tensor | None
    gates: Tensor | None


# ---- norms ----------------------------------------------------------------------------------------------------------

class StepBatchNorm(Module):
    """BatchNorm over a batch (batch, size) with running statistics of its own for each of ``max_length`` steps; later steps use the
    last. Rows where ``live`` (batch, 1) is False do not count."""

    def __init__(self, size: int, max_length: int, eps: float, momentum: float, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.size, self.max_length, self.eps, self.momentum = size, max_length, eps, momentum
        self.weight = Parameter(empty(size, device=device, dtype=dtype))
        self.bias = Parameter(empty(size, device=device, dtype=dtype))
        self.register_buffer("running_mean", zeros(max_length, size, device=device, dtype=dtype))
        self.register_buffer("running_var", ones(max_length, size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 0.1 (with 1 the tanh saturates and gradients vanish: Cooijmans et al. 2016, section 4), bias 0, no statistics"""
        init.constant_(self.weight, 0.1)
        init.zeros_(self.bias)
        init.zeros_(self.running_mean)          # type: ignore[arg-type]
        init.ones_(self.running_var)            # type: ignore[arg-type]

    def forward(self, input: Tensor, step: int, live: Tensor | None = None) -> Tensor:
        at = min(step, self.max_length - 1)
        mean, var = select(self.running_mean, 0, at), select(self.running_var, 0, at)
        return F.batch_norm(input, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps,
                            mask=live if self.training else None)

    def extra_repr(self) -> str:
        return f"{self.size}, max_length={self.max_length}, eps={self.eps}, momentum={self.momentum}"


class _NormOptions:
    """The options that say how to normalise, checked, and what they add to a layer."""

    def __init__(self, name: str, norm: str | None, eps: float, max_length: int | None, momentum: float) -> None:
        if norm not in NORMS:
            fail(name, "norm must be None, 'layer', 'rms' or 'batch'", repr(norm), kind=ValueError)
        if norm is not None and not eps > 0:
            fail(name, "norm_eps must be positive", repr(eps), kind=ValueError)
        if norm == "batch" and (not isinstance(max_length, int) or max_length < 1):
            fail(name, "norm='batch' keeps statistics for each step and needs to know for how many", f"norm_max_length={max_length!r}",
                 "pass norm_max_length=, the number of steps of the longest training sequence", kind=ValueError)
        self.norm, self.eps, self.max_length, self.momentum = norm, eps, max_length, momentum

    def module(self, size: int, device: Any, dtype: Any) -> Module:
        if self.norm == "layer":
            return LayerNorm(size, self.eps, device=device, dtype=dtype)
        if self.norm == "rms":
            return RMSNorm(size, self.eps, device=device, dtype=dtype)
        return StepBatchNorm(size, self.max_length or 1, self.eps, self.momentum, device, dtype)

    def add_to(self, module: Module, suffix: str, sizes: dict[str, int], device: Any, dtype: Any) -> None:
        for which, size in sizes.items():
            if self.norm is not None:
                module.add_module(f"norm_{which}{suffix}", self.module(size, device, dtype))

    def text(self) -> str:
        if self.norm is None:
            return ""
        return f", norm={self.norm!r}" + (f", norm_max_length={self.max_length}" if self.norm == "batch" else "")


def _norm_parameters(module: Module, suffix: str, which: Sequence[str]) -> list[Tensor | None]:
    """weight and bias of each norm; None where there is none."""
    found: list[Any] = []
    for one in which:
        norm = module._modules.get(f"norm_{one}{suffix}")
        found += [None, None] if norm is None else [norm.weight, getattr(norm, "bias", None)]
    return found


def _reset(module: Module, hidden: int, forget_bias: float | None) -> None:
    """U(-k, k) with k = 1 / sqrt(hidden) for weights and biases; LSTM's forget gates may start open."""
    bound = 1 / math.sqrt(hidden)
    for name, p in module._parameters.items():
        if p is None:
            continue
        if name in ("h_0", "c_0"):
            init.zeros_(p)
            continue
        init.uniform_(p, -bound, bound)
        if forget_bias is not None and name.startswith("bias_"):
            with no_grad():                     # the two biases add up
                p[hidden:2 * hidden] = forget_bias if name.startswith("bias_ih") else 0.0
    for child in module._modules.values():
        if child is not None:
            child.reset_parameters()


# ---- sequences of different lengths ---------------------------------------------------------------------------------

@lru_cache(maxsize=256)
def _constant(values: tuple[int, ...], device: Device, column: bool = False) -> Tensor:
    """int64 values that nothing rewrites, so that a captured program may use them."""
    array = np.array(values, np.int64)
    return new_tensor(device.constant(array.reshape(-1, 1) if column else array), None)


def _lengths(name: str, lengths: Any, x: Tensor) -> Tensor:
    """The lengths of a padded batch as an int64 tensor beside x (steps, batch, *), checked; in a captured step at each replay."""
    steps, batch = x.shape[:2]
    if isinstance(lengths, Tensor):
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
            fail(name, "lengths must be whole numbers, one for each sequence", lengths.layout)
        if mode.recorder is None:
            check_lengths(name, host_lengths(name, lengths), batch, steps)
            return lengths.detach().to(x.device).to(INT64)
        if lengths.shape != (batch,):
            fail(name, "lengths must have one entry for each sequence of the batch", [lengths.layout, f"batch size {batch}"])
        given = lengths.detach().to(x.device).to(INT64)

        def verify() -> None:
            wrong = check_index(given, 1, steps + 1)
            if wrong is not None:
                fail(name, f"lengths must lie between 1 and the number of steps {steps}", wrong, kind=ValueError)
        guard(verify)
        return given
    values = host_lengths(name, lengths)
    check_lengths(name, values, batch, steps)
    return _constant(tuple(values.tolist()), x.device)


def _without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (steps, batch, *) with zeros past each length: whatever stands there (NaN, too) reaches neither results nor gradients."""
    live = gt(lengths, _constant(tuple(range(x.shape[0])), x.device, True))
    return where(reshape(live, (*live.shape, *(1,) * (x.ndim - 2))), x, 0.0)


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence of x (steps, batch, size) from its end to its start; padding stays where it is."""
    if lengths is None:
        return flip(x, (0,))
    t = _constant(tuple(range(x.shape[0])), x.device, True)
    source = where(gt(lengths, t), lengths - 1 - t, t)
    return gather(x, 0, expand(unsqueeze(source, 2), x.shape))


def _scan(step: Callable[..., tuple], x: Tensor, states: list[Tensor] | None, lengths: Tensor | None, reverse: bool) -> tuple[list, list]:
    """``ops.scan`` for steps that look at the step's number: the backward direction counts from a sequence's end."""
    results, last = ops.scan(step, _turned(x, lengths) if reverse else x, states, lengths)
    return ([_turned(r, lengths) for r in results] if reverse else results), last


def _dropout_probability(owner: str, name: str, dropout: Any) -> float:
    if not isinstance(dropout, numbers.Number) or not 0 <= dropout <= 1 or isinstance(dropout, bool):      # type: ignore[operator]
        raise ValueError(f"[nn.{owner}] {name} must be a number between 0 and 1, the probability of an element to be zeroed; "
                         f"got {dropout!r}")
    return float(dropout)                       # type: ignore[arg-type]


def _whole(owner: str, name: str, value: Any) -> None:
    if not isinstance(value, int):
        raise TypeError(f"[nn.{owner}] {name} must be an int; got {type(value).__name__}")
    if value <= 0:
        raise ValueError(f"[nn.{owner}] {name} must be greater than zero; got {value}")


def _batch_norms(module: Module, suffix: str) -> Callable[[int, Tensor | None], ops.Normalize]:
    """The normalization of a step by the StepBatchNorms of a layer."""
    def at(t: int, live: Tensor | None) -> ops.Normalize:
        return lambda p, which: module._modules[f"norm_{which}{suffix}"](p, t, live)       # type: ignore[misc]
    return at


# ---- layers ---------------------------------------------------------------------------------------------------------

class RNNBase(Module):
    """What ``RNN``, ``LSTM`` and ``GRU`` share: options, parameters, lengths, layers and directions.

    input (steps, batch, input_size), with ``batch_first`` (batch, steps, input_size), one sequence (steps, input_size), or a
    ``PackedSequence`` -> output with every step's h of the last layer (directions side by side), and the last states of all layers
    and directions (layers * directions, batch, size). Beside PyTorch's options:

    ``norm``, ``norm_eps``, ``norm_max_length``, ``norm_momentum``: see the module's text.
    ``lengths=`` (in the call): the lengths of the sequences of a padded batch, in any order, instead of packing. Outputs past a
    length are 0, last states are those at the length, the backward direction starts there.
    ``return_states=True`` (here or in the call): every step's states and gates of all layers come as a third result (``States``).
    ``learn_initial_state=True``: the states that a call without ``hx`` starts from are the parameters ``h_0`` (and ``c_0``).
    ``recurrent_dropout=p``: in training h is zeroed with probability p on its way into W_hh, by one mask for the whole sequence
    (Gal and Ghahramani 2016), scaled by 1 / (1 - p).
    ``forget_bias=`` (LSTM): what the forget gates' biases start from, in sum. ``reset_after=False`` (GRU): see ``GRU``.
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None, *,
                 norm: str | None = None, norm_eps: float = 1e-5, norm_max_length: int | None = None, norm_momentum: float = 0.1,
                 return_states: bool = False, learn_initial_state: bool = False, recurrent_dropout: float = 0.0,
                 forget_bias: float | None = None, reset_after: bool = True) -> None:
        super().__init__()
        if mode not in _GATES:
            raise ValueError(f"[nn.RNNBase] unknown mode {mode!r}; use one of {', '.join(_GATES)}")
        self.kind = mode[:3] if mode.startswith("RNN") else mode
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional, self.proj_size = bias, batch_first, bidirectional, proj_size
        self.dropout = _dropout_probability(self.kind, "dropout", dropout)
        self.recurrent_dropout = _dropout_probability(self.kind, "recurrent_dropout", recurrent_dropout)
        if self.dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout acts between layers: with num_layers=1, dropout={dropout} does nothing", stacklevel=3)
        for name, flag in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(flag, bool):
                raise TypeError(f"[nn.{self.kind}] {name} must be a bool; got {type(flag).__name__}")
        _whole(self.kind, "input_size", input_size)
        _whole(self.kind, "hidden_size", hidden_size)
        _whole(self.kind, "num_layers", num_layers)
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"[nn.{self.kind}] proj_size must be smaller than hidden_size, or 0 for no projection; got {proj_size}")
        if forget_bias is not None and (self.kind != "LSTM" or not bias):
            raise ValueError(f"[nn.{self.kind}] forget_bias needs an LSTM with bias=True")
        if not reset_after and norm is not None:
            raise ValueError("[nn.GRU] norm needs reset_after=True: with the reset before it, W_hh h is never there as a whole")
        self.return_states, self.learn_initial_state = bool(return_states), bool(learn_initial_state)
        self.forget_bias, self.reset_after = forget_bias, bool(reset_after)
        self.norm, self._norms = norm, _NormOptions(f"nn.{self.kind}", norm, norm_eps, norm_max_length, norm_momentum)
        gates, outputs, directions = _GATES[mode] * hidden_size, proj_size or hidden_size, 2 if bidirectional else 1
        norms = {"ih": gates, "hh": gates, **({"c": hidden_size} if mode == "LSTM" else {})}
        self._suffixes = [f"_l{layer}{'_reverse' if d else ''}" for layer in range(num_layers) for d in range(directions)]
        self._all_weights: list[list[str]] = []
        for i, suffix in enumerate(self._suffixes):
            shapes = {"weight_ih": (gates, input_size if i < directions else outputs * directions), "weight_hh": (gates, outputs),
                      **({"bias_ih": (gates,), "bias_hh": (gates,)} if bias else {}),
                      **({"weight_hr": (outputs, hidden_size)} if proj_size else {})}
            for name, shape in shapes.items():
                self.register_parameter(name + suffix, Parameter(empty(shape, device=device, dtype=dtype)))
            self._all_weights.append([name + suffix for name in shapes])
            self._norms.add_to(self, suffix, norms, device, dtype)
        if learn_initial_state:
            self.h_0 = Parameter(empty((len(self._suffixes), outputs), device=device, dtype=dtype))
            if mode == "LSTM":
                self.c_0 = Parameter(empty((len(self._suffixes), hidden_size), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _reset(self, self.hidden_size, self.forget_bias)

    def flatten_parameters(self) -> None:
        """Does nothing: the kernels pack the weights themselves. Here for programs that call it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def extra_repr(self) -> str:
        s = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0),
                              ("bidirectional", False), ("return_states", False), ("learn_initial_state", False),
                              ("recurrent_dropout", 0), ("forget_bias", None), ("reset_after", True)):
            if getattr(self, name) != default:
                s += f", {name}={getattr(self, name)}"
        return s + self._norms.text()

    # ---- the call ----

    def _fail(self, invariant: str, got: Any, fix: str = "", kind: type[Exception] = RuntimeError) -> None:
        fail(f"nn.{self.kind}", invariant, got, fix, kind)

    def _check_input(self, input: Tensor, ndim: int) -> None:
        weight = self.weight_ih_l0
        if input.dtype != weight.dtype:
            self._fail("input and weights must have one dtype", [f"input {input.dtype}", f"weights {weight.dtype}"],
                       f"convert with input.to({weight.dtype}) or model.to({input.dtype})", ValueError)
        if input.ndim != ndim or input.shape[-1] != self.input_size:
            self._fail(f"the last size of the input must be input_size {self.input_size}", input.layout)

    def _check_state(self, name: str, state: Any, batch: int, size: int) -> None:
        want = (len(self._suffixes), batch, size)
        if not isinstance(state, Tensor):
            raise TypeError(f"[nn.{self.kind}] {name} must be a Tensor; got {type(state).__name__}")
        if state.shape != want:
            self._fail(f"{name} must be (layers * directions, batch, size) = {list(want)}", state.layout)

    def _states(self, hx: Any, x: Tensor, batched: bool, order: Tensor | None) -> list[Tensor | None]:
        """h (and c) to start from, in the order of x."""
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
                    self._fail(f"hx must have {'3 dimensions for a batched' if batched else '2 dimensions for an unbatched'} input",
                               state.layout)
                given[i] = state = state if batched else unsqueeze(state, 1)
            self._check_state("hc"[i] + "_0", state, x.shape[1], size)
            if order is not None:
                given[i] = index_select(state, 1, order)
        return given

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None, return_states: bool | None = None) -> Any:
        packed, batched, order, valid = isinstance(input, PackedSequence), True, None, None
        if packed:
            if lengths is not None:
                self._fail("a packed sequence carries its lengths", "lengths=", "leave lengths= out")
            self._check_input(input.data, 2)
            sizes, order = host_batch_sizes(input), input.sorted_indices
            x = unpack(input.data, sizes, len(sizes))
            if sizes[0] != sizes[-1]:
                valid = _constant(tuple(packed_lengths(sizes).tolist()), x.device)
        else:
            if not isinstance(input, Tensor):
                raise TypeError(f"[nn.{self.kind}] input must be a Tensor or a PackedSequence; got {type(input).__name__}")
            batched = input.ndim == 3
            if not batched and input.ndim != 2:
                self._fail("input must be (steps, batch, input_size), or (steps, input_size) for one sequence", input.layout,
                           kind=ValueError)
            self._check_input(input, input.ndim)
            x = unsqueeze(input, 1) if not batched else transpose(input, 0, 1) if self.batch_first else input
            if not x.shape[0]:
                self._fail("a sequence must have at least one step", input.layout)
            if lengths is not None:
                valid = _lengths(f"nn.{self.kind}", lengths, x)
                x = _without_padding(x, valid)
        y, last, results = self._layers(x, self._states(hx, x, batched, order), valid)
        back = input.unsorted_indices if packed else None
        if back is not None:
            last = [index_select(s, 1, back) for s in last]
        if packed:
            y = type(input)(pack(y, sizes), input.batch_sizes, order, back)
        elif not batched:
            y, last = squeeze(y, 1), [squeeze(s, 1) for s in last]
        elif self.batch_first:
            y = transpose(y, 0, 1)
        state = tuple(last) if self.kind == "LSTM" else last[0]
        if not (self.return_states if return_states is None else return_states):
            return y, state
        every: list[Tensor | None] = []
        for at in {"RNN": (0, None, None), "LSTM": (0, 3, 4), "GRU": (0, None, 2)}[self.kind]:      # in what the ops return
            s = None if at is None else _stacked([r[at] for r in results])
            if s is not None:
                s = s if back is None else index_select(s, 2, back)
                s = squeeze(s, 2) if not batched else transpose(s, 1, 2) if self.batch_first else s
            every.append(s)
        return y, state, States(*every)                                                             # type: ignore[arg-type]

    def _layers(self, x: Tensor, states: list[Tensor | None], lengths: Tensor | None) -> tuple[Tensor, list[Tensor], list[tuple]]:
        """All layers and directions: the output, the last states, and what the ops returned."""
        results: list[tuple] = []
        directions = 2 if self.bidirectional else 1
        for i in range(0, len(self._suffixes), directions):
            if i and self.training and self.dropout > 0:
                x = F.dropout(x, self.dropout)
            both = [self._sequence(self._suffixes[i + d], x, [None if s is None else select(s, 0, i + d) for s in states], lengths, d == 1)
                    for d in range(directions)]
            results += both
            x = both[0][0] if directions == 1 else cat([both[0][0], both[1][0]], 2)
        return x, [_stacked([r[1 + k] for r in results]) for k in range(len(states))], results

    def _sequence(self, suffix: str, x: Tensor, states: list[Tensor | None], lengths: Tensor | None, reverse: bool) -> tuple:
        """One layer in one direction: what its op returns."""
        own = self._parameters
        weights: list[Any] = [own[n] if n in own else getattr(self, n, None)
                              for n in ("weight_ih" + suffix, "weight_hh" + suffix, "bias_ih" + suffix, "bias_hh" + suffix)]
        mask = None
        if self.training and self.recurrent_dropout > 0:
            mask = F.dropout(ones(x.shape[1], weights[1].shape[1], dtype=x.dtype, device=x.device), self.recurrent_dropout)
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
        norms = _norm_parameters(self, suffix, ("ih", "hh", "c") if self.kind == "LSTM" else ("ih", "hh"))
        return _OPS[self.kind][0](x, *states, *weights, *norms, mask, lengths, norm=self.norm, eps=self._norms.eps, reverse=reverse,
                                  **options)

    def _batch_sequence(self, suffix: str, x: Tensor, states: list[Tensor | None], weights: list, mask: Tensor | None,
                        lengths: Tensor | None, reverse: bool, options: dict[str, Any]) -> tuple:
        one = {"RNN": ops.rnn_step, "LSTM": ops.lstm_step, "GRU": ops.gru_step}[self.kind]
        normalize = _batch_norms(self, suffix)

        def step(t: int, now: Tensor, live: Tensor | None, *states: Tensor) -> tuple:
            return one(now, *states, *weights, mask, normalize(t, live), **options)     # type: ignore[operator]
        sizes = [weights[1].shape[1], self.hidden_size]
        started = [ops.start(s, x, size) for s, size in zip(states, sizes, strict=False)]
        results, last = _scan(step, x, started, lengths, reverse)
        return (results[0], *last, *results[1:])


def _stacked(tensors: list[Tensor]) -> Tensor:
    return unsqueeze(tensors[0], 0) if len(tensors) == 1 else stack(tensors, 0)


class RNN(RNNBase):
    """Elman network (1990): h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu (``nonlinearity``). Options: see ``RNNBase``."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", *args: Any,
                 **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("[nn.RNN] proj_size is an option of LSTM only")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[nn.RNN] nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}")
        self.__dict__["nonlinearity"] = nonlinearity
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, *args, **kwargs)


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with ``proj_size`` a projection of h (Sak et al. 2014); the formulas
    stand at ``minigrad.ops.rnn.lstm_cell``, the options at ``RNNBase``. States come and go as pairs (h, c)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014); the formulas stand at ``minigrad.ops.rnn.gru_cell``, the options at ``RNNBase``.

    ``reset_after=False`` is the paper's first version, n = tanh(W_in x + b_in + W_hn (r h) + b_hn). With ``norm`` all of W_ih x and
    all of W_hh h is normalised, and the reset comes after.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("[nn.GRU] proj_size is an option of LSTM only")
        super().__init__("GRU", *args, **kwargs)


# ---- cells ----------------------------------------------------------------------------------------------------------

class RNNCellBase(Module):
    """What the cells share. A call takes input (batch, input_size) or (input_size,) and the state before, None for zeros.

    ``norm`` and its options are those of the layers. With ``norm="batch"`` the call also takes ``step=``, the number of the step, whose
    statistics are meant, and ``live=`` (batch, 1), False for rows that do not count.
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: Any, *, norm: str | None = None,
                 norm_eps: float = 1e-5, norm_max_length: int | None = None, norm_momentum: float = 0.1,
                 forget_bias: float | None = None) -> None:
        super().__init__()
        _whole(kind + "Cell", "input_size", input_size)
        _whole(kind + "Cell", "hidden_size", hidden_size)
        if forget_bias is not None and not bias:
            raise ValueError(f"[nn.{kind}Cell] forget_bias needs bias=True")
        self.kind, self.input_size, self.hidden_size, self.bias, self.forget_bias = kind, input_size, hidden_size, bias, forget_bias
        self.norm, self._norms = norm, _NormOptions(f"nn.{kind}Cell", norm, norm_eps, norm_max_length, norm_momentum)
        gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind] * hidden_size
        self.weight_ih = Parameter(empty((gates, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(empty((gates, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, device=device, dtype=dtype)) if bias else None)
        self._norms.add_to(self, "", {"ih": gates, "hh": gates, **({"c": hidden_size} if kind == "LSTM" else {})}, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _reset(self, self.hidden_size, self.forget_bias)

    def again(self, input_size: int) -> RNNCellBase:
        """A further cell of the same options, for another input size."""
        options: dict[str, Any] = {"norm": self.norm, "norm_eps": self._norms.eps, "norm_max_length": self._norms.max_length,
                                   "norm_momentum": self._norms.momentum, **self._options()}
        made: Any = type(self)
        return made(input_size, self.hidden_size, self.bias, device=self.weight_ih.device, dtype=self.weight_ih.dtype, **options)

    def _options(self) -> dict[str, Any]:
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
            states[i] = s = s if s.ndim == input.ndim == 2 else unsqueeze(s, 0) if s.ndim == 1 else s
            if s.shape != (x.shape[0], self.hidden_size):
                fail(name, f"a state must be (batch, hidden_size) = {[x.shape[0], self.hidden_size]}", s.layout)
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, *([None] if self.kind == "LSTM" else [])]
        if self.norm == "batch":
            one: Any = {"RNN": ops.rnn_step, "LSTM": ops.lstm_step, "GRU": ops.gru_step}[self.kind]
            new = one(x, *states, *weights, None, _batch_norms(self, "")(step, live), **options)[:len(states)]
        else:
            norms = _norm_parameters(self, "", ("ih", "hh", "c") if self.kind == "LSTM" else ("ih", "hh"))
            new = _OPS[self.kind][1](x, *states, *weights, *norms, None, norm=self.norm, eps=self._norms.eps, **options)
            new = new if isinstance(new, tuple) else (new,)
        return list(new) if input.ndim == 2 else [squeeze(s, 0) for s in new]


class RNNCell(RNNCellBase):
    """One step of ``RNN``: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
                 dtype: Any = None, **norm: Any) -> None:
        super().__init__("RNN", input_size, hidden_size, bias, device, dtype, **norm)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[nn.RNNCell] nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")

    def forward(self, input: Tensor, hx: Tensor | None = None, *, step: int = 0, live: Tensor | None = None) -> Tensor:
        return self._run(input, [hx], step, live, nonlinearity=self.nonlinearity)[0]


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``; hx and the result are pairs (h, c). ``forget_bias``: what the forget gate's biases start from, in sum."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None, **norm: Any) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias, device, dtype, **norm)

    def _options(self) -> dict[str, Any]:
        return {"forget_bias": self.forget_bias}

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, step: int = 0,
                live: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if hx is not None and (not isinstance(hx, tuple | list) or len(hx) != 2):
            raise TypeError(f"[nn.LSTMCell] hx must be the pair (h, c); got {type(hx).__name__}")
        h, c = self._run(input, [None, None] if hx is None else list(hx), step, live)
        return h, c


class GRUCell(RNNCellBase):
    """One step of ``GRU``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None, *,
                 reset_after: bool = True, **norm: Any) -> None:
        super().__init__("GRU", input_size, hidden_size, bias, device, dtype, **norm)
        if not reset_after and self.norm is not None:
            raise ValueError("[nn.GRUCell] norm needs reset_after=True: with the reset before it, W_hh h is never there as a whole")
        self.reset_after = reset_after

    def _options(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}

    def forward(self, input: Tensor, hx: Tensor | None = None, *, step: int = 0, live: Tensor | None = None) -> Tensor:
        return self._run(input, [hx], step, live, reset_after=self.reset_after)[0]


# ---- any cell -------------------------------------------------------------------------------------------------------

class Recurrent(Module):
    """Layers, directions and lengths around any cell: a module that maps (input (batch, size), state or None) to the next state, a
    tensor h or a tuple whose first is h.

    ``cell``: a cell of this package (further layers and directions get cells of the same options); or a list of cells, layer by
    layer, forward before backward; or a function (layer, direction) -> cell. Any module will do where one cell is enough.
    Calls are like those of ``LSTM``: input (steps, batch, size), ``lengths=``, -> output, last state(s) (layers * directions, batch, size).
    ``hx`` None: the cells start from zeros (the first call gets None).
    """

    def __init__(self, cell: Any, num_layers: int = 1, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False) -> None:
        super().__init__()
        _whole("Recurrent", "num_layers", num_layers)
        self.num_layers, self.batch_first, self.bidirectional = num_layers, batch_first, bidirectional
        self.dropout = _dropout_probability("Recurrent", "dropout", dropout)
        directions = 2 if bidirectional else 1
        count = num_layers * directions
        if isinstance(cell, Module) and not isinstance(cell, ModuleList):
            cells: list[Module] = [cell]
            if isinstance(cell, RNNCellBase):
                wide = cell.hidden_size * directions
                cells += [cell.again(cell.input_size if i < directions else wide) for i in range(1, count)]
            elif count != 1:
                fail("nn.Recurrent", "only this package's cells can be made again for further layers and directions", type(cell).__name__,
                     f"pass a list of {count} cells or a function (layer, direction) -> cell", TypeError)
        elif callable(cell):
            cells = [cell(i // directions, i % directions) for i in range(count)]
        else:
            cells = list(cell)
        if len(cells) != count or not all(isinstance(c, Module) for c in cells):
            fail("nn.Recurrent", "there must be one cell (a module) for each layer and direction", f"{len(cells)} for {num_layers} layers, "
                 f"{directions} directions", kind=ValueError)
        self.cells = ModuleList(cells)

    def extra_repr(self) -> str:
        names = ("num_layers", "batch_first", "dropout", "bidirectional")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name))

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        packed, sizes = isinstance(input, PackedSequence), None
        if packed:
            if lengths is not None:
                fail("nn.Recurrent", "a packed sequence carries its lengths", "lengths=", "leave lengths= out")
            sizes = host_batch_sizes(input)
            x, valid = unpack(input.data, sizes, len(sizes)), _constant(tuple(packed_lengths(sizes).tolist()), input.data.device)
        else:
            if not isinstance(input, Tensor) or input.ndim != 3 or not input.numel():
                fail("nn.Recurrent", "input must be a tensor (steps, batch, size) with at least one step, or a PackedSequence",
                     input.layout if isinstance(input, Tensor) else type(input).__name__, kind=ValueError)
            x, valid = transpose(input, 0, 1) if self.batch_first else input, None
            if lengths is not None:
                valid = _lengths("nn.Recurrent", lengths, x)
                x = _without_padding(x, valid)
        order, back = (input.sorted_indices, input.unsorted_indices) if packed else (None, None)
        several = isinstance(hx, tuple | list)
        given: list[Any] = [] if hx is None else list(hx) if several else [hx]
        for state in given:
            if not isinstance(state, Tensor) or state.ndim != 3 or state.shape[:2] != (len(self.cells), x.shape[1]):
                fail("nn.Recurrent", f"each state of hx must be (layers * directions = {len(self.cells)}, batch = {x.shape[1]}, size)",
                     state.layout if isinstance(state, Tensor) else type(state).__name__)
        if order is not None:
            given = [index_select(s, 1, order) for s in given]
        directions = 2 if self.bidirectional else 1
        last: list[list[Tensor]] = []
        for i in range(0, len(self.cells), directions):
            if i and self.training and self.dropout > 0:
                x = F.dropout(x, self.dropout)
            outputs = []
            for d in range(directions):
                y, end, several = self._sequence(self.cells[i + d], x, [select(s, 0, i + d) for s in given], several, valid, d == 1)
                outputs.append(y)
                last.append(end)
            x = outputs[0] if directions == 1 else cat(outputs, 2)
        ends = [_stacked(list(one)) for one in zip(*last, strict=True)]
        if back is not None:
            ends = [index_select(s, 1, back) for s in ends]
        if packed:
            x = type(input)(pack(x, sizes), input.batch_sizes, order, back)     # type: ignore[arg-type]
        elif self.batch_first:
            x = transpose(x, 0, 1)
        return x, tuple(ends) if several else ends[0]

    def _sequence(self, cell: Any, x: Tensor, states: list[Tensor], several: bool, lengths: Tensor | None, reverse: bool) -> tuple:
        """One cell over all steps: its h of each, its last states, and whether these are a tuple."""
        def call(now: Tensor, state: Any, t: int, live: Tensor | None) -> Any:
            if isinstance(cell, RNNCellBase) and cell.norm == "batch":
                return cell(now, state, step=t, live=live)
            return cell(now, state)

        def step(t: int, now: Tensor, live: Tensor | None, *states: Tensor) -> tuple:
            nonlocal several
            new = call(now, None if not states else states if several else states[0], t, live)
            several = isinstance(new, tuple | list)
            return tuple(new) if several else (new,)
        results, end = _scan(step, x, states or None, lengths, reverse)
        return results[0], end, several
