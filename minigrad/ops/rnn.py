"""Recurrent networks: one step (a cell), and one layer in one direction over a sequence, with or without normalization.

    RNN     Elman 1990
    LSTM    Hochreiter and Schmidhuber 1997
    GRU     Cho et al. 2014

The definition of a sequence is a loop over the definition of the cell, so derivatives of any order are right. The
kernels (native/rnn.c) run a whole sequence in one call, forward and backward. Layers, directions and packed sequences
are in `nn`.

Normalization N (`norm="layer"`: Ba, Kiros and Hinton 2016, eq. 20 to 22; `norm="rms"`: root mean square, Zhang and
Sennrich 2019): the two pre-activations W_ih x and W_hh h are normalised separately, each over all its gates together,
before the biases are added. LSTM also normalises the cell state inside the output's tanh. With `norm=None`, N is the
identity.

The file has, in this order: the equations of one step, the loop over the steps, the six ops (cells and sequences),
their shape rule, their kernels, an oracle in NumPy, samples.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from ..core.half import autocast_results
from ..core.messages import one_dtype
from ..core.op import Op, op, same_dtypes
from ..core.shape import INT64, fail, is_float
from ..core.tensor import Tensor
from ..devices import native
from ..devices.base import Kernel, KernelTable, NoKernel
from ..devices.launch import Launch, Product, ceil_div, launch, over
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.native import signatures
from ..devices.work import work
from .activation import relu
from .creation import zeros
from .join import cat, stack
from .math import add, gt, mul, sigmoid, sub, tanh, where
from .matmul import linear
from .norm import layer_norm, rms_norm
from .view import narrow, reshape, select

__all__: list[str] = []         # users call the layers of nn, which call these ops

NORMS = (None, "layer", "rms")


# ---- one step: the papers' equations --------------------------------------------------------------------------------

Normalize = Callable[[Tensor, str], Tensor]     # (what, which: "ih", "hh" or "c") -> the same shape, normalised


def _row_norms(norm: str | None, eps: float, **parameters: tuple[Tensor | None, Tensor | None]) -> Normalize:
    """The normalization N that `norm` names; `parameters` holds (weight, bias) under "ih", "hh" and "c"."""
    def normalize(p: Tensor, which: str) -> Tensor:
        if norm is None:
            return p
        weight, bias = parameters[which]
        shape = (p.array.layout.shape[-1],)
        if norm == "layer":
            return layer_norm(p, weight, bias, normalized_shape=shape, eps=eps)
        return rms_norm(p, weight, normalized_shape=shape, eps=eps)
    return normalize


def _plus(p: Tensor, bias: Tensor | None) -> Tensor:
    return p if bias is None else add(p, bias)


def _pre_activations(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                     mask: Tensor | None, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """p = N(W_ih x) + b_ih and q = N(W_hh (h * mask)) + b_hh, both (batch, gates * hidden)."""
    of_x, of_h = linear(x, w_ih, None), linear(h if mask is None else mul(h, mask), w_hh, None)
    return _plus(normalize(of_x, "ih"), b_ih), _plus(normalize(of_h, "hh"), b_hh)


def _gates(p: Tensor, count: int) -> list[Tensor]:
    """(batch, count * hidden) as `count` tensors (batch, hidden)."""
    size = p.array.layout.shape[-1] // count
    return [narrow(p, 1, i * size, size) for i in range(count)]


def rnn_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
             mask: Tensor | None, normalize: Normalize, nonlinearity: str) -> tuple[Tensor]:
    """h' = tanh(p + q), or relu; shapes and symbols as in `rnn_cell`."""
    p = add(*_pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize))
    return (tanh(p) if nonlinearity == "tanh" else relu(p),)


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
              w_hr: Tensor | None, mask: Tensor | None, normalize: Normalize) -> tuple[Tensor, Tensor, Tensor]:
    """h', c' and the gates i f g o (batch, 4 hidden) of an LSTM; equations as in `lstm_cell`."""
    p = add(*_pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize))
    i, f, g, o = _gates(p, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = add(mul(f, c), mul(i, g))
    h = mul(o, tanh(normalize(c, "c")))
    return h if w_hr is None else linear(h, w_hr, None), c, cat([i, f, g, o], 1)


def gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
             mask: Tensor | None, normalize: Normalize, reset_after: bool) -> tuple[Tensor, Tensor]:
    """h' and the gates r z n (batch, 3 hidden) of a GRU; equations as in `gru_cell`."""
    if reset_after:
        of_x, of_h = _pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize)
        (xr, xz, xn), (hr, hz, hn) = _gates(of_x, 3), _gates(of_h, 3)
        r, z = sigmoid(add(xr, hr)), sigmoid(add(xz, hz))
        n = tanh(add(xn, mul(r, hn)))
    else:
        size = h.array.layout.shape[1]

        def recurrent(state: Tensor, first: int, count: int) -> Tensor:
            """W_hh state + b_hh, for `count` gates from gate `first` on."""
            begin, length = first * size, count * size
            return linear(state, narrow(w_hh, 0, begin, length),
                          None if b_hh is None else narrow(b_hh, 0, begin, length))
        masked = h if mask is None else mul(h, mask)
        xr, xz, xn = _gates(linear(x, w_ih, b_ih), 3)
        hr, hz = _gates(recurrent(masked, 0, 2), 2)
        r, z = sigmoid(add(xr, hr)), sigmoid(add(xz, hz))
        n = tanh(add(xn, recurrent(mul(r, masked), 2, 1)))
    return add(n, mul(z, sub(h, n))), cat([r, z, n], 1)


# ---- a sequence: the loop over the steps -----------------------------------------------------------------------------

def scan(step: Callable[..., tuple], x: Tensor, states: list[Tensor] | None, lengths: Tensor | None,
         reverse: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Runs `step(t, x_t, live, *states) -> (*new states, *further results)` over x (steps, batch, inputs).

    Gives everything that `step` returned, stacked over the steps, and the last states. `live` is bool (batch, 1), or
    None without `lengths`: row b takes part in the steps t < lengths[b]. In later steps it keeps its states, and its
    results are 0. With `states=None` the first step makes the states, for all rows.
    """
    steps = x.array.layout.shape[0]
    results: list[Any] = [None] * steps
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        live = None if lengths is None else reshape(gt(lengths, t), (lengths.array.layout.shape[0], 1))
        new = step(t, select(x, 0, t), live, *(states or ()))
        if live is None or states is None:
            states = list(new if states is None else new[:len(states)])
        else:
            states = [where(live, a, b) for a, b in zip(new, states, strict=False)]
        results[t] = new if live is None else [where(live, a, 0.0) for a in new]
    return [stack(list(one), 0) for one in zip(*results, strict=True)], states or []


def start(state: Tensor | None, x: Tensor, size: int) -> Tensor:
    """The given state, or zeros (batch, size)."""
    return zeros(x.array.layout.shape[1], size, dtype=x.dtype, device=x.device) if state is None else state


# ---- the ops --------------------------------------------------------------------------------------------------------

@autocast_results
@op
def rnn_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
             nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None,
             mask: Tensor | None, *, nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5) -> Tensor:
    """One step of an Elman network (Elman 1990).

        h' = tanh(N(W_ih x) + b_ih + N(W_hh (h * mask)) + b_hh),      or relu

    Shapes: x (batch, inputs), h and mask (batch, hidden), w_ih (hidden, inputs), w_hh (hidden, hidden), biases `b` and
    the norms' weights `nw` and biases `nb` (hidden,) -> h' (batch, hidden). One floating-point dtype.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))
    return rnn_step(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, nonlinearity)[0]


@autocast_results
@op
def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
              w_hr: Tensor | None, nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None,
              nb_hh: Tensor | None, nw_c: Tensor | None, nb_c: Tensor | None, mask: Tensor | None, *,
              norm: str | None = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000; projection
    W_hr: Sak et al. 2014; norms: Ba et al. 2016, eq. 20 to 22).

        i, f, g, o = the quarters of N(W_ih x) + b_ih + N(W_hh (h * mask)) + b_hh
        c' = sigmoid(f) c + sigmoid(i) tanh(g),      h' = W_hr (sigmoid(o) tanh(N(c')))

    Shapes: x (batch, inputs), h and mask (batch, outputs), c (batch, hidden), w_ih (4 hidden, inputs), w_hh (4 hidden,
    outputs), w_hr (outputs, hidden) or None (then outputs = hidden), biases (4 hidden,), `nw` and `nb` of "ih" and "hh"
    (4 hidden,), of "c" (hidden,) -> h' (batch, outputs), c' (batch, hidden). One floating-point dtype.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh), c=(nw_c, nb_c))
    return lstm_step(x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mask, normalize)[:2]


@autocast_results
@op
def gru_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
             nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None,
             mask: Tensor | None, *, norm: str | None = None, eps: float = 1e-5, reset_after: bool = True) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014).

        p = N(W_ih x) + b_ih,      q = N(W_hh (h * mask)) + b_hh,      each in thirds r, z, n
        r = sigmoid(p_r + q_r),      z = sigmoid(p_z + q_z),      n = tanh(p_n + r q_n),      h' = (1 - z) n + z h

    With `reset_after=False` (the paper's first version) the reset comes before the product: n = tanh(p_n + W_hn (r h) +
    b_hn).

    Shapes: x (batch, inputs), h and mask (batch, hidden), w_ih (3 hidden, inputs), w_hh (3 hidden, hidden), all others
    (3 hidden,) -> h' (batch, hidden). One floating-point dtype.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))
    return gru_step(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, reset_after)[0]


@autocast_results
@op
def rnn_sequence(x: Tensor, h: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                 nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None,
                 mask: Tensor | None, lengths: Tensor | None, *, nonlinearity: str = "tanh", norm: str | None = None,
                 eps: float = 1e-5, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """`rnn_cell` over the steps of x, from h or zeros; from the last step to the first if `reverse`.

    Shapes: x (steps, batch, inputs), lengths (batch,) int64 or None, the others as in `rnn_cell` -> every step's h
    (steps, batch, hidden), the last h (batch, hidden). Row b has lengths[b] steps; after them its output is 0.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor) -> tuple:
        return rnn_step(now, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, nonlinearity)
    (y,), (h_n,) = scan(step, x, [start(h, x, w_hh.array.layout.shape[1])], lengths, reverse)
    return y, h_n


@partial(autocast_results, exact=(3, 4))        # every c and the gates, which few ask for
@op
def lstm_sequence(x: Tensor, h: Tensor | None, c: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
                  b_hh: Tensor | None, w_hr: Tensor | None, nw_ih: Tensor | None, nb_ih: Tensor | None,
                  nw_hh: Tensor | None, nb_hh: Tensor | None, nw_c: Tensor | None, nb_c: Tensor | None,
                  mask: Tensor | None, lengths: Tensor | None, *, norm: str | None = None, eps: float = 1e-5,
                  reverse: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`lstm_cell` over the steps of x, from (h, c) or zeros; from the last step to the first if `reverse`.

    Shapes: x (steps, batch, inputs), lengths (batch,) int64 or None, the others as in `lstm_cell` -> every step's h
    (steps, batch, outputs), the last h (batch, outputs), the last c (batch, hidden), every step's c (steps, batch,
    hidden) and gates i f g o (steps, batch, 4 hidden). Row b has lengths[b] steps; after them its outputs are 0.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh), c=(nw_c, nb_c))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor, c: Tensor) -> tuple:
        return lstm_step(now, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mask, normalize)
    rows, outputs = w_hh.array.layout.shape
    (y, cells, gates), (h_n, c_n) = scan(step, x, [start(h, x, outputs), start(c, x, rows // 4)], lengths, reverse)
    return y, h_n, c_n, cells, gates


@partial(autocast_results, exact=(2,))          # the gates
@op
def gru_sequence(x: Tensor, h: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                 nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None,
                 mask: Tensor | None, lengths: Tensor | None, *, norm: str | None = None, eps: float = 1e-5,
                 reset_after: bool = True, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """`gru_cell` over the steps of x, from h or zeros; from the last step to the first if `reverse`.

    Shapes: x (steps, batch, inputs), lengths (batch,) int64 or None, the others as in `gru_cell` -> every step's h
    (steps, batch, hidden), the last h (batch, hidden), every step's gates r z n (steps, batch, 3 hidden). Row b has
    lengths[b] steps; after them its outputs are 0.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor) -> tuple:
        return gru_step(now, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, reset_after)
    (y, gates), (h_n,) = scan(step, x, [start(h, x, w_hh.array.layout.shape[1])], lengths, reverse)
    return y, h_n, gates


# ---- what the six ops share and in what they differ ------------------------------------------------------------------

class Inputs(NamedTuple):
    """A call's inputs by role, the same for all six ops: their layouts, or NumPy arrays, or which need a gradient.

    A field is None where the op has no such input, or the input is None.
    """

    x: Any = None
    h: Any = None
    c: Any = None
    w_ih: Any = None
    w_hh: Any = None
    w_hr: Any = None
    b_ih: Any = None
    b_hh: Any = None
    nw_ih: Any = None
    nb_ih: Any = None
    nw_hh: Any = None
    nb_hh: Any = None
    nw_c: Any = None
    nb_c: Any = None
    mask: Any = None
    lengths: Any = None

    def shaped(self, *shape: int) -> Layout:
        """The layout of a contiguous array on the device of x, with its dtype; the fields hold layouts."""
        return layout(self.x.device, self.x.dtype, shape)


class Network(NamedTuple):
    """RNN, LSTM or GRU."""

    gates: int
    of_cell: tuple[str, ...]            # the results of the cell and of the sequence, by their names in `Written`
    of_sequence: tuple[str, ...]


RNN = Network(1, ("hn",), ("y", "hn"))
LSTM = Network(4, ("hn", "cn"), ("y", "hn", "cn", "cells", "gates"))
GRU = Network(3, ("hn",), ("y", "hn", "gates"))


class Member(NamedTuple):
    """One of the six ops: a network, as a cell or over a sequence."""

    op: Op
    network: Network
    is_cell: bool

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def results(self) -> tuple[str, ...]:
        """The names of what the op returns, as in `Written`."""
        return self.network.of_cell if self.is_cell else self.network.of_sequence

    def by_role(self, values: Sequence[Any]) -> Inputs:
        """The op's arguments by role."""
        return Inputs(**dict(zip(self.op.inputs, values, strict=True)))


MEMBERS = (Member(rnn_cell, RNN, True), Member(lstm_cell, LSTM, True), Member(gru_cell, GRU, True),
           Member(rnn_sequence, RNN, False), Member(lstm_sequence, LSTM, False), Member(gru_sequence, GRU, False))


# ---- the shape rule -------------------------------------------------------------------------------------------------

def _check_options(name: str, given: Inputs, nonlinearity: str, norm: str | None, reset_after: bool) -> None:
    """The values of the options, and that no parameter is given that the norm does not use."""
    if nonlinearity not in ("tanh", "relu"):
        fail(name, "nonlinearity must be 'tanh' or 'relu'", repr(nonlinearity), kind=ValueError)
    if norm is not None and not reset_after:
        fail(name, "norm needs reset_after=True: reset_after=False makes no product W_hh h that could be normalised",
             f"norm {norm!r}", kind=ValueError)
    if norm not in NORMS:
        fail(name, "norm must be None, 'layer' or 'rms'", repr(norm), kind=ValueError)
    weights, biases = ("nw_ih", "nw_hh", "nw_c"), ("nb_ih", "nb_hh", "nb_c")
    for role in {None: weights + biases, "rms": biases, "layer": ()}[norm]:
        if getattr(given, role) is not None:
            fail(name, f"{role} is not used by this norm", f"norm {norm!r}", f"pass None as {role}", kind=ValueError)


def _check_sizes(member: Member, given: Inputs) -> dict[str, tuple[int, ...]]:
    """Checks x, w_ih and w_hr, which determine all sizes; gives the shape that each other role must have."""
    name, is_cell, gates = member.name, member.is_cell, member.network.gates
    x, w_ih, w_hr = given.x, given.w_ih, given.w_hr
    if x.ndim != (2 if is_cell else 3):
        fail(name, "x must be (batch, inputs)" if is_cell else "x must be (steps, batch, inputs)", x)
    if not is_cell and not x.shape[0]:
        fail(name, "a sequence must have at least one step", x)
    if w_ih.ndim != 2 or w_ih.shape[1] != x.shape[-1]:
        fail(name, "w_ih must be (gates * hidden, inputs) with inputs = the last size of x", [f"x {x}", f"w_ih {w_ih}"])
    if w_ih.shape[0] % gates or not (w_ih.shape[0] or is_cell):
        fail(name, f"w_ih must have {gates} rows for each hidden unit", f"w_ih {w_ih}")
    n, batch = w_ih.shape[0], x.shape[-2]
    hidden = outputs = n // gates
    if w_hr is not None:
        if w_hr.ndim != 2 or w_hr.shape[1] != hidden:
            fail(name, f"w_hr must be (outputs, hidden) with hidden {hidden}", f"w_hr {w_hr}")
        outputs = w_hr.shape[0]
    per_gate = dict.fromkeys(("b_ih", "b_hh", "nw_ih", "nb_ih", "nw_hh", "nb_hh"), (n,))
    return {**per_gate, "w_hh": (n, outputs), "h": (batch, outputs), "c": (batch, hidden), "mask": (batch, outputs),
            "lengths": (batch,), "nw_c": (hidden,), "nb_c": (hidden,)}


def _check_signature(member: Member, given: Inputs, nonlinearity: str, norm: str | None, reset_after: bool) -> None:
    """Raises where options, shapes or dtypes are wrong."""
    name, x = member.name, given.x
    if x is None or given.w_ih is None or given.w_hh is None or member.is_cell and given.h is None:
        raise TypeError(f"[{name}] x, w_ih and w_hh must be Tensors" + (", and so must h" if member.is_cell else ""))
    _check_options(name, given, nonlinearity, norm, reset_after)
    shapes = _check_sizes(member, given)
    for role, p in given._asdict().items():
        if p is None:
            continue
        shape = shapes.get(role, p.shape)
        if p.shape != shape:
            fail(name, f"{role} must have the shape {list(shape)}", [f"x {x}", f"w_ih {given.w_ih}", f"{role} {p}"])
        if role == "lengths":
            if p.dtype != INT64:
                fail(name, "lengths must be int64", p, kind=TypeError)
        elif p.dtype != x.dtype:
            fail(name, "all tensors must have one dtype", [f"x {x}", f"{role} {p}"], one_dtype(x.dtype, p.dtype))
    if not is_float(x.dtype):
        fail(name, "x must be floating point", x, "convert with .float()")


# ---- the kernels, with their arguments by name -----------------------------------------------------------------------

# The fields of the records below are the names that native/minigrad.h gives the arguments of rnn_forward and
# rnn_backward (h and c are h0 and c0 there). A field holds the layout of an array, or None for a null pointer. n is
# gates * hidden.

class Written(NamedTuple):
    """What the forward kernel writes."""

    y: Layout                   # (steps, batch, outputs): every step's h
    hn: Layout                  # (batch, outputs): the last h
    cn: Layout | None           # (batch, hidden): the last c; LSTM
    gates: Layout | None        # (steps, batch, n); LSTM and GRU
    cells: Layout | None        # (steps, batch, hidden): every step's c; LSTM
    tanhc: Layout | None        # (steps, batch, hidden): tanh(N(c)); LSTM
    inner: Layout | None        # (steps, batch, hidden): q_n, which the reset gate multiplies; GRU
    projected: Layout | None    # (steps, batch, hidden): h before the product with W_hr
    raw_x: Layout | None        # (steps, batch, n): W_ih x before the norm
    raw_h: Layout | None        # (steps, batch, n): W_hh h before the norm
    stats: Layout | None        # (6, steps * batch): mean and 1 / deviation of W_ih x, of W_hh h, of c
    hin: Layout | None          # (steps, batch, outputs): h * mask at the start of each step
    work: Layout                # packed weights


# What the backward kernel reads: of the inputs, and of what the forward kernel wrote.
KEPT = ("x", "h", "c", "w_ih", "w_hh", "w_hr", "nw_ih", "nw_hh", "nw_c", "mask", "lengths",
        "y", "gates", "cells", "tanhc", "inner", "projected", "raw_x", "raw_h", "stats", "hin")
# The results whose gradients it takes, and their names there.
INCOMING = {"y": "gy", "hn": "ghn", "cn": "gcn"}


class Gradients(NamedTuple):
    """The gradients that the backward kernel writes: `gx` is that of `x`, and so on."""

    gx: Layout | None
    gh0: Layout
    gc0: Layout | None
    gw_ih: Layout | None
    gw_hh: Layout | None
    gw_hr: Layout | None
    gb_ih: Layout | None        # of b_ih and nb_ih; of all four biases unless GRU
    gb_hh: Layout | None        # of b_hh and nb_hh of a GRU
    gnw_ih: Layout | None
    gnw_hh: Layout | None
    gnw_c: Layout | None
    gnb_c: Layout | None


class Scratch(NamedTuple):
    """The memory in which the backward kernel works."""

    dx: Layout                  # (steps taken together, batch, n): the gradient of W_ih x
    dr: Layout | None           # the same of W_hh h; None where it is equal: then the kernel gets `dx` twice
    dhs: Layout | None          # (steps, batch, outputs): the gradient of h before the product with W_hr
    sums: Layout                # the sums of each block of rows, for biases and norms
    work: Layout                # packed weights


class Sizes(NamedTuple):
    """The int64 arguments of both kernels."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    outputs: int
    kind: int                   # 0 RNN with tanh, 1 RNN with relu, 2 LSTM, 3 GRU
    norm: int                   # 0 None, 1 layer, 2 rms
    reverse: int


@lru_cache(maxsize=8)
def _argument_names(kernel: str) -> list[str]:
    return signatures()[kernel].names


def _launcher(kernel: Kernel, given: Sequence[str], writes: dict[str, Layout | None], numbers: dict[str, float],
              same: dict[str, str]) -> tuple[Callable[[list], None], list[str]]:
    """Prepares a kernel whose arguments are given by name: `launch(values)`, and the names of the arrays in `values`.

    `values` is a list of the arrays `given`. `launch` appends the arrays of `writes`, runs the kernel on all of them
    and on `numbers`, and appends a None, which `_picker` needs. An argument in `writes` whose layout is None is a null
    pointer. With `same={"dr": "dx"}`, the argument `dr` is the array `dx`.

    The names are compared here, once for each signature: they must be those of the kernel's arguments, each once. So a
    wrong name is an error before anything runs, and a launch only puts addresses into the kernel's order.
    """
    made = {name: to for name, to in writes.items() if to is not None}
    null = [name for name in writes if name not in made and name not in same]
    arrays = [*given, *made]
    source = [*arrays, *numbers, *null]
    wanted = [{"h0": "h", "c0": "c"}.get(name, name) for name in _argument_names(kernel.name)]
    named = [*source, *same]
    if sorted(named) != sorted(wanted):
        raise TypeError(f"[{kernel.name}] each argument must be named once, as in native/minigrad.h; "
                        f"missing: {sorted(set(wanted) - set(named))}, unknown: {sorted(set(named) - set(wanted))}")
    in_order = itemgetter(*[source.index(same.get(name, name)) for name in wanted])
    layouts, constants = list(made.values()), (*numbers.values(), *[0 for _ in null])

    def launch(values: list) -> None:
        values += [alloc(to) for to in layouts]
        kernel.call(*in_order((*[a.ptr for a in values], *constants)))
        values.append(None)
    return launch, arrays


def _picker(fields: Sequence[str], names: Sequence[str]) -> Callable[[list], Any]:
    """Takes `fields` from a list of the arrays `names` followed by a None, which is for a field that is not there."""
    return itemgetter(*[names.index(field) if field in names else len(names) for field in fields])


def _sizes_of(member: Member, given: Inputs, nonlinearity: str, norm: str | None, reverse: bool) -> Sizes:
    """The sizes of one signature; NoKernel where the kernels do not apply."""
    network, x = member.network, given.x
    rows, outputs = given.w_hh.shape
    if not outputs:
        raise NoKernel("there are no outputs")
    kind = {RNN: 0 if nonlinearity == "tanh" else 1, LSTM: 2, GRU: 3}[network]
    return Sizes(1 if member.is_cell else x.shape[0], x.shape[-2], x.shape[-1], rows // network.gates, outputs, kind,
                 NORMS.index(norm), int(reverse))


def _writes(member: Member, given: Inputs, sizes: Sizes) -> Written:
    """The layouts of what the forward kernel writes for one signature."""
    shaped, steps, batch, hidden, outputs = given.shaped, sizes.steps, sizes.batch, sizes.hidden, sizes.outputs
    n, lstm, gru = given.w_hh.shape[0], member.network is LSTM, member.network is GRU
    normed, projects = sizes.norm > 0, given.w_hr is not None
    keeps_h = given.mask is not None or given.lengths is not None and sizes.reverse
    every_n, every_hidden = shaped(steps, batch, n), shaped(steps, batch, hidden)
    return Written(
        y=shaped(steps, batch, outputs),
        hn=shaped(batch, outputs),
        cn=shaped(batch, hidden) if lstm else None,
        gates=every_n if lstm or gru else None,
        cells=every_hidden if lstm else None,
        tanhc=every_hidden if lstm else None,
        inner=every_hidden if gru else None,
        projected=every_hidden if projects else None,
        raw_x=every_n if normed else None,
        raw_h=every_n if normed else None,
        stats=shaped(6, steps * batch) if normed else None,
        hin=shaped(steps, batch, outputs) if keeps_h else None,
        work=shaped(native.rnn_forward_work(n, hidden, outputs, projects)))


def _forward(kernel: Kernel, member: Member, given: Inputs, sizes: Sizes, eps: float) -> tuple[Callable, list[str]]:
    """The forward of one signature, (arrays of the inputs) -> (results, arrays kept), and the names of those kept."""
    roles = [role for role in member.op.inputs if getattr(given, role) is not None]         # in the order of the arrays
    null = dict.fromkeys([role for role in Inputs._fields if role not in roles])
    writes = {**_writes(member, given, sizes)._asdict(), **null}
    launch, names = _launcher(kernel, roles, writes, {**sizes._asdict(), "eps": eps}, {})
    keeps = [name for name in KEPT if name in names]
    results, kept = _picker(member.results, names), _picker(keeps, names)

    def run_forward(*arrays: Array | None) -> Any:
        values = [a for a in arrays if a is not None]
        launch(values)
        return results(values), kept(values)
    return run_forward, keeps


def _backward(kernel: Kernel, member: Member, given: Inputs, sizes: Sizes, keeps: Sequence[str]) -> Callable[..., Any]:
    """The backward of one signature: (arrays kept, gradients of the results, which inputs need one) -> their gradients.

    It gives None where only the definition has them: of the mask, and through the results `cells` and `gates`.
    """
    @lru_cache(maxsize=64)
    def prepared(needs: tuple[bool, ...], incoming: tuple[bool, ...]) -> tuple[Callable, Callable] | None:
        """The launch for the inputs that need a gradient and the results that have one, and its picker by input."""
        need = member.by_role(needs)
        results = [name for name, has in zip(member.results, incoming, strict=True) if has]
        if need.mask or not INCOMING.keys() >= set(results):
            return None
        arrays = [*keeps, *[INCOMING[name] for name in results]]
        scratch = _scratch(member, given, sizes)
        null = dict.fromkeys([name for name in (*KEPT, *INCOMING.values()) if name not in arrays])
        writes = {**_gradients(member, given, sizes, need)._asdict(), **scratch._asdict(), **null}
        same = {"dr": "dx"} if scratch.dr is None else {}
        launch, names = _launcher(kernel, arrays, writes, sizes._asdict(), same)
        inputs = zip(member.op.inputs, needs, strict=True)
        return launch, _picker([_gradient_of(member, role) if needed else "" for role, needed in inputs], names)
    # prepared once now: a wrong name is an error here, not at the first backward
    prepared((False,) * len(member.op.inputs), tuple([name in INCOMING for name in member.results]))

    def run_backward(saved: tuple, g: Any, needs: list[bool]) -> list[Array | None] | None:
        gs = g if type(g) is list else [g]
        found = prepared(tuple(needs), tuple([a is not None for a in gs]))
        if found is None:
            return None
        launch, by_input = found
        values = [*saved, *[a for a in gs if a is not None]]
        launch(values)
        return list(by_input(values))
    return run_backward


def _gradient_of(member: Member, role: str) -> str:
    """The field of `Gradients` that holds the gradient of an input. The biases of a sum have one gradient."""
    name = {"h": "gh0", "c": "gc0", "nb_ih": "gb_ih", "nb_hh": "gb_hh"}.get(role, "g" + role)
    return "gb_ih" if name == "gb_hh" and member.network is not GRU else name


def _gradients(member: Member, given: Inputs, sizes: Sizes, need: Inputs) -> Gradients:
    """The layouts of the gradients that are needed. The kernel always writes those of the states."""
    n, lstm, gru = given.w_hh.shape[0], member.network is LSTM, member.network is GRU
    of_x, of_h = need.b_ih or need.nb_ih, need.b_hh or need.nb_hh
    return Gradients(
        gx=given.x if need.x else None,
        gh0=given.shaped(sizes.batch, sizes.outputs),
        gc0=given.shaped(sizes.batch, sizes.hidden) if lstm else None,
        gw_ih=given.w_ih if need.w_ih else None,
        gw_hh=given.w_hh if need.w_hh else None,
        gw_hr=given.w_hr if need.w_hr else None,
        gb_ih=given.shaped(n) if of_x or of_h and not gru else None,
        gb_hh=given.shaped(n) if of_h and gru else None,
        gnw_ih=given.nw_ih if need.nw_ih else None,
        gnw_hh=given.nw_hh if need.nw_hh else None,
        gnw_c=given.nw_c if need.nw_c else None,
        gnb_c=given.nb_c if need.nb_c else None)


def _scratch(member: Member, given: Inputs, sizes: Sizes) -> Scratch:
    """The layouts of the backward kernel's memory."""
    shaped, batch, hidden, outputs = given.shaped, sizes.batch, sizes.hidden, sizes.outputs
    n, projects = given.w_hh.shape[0], given.w_hr is not None
    if given.x.device.type == "cuda":                   # all steps together, and as many sums as there are blocks
        together = shaped(sizes.steps, batch, n)
        sums_layout = shaped(_grid(sizes)[0] * native.rnn_sums(1, n, hidden))
    else:
        together = shaped(native.rnn_steps(batch, n), batch, n)
        sums_layout = shaped(native.rnn_sums(batch, n, hidden))
    return Scratch(
        dx=together,
        dr=together if sizes.norm or member.network is GRU else None,
        dhs=shaped(sizes.steps, batch, outputs) if projects else None,
        sums=sums_layout,
        work=shaped(native.rnn_backward_work(n, hidden, outputs, projects)))


def _install(member: Member) -> None:
    """The shape rule and the kernels of one op. A cell runs as a sequence of one step."""
    @member.op.check
    def rule(*layouts: Layout | None, nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5,
             reset_after: bool = True, reverse: bool = False) -> None:
        _check_signature(member, member.by_role(layouts), nonlinearity, norm, reset_after)

    @member.op.fused
    def kernels(table: KernelTable, *layouts: Layout | None, nonlinearity: str = "tanh", norm: str | None = None,
                eps: float = 1e-5, reset_after: bool = True, reverse: bool = False) -> Any:
        if not reset_after:
            raise NoKernel("the kernels reset after the product with W_hh")
        given = member.by_role(layouts)
        forward, backward = table.rnn_forward[given.x.dtype], table.rnn_backward[given.x.dtype]
        same_dtypes("rnn", given.x, *given._replace(lengths=None))
        sizes = _sizes_of(member, given, nonlinearity, norm, reverse)
        device: Any = given.x.device
        if device.type == "cuda" and _grid(sizes)[2] + _STATIC > device.shared:
            raise NoKernel("the states and gates of a row do not fit into the shared memory of a block")
        run_forward, keeps = _forward(forward, member, given, sizes, eps)
        return run_forward, _backward(backward, member, given, sizes, keeps)


for _member in MEMBERS:
    _install(_member)


# ---- oracle ----------------------------------------------------------------------------------------------------------

def _sigmoid(p: Any) -> Any:
    return 1 / (1 + np.exp(-p))


def _norm_oracle(p: Any, weight: Any, bias: Any, norm: str | None, eps: float) -> Any:
    if norm is None:
        return p
    centre = p.mean(-1, keepdims=True) if norm == "layer" else 0
    p = (p - centre) / np.sqrt(((p - centre) ** 2).mean(-1, keepdims=True) + eps)
    return p * (1 if weight is None else weight) + (0 if bias is None else bias)


def _step_oracle(network: Network, v: Inputs, x: Any, h: Any, c: Any, mask: Any, nonlinearity: str, norm: str | None,
                 eps: float, reset_after: bool) -> tuple[Any, Any, Any]:
    """h', c' and the gates of one row."""
    size, masked = len(c), h if mask is None else h * mask
    p = _norm_oracle(v.w_ih @ x, v.nw_ih, v.nb_ih, norm, eps) + (0 if v.b_ih is None else v.b_ih)
    q = _norm_oracle(v.w_hh @ masked, v.nw_hh, v.nb_hh, norm, eps) + (0 if v.b_hh is None else v.b_hh)
    if network is RNN:
        return np.tanh(p + q) if nonlinearity == "tanh" else np.maximum(p + q, 0), c, 0
    if network is LSTM:
        i, f, g, o = np.split(p + q, 4)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(_norm_oracle(c, v.nw_c, v.nb_c, norm, eps))
        return h if v.w_hr is None else v.w_hr @ h, c, np.concatenate([i, f, g, o])
    r, z = _sigmoid((p + q)[:size]), _sigmoid((p + q)[size:2 * size])
    inner = r * q[2 * size:]
    if not reset_after:
        inner = v.w_hh[2 * size:] @ (r * masked) + (0 if v.b_hh is None else v.b_hh[2 * size:])
    n = np.tanh(p[2 * size:] + inner)
    return (1 - z) * n + z * h, c, np.concatenate([r, z, n])


def _oracle(member: Member, values: Sequence[Any], nonlinearity: str = "tanh", norm: str | None = None,
            eps: float = 1e-5, reset_after: bool = True, reverse: bool = False) -> Any:
    """NumPy, row by row and step by step."""
    v = member.by_role(values)
    x = v.x[None] if member.is_cell else v.x
    steps, batch, (n, outputs) = len(x), x.shape[1], v.w_hh.shape
    hidden = n // member.network.gates
    result = {"y": np.zeros((steps, batch, outputs)), "hn": np.zeros((batch, outputs)), "cn": np.zeros((batch, hidden)),
              "cells": np.zeros((steps, batch, hidden)), "gates": np.zeros((steps, batch, n))}
    for b in range(batch):
        h = np.zeros(outputs) if v.h is None else v.h[b]
        c = np.zeros(hidden) if v.c is None else v.c[b]
        own = range(steps if v.lengths is None else v.lengths[b])
        for t in reversed(own) if reverse else own:
            mask = None if v.mask is None else v.mask[b]
            h, c, gates = _step_oracle(member.network, v, x[t, b], h, c, mask, nonlinearity, norm, eps, reset_after)
            result["y"][t, b], result["cells"][t, b], result["gates"][t, b] = h, c, gates
        result["hn"][b], result["cn"][b] = h, c
    found = tuple([result[name] for name in member.results])
    return found if len(found) > 1 else found[0]


# ---- samples and errors ----------------------------------------------------------------------------------------------

def _sample(make: Any, member: Member, steps: int, batch: int, width: int, hidden: int, without: Sequence[str] = (),
            outputs: int = 0, norm: str | None = None, **attrs: Any) -> tuple:
    """Arguments of the given sizes. None are the inputs named in `without`, and those that the attributes do not
    use."""
    n, size = member.network.gates * hidden, outputs or hidden
    shapes = {"x": (batch, width) if member.is_cell else (steps, batch, width), "h": (batch, size),
              "c": (batch, hidden), "w_ih": (n, width), "w_hh": (n, size), "w_hr": (size, hidden), "nw_c": (hidden,),
              "nb_c": (hidden,), "mask": (batch, size)}
    absent = {*without, *([] if outputs else ["w_hr"]), *([] if norm else ["nw_ih", "nw_hh", "nw_c"]),
              *([] if norm == "layer" else ["nb_ih", "nb_hh", "nb_c"])}
    values: list[Any] = []
    for role in member.op.inputs:
        if role in absent:
            values.append(None)
        elif role == "lengths":
            values.append(make.ints(batch, low=1, high=steps + 1))
        else:
            scale = 0.5 if role.startswith(("w_", "b_")) else 2.0
            values.append(make(*shapes.get(role, (n,)), low=-scale, high=scale))
    return (*values, {**({"norm": norm} if norm else {}), **attrs})


_SECOND_SAMPLE: dict[Network, dict[str, Any]] = {RNN: {"nonlinearity": "relu"}, LSTM: {}, GRU: {"reset_after": False}}


def _samples(member: Member, make: Any) -> Iterator[tuple]:
    plain = ["mask"] if member.is_cell else ["h", "c", "mask", "lengths"]
    full = ["mask"] if member.is_cell else ["mask", "lengths"]
    yield _sample(make, member, 3, 2, 3, 2, plain)
    yield _sample(make, member, 3, 3, 2, 3, ["b_ih", "b_hh"], **_SECOND_SAMPLE[member.network])
    yield _sample(make, member, 2, 2, 3, 3, [], norm="layer")
    yield _sample(make, member, 1, 2, 2, 4, ["mask", "b_hh"], norm="rms")
    yield _sample(make, member, 2, 17, 5, 33, full)
    if member.is_cell:
        yield _sample(make, member, 1, 2, 3, 0, plain)
    if member.network is LSTM:
        yield _sample(make, member, 2, 2, 3, 3, ["mask"], outputs=2)
        yield _sample(make, member, 2, 2, 3, 3, full, outputs=2, norm="layer")
    if not member.is_cell:
        yield _sample(make, member, 3, 3, 2, 3, ["h", "c", "mask"], norm="layer", reverse=True)
        yield _sample(make, member, 3, 2, 2, 2, plain, norm="rms", reverse=True)
        yield _sample(make, member, 3, 2, 3, 2, ["lengths"], norm="rms", reverse=True)
        yield _sample(make, member, 3, 2, 2, 3, full, reverse=True)


def _errors(member: Member, make: Any) -> Iterator[tuple]:
    gates, inputs = member.network.gates, member.op.inputs

    def broken(**changes: Any) -> tuple:
        """A good sample in which the inputs and attributes named are replaced."""
        *values, attrs = _sample(make, member, 2, 2, 3, 3, ["mask", "lengths"])
        tensors = [changes.pop(role, value) for role, value in zip(inputs, values, strict=True)]
        return (*tensors, {**attrs, **changes})
    yield broken(x=make(2, 2, 2, 3)), RuntimeError, "x must be"
    yield broken(w_ih=make(gates * 3, 4)), RuntimeError, r"inputs = the last size of x.*\[.*4\]"
    yield broken(h=make(2, 4)), RuntimeError, r"h must have the shape \[2, 3\]"
    yield broken(w_hh=make(gates * 3, 2)), RuntimeError, "w_hh must have the shape"
    yield broken(b_ih=make(5)), RuntimeError, "b_ih must have the shape"
    yield broken(b_hh=make(gates * 3, dtype=np.float16)), RuntimeError, "one dtype"
    yield broken(norm="batch"), ValueError, "'layer' or 'rms'"
    yield broken(nw_ih=make(gates * 3)), ValueError, "nw_ih is not used"
    if not member.is_cell:
        yield broken(lengths=make.ints(3)), RuntimeError, "lengths must have the shape"
        yield broken(x=make(0, 2, 3)), RuntimeError, "at least one step"
    if member.network is not RNN:
        yield broken(w_ih=make(gates * 3 + 1, 3)), RuntimeError, "rows for each hidden unit"
    if member.network is GRU:
        yield broken(norm="layer", reset_after=False), ValueError, "reset_after"
    if member.network is RNN:
        yield broken(nonlinearity="sin"), ValueError, "nonlinearity"


def _document(member: Member) -> None:
    """Samples, error samples and oracle of one op."""
    member.op.samples(lambda make: _samples(member, make))
    member.op.errors(lambda make: _errors(member, make))
    member.op.reference(lambda *values, **attrs: _oracle(member, values, **attrs))


for _member in MEMBERS:
    _document(_member)


def _step_products(k: Any) -> int:
    """The products with w_ih, w_hh and w_hr; `kind` is 0 or 1 (RNN), 2 (LSTM), 3 (GRU)."""
    gates = _GATES[k.kind]
    projected = k.hidden * k.outputs if k.w_hr else 0
    return 2 * k.steps * k.batch * (gates * k.hidden * (k.inputs + k.outputs) + projected)


work("rnn_forward", _step_products)
work("rnn_backward", lambda k: 2 * _step_products(k))       # the gradients of the vectors, and of the weights


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

_GATES = (1, 1, 4, 3)           # by `kind`
_BLOCKS = 132                   # as many blocks are on the GPU at once (H100, H200)
_SHARED = 44 << 10              # bytes of dynamic shared memory of a block of several rows, at most
_STATIC = 2048                  # bytes of other shared memory


def _grid(k: Any) -> tuple[int, int, int]:
    """The blocks of a launch that runs all steps, the warps of a block, its dynamic shared memory: by the shapes alone.

    A block takes one row of the batch, or up to 4 where there are more rows than a GPU has blocks at once. One row
    needs more shared memory than `_SHARED` from 641 hidden units of an LSTM on, 732 of a GRU, 1025 of an RNN; with what
    a block of an H100 may have, an LSTM may have 3,520 units, with the 64 KiB of sm_75 912.
    """
    n = _GATES[k.kind] * k.hidden
    warps = min(16, max(2, ceil_div(2 * n, 32)))
    of_row = 8 * (n + 32 * warps + 2 * k.hidden + 2 * k.outputs)        # bytes of doubles, which suffice for both types
    rows = max(1, min(4, ceil_div(k.batch, _BLOCKS), _SHARED // of_row))
    return ceil_div(k.batch, rows), warps, rows * of_row


def _forward_rule(k: Any, host: Any) -> Sequence[Launch | Product]:
    """Transposed weights, w_ih x of all steps, then the steps."""
    n, (blocks, warps, shared) = _GATES[k.kind] * k.hidden, _grid(k)
    to = "raw_x" if k.norm else "gates" if k.gates else "y"
    return [over(n * k.outputs, "pack"),
            Product((to, 0), ("x", 0), ("w_ih", 0), k.steps * k.batch, n, k.inputs, (k.inputs, 1), (1, k.inputs)),
            Launch("", (blocks,), (32, warps), shared)]


def _backward_rule(k: Any, host: Any) -> Sequence[Launch | Product]:
    """The steps, then the sums over the blocks, and the products that take all steps together."""
    n, rows, (blocks, warps, shared) = _GATES[k.kind] * k.hidden, k.steps * k.batch, _grid(k)
    all_launches: list[Launch | Product] = [Launch("", (blocks,), (32, warps), shared)]
    if k.gb_ih or k.gb_hh or k.gnw_ih or k.gnw_hh or k.gnw_c or k.gnb_c:
        all_launches.append(over(6 * n + 2 * k.hidden, "collect")._replace(given=(("inputs", blocks),)))
    if k.gx:
        all_launches.append(Product(("gx", 0), ("dx", 0), ("w_ih", 0), rows, k.inputs, n, (n, 1), (k.inputs, 1)))
    if k.gw_ih:
        all_launches.append(Product(("gw_ih", 0), ("dx", 0), ("x", 0), n, k.inputs, rows, (1, n), (k.inputs, 1)))
    if k.gw_hh:
        all_launches += _recurrent_products(k, n)
    if k.gw_hr:
        all_launches.append(Product(("gw_hr", 0), ("dhs", 0), ("projected", 0), k.outputs, k.hidden, rows,
                                    (1, k.outputs), (k.hidden, 1)))
    return all_launches


def _recurrent_products(k: Any, n: int) -> list[Launch | Product]:
    """gw_hh. h before a step is y of the step before it, and h0 before the first, unless `hin` has it."""
    def product(dr: int, h: tuple[str, int], rows: int, accumulate: bool = False) -> Product:
        return Product(("gw_hh", 0), ("dr", dr), h, n, k.outputs, rows, (1, n), (k.outputs, 1), accumulate)
    if k.hin:
        return [product(0, ("hin", 0), k.steps * k.batch)]
    later, step_of_y = (k.steps - 1) * k.batch, k.batch * k.outputs
    behind, first, y = (0, later * n, step_of_y) if k.reverse else (k.batch * n, 0, 0)
    found: list[Launch | Product] = [product(behind, ("y", y), later)] if later or not k.h0 else []
    return [*found, product(first, ("h0", 0), k.batch, later > 0)] if k.h0 else found


launch("ops/rnn.cu", "rnn_forward", _forward_rule, shared=_STATIC)
launch("ops/rnn.cu", "rnn_backward", _backward_rule, shared=_STATIC)
