"""Recurrent cells, and the recurrence over a sequence (one layer in one direction), plain or normalised.

The definition of a sequence is the loop over the cell's definition, step by step, so that derivatives of any order hold. Its
kernels (native/rnn.c) run the whole sequence in one call, forward and backward. Layers, directions and packing are nn's.

Normalization (`norm="layer"`: Ba, Kiros and Hinton 2016, eq. 20 to 22; `norm="rms"`: the same with root mean squares): the
pre-activations W_ih x and W_hh h are normalised apart, each as a whole over all its gates, then biases are added; LSTM also
normalises the cell state inside the output's tanh.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import cpu
from ..device import KernelTable, NoKernel
from ..memory import Array, Layout, alloc, layout
from ..op import op
from ..shape import INT64, fail, is_float
from ..tensor import Tensor
from .activation import relu
from .creation import zeros
from .elementwise import add, gt, mul, sigmoid, sub, tanh, where
from .matmul import linear
from .norm import address, layer_norm, rms_norm, same_dtypes
from .shape_ops import cat, narrow, reshape, select, stack

__all__: list[str] = []         # what users call are the layers; these ops are theirs

NORMS = (None, "layer", "rms")
_KINDS = {"tanh": 0, "relu": 1, "lstm": 2, "gru": 3}


# ---- the definitions of one step ------------------------------------------------------------------------------------

Normalize = Callable[[Tensor, str], Tensor]         # (what, which: "ih", "hh" or "c") -> the same, normalised


def _row_norms(norm: str | None, eps: float, **parameters: tuple[Tensor | None, Tensor | None]) -> Normalize:
    """The normalization of rows that the attributes ask for, with weight and bias by name."""
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


def _pre_activations(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, mask: Tensor | None,
                     normalize: Normalize) -> tuple[Tensor, Tensor]:
    """N(W_ih x) + b_ih and N(W_hh (h * mask)) + b_hh"""
    of_x, of_h = linear(x, w_ih, None), linear(h if mask is None else mul(h, mask), w_hh, None)
    return _plus(normalize(of_x, "ih"), b_ih), _plus(normalize(of_h, "hh"), b_hh)


def _gates(p: Tensor, count: int) -> list[Tensor]:
    size = p.array.layout.shape[-1] // count
    return [narrow(p, 1, i * size, size) for i in range(count)]


def rnn_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, mask: Tensor | None,
             normalize: Normalize, nonlinearity: str) -> tuple[Tensor]:
    """h' of an Elman network."""
    p = add(*_pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize))
    return (tanh(p) if nonlinearity == "tanh" else relu(p),)


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
              w_hr: Tensor | None, mask: Tensor | None, normalize: Normalize) -> tuple[Tensor, Tensor, Tensor]:
    """h', c' and the gates of an LSTM."""
    p = add(*_pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize))
    i, f, g, o = _gates(p, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = add(mul(f, c), mul(i, g))
    h = mul(o, tanh(normalize(c, "c")))
    return h if w_hr is None else linear(h, w_hr, None), c, cat([i, f, g, o], 1)


def gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, mask: Tensor | None,
             normalize: Normalize, reset_after: bool) -> tuple[Tensor, Tensor]:
    """h' and the gates of a GRU."""
    if reset_after:
        of_x, of_h = _pre_activations(x, h, w_ih, w_hh, b_ih, b_hh, mask, normalize)
        (xr, xz, xn), (hr, hz, hn) = _gates(of_x, 3), _gates(of_h, 3)
        r, z = sigmoid(add(xr, hr)), sigmoid(add(xz, hz))
        n = tanh(add(xn, mul(r, hn)))
    else:
        size = h.array.layout.shape[1]
        xr, xz, xn = _gates(linear(x, w_ih, b_ih), 3)
        seen = h if mask is None else mul(h, mask)
        hr, hz = _gates(linear(seen, narrow(w_hh, 0, 0, 2 * size), None if b_hh is None else narrow(b_hh, 0, 0, 2 * size)), 2)
        r, z = sigmoid(add(xr, hr)), sigmoid(add(xz, hz))
        n = tanh(add(xn, linear(mul(r, seen), narrow(w_hh, 0, 2 * size, size), None if b_hh is None else narrow(b_hh, 0, 2 * size, size))))
    return add(n, mul(z, sub(h, n))), cat([r, z, n], 1)


def scan(step: Callable[..., tuple], x: Tensor, states: list[Tensor] | None, lengths: Tensor | None,
         reverse: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """The loop over the steps, `step(t, x_t, live, *states) -> new states and more`: each of these for all steps, and the last
    states. A row past its length (`live` (batch, 1) is False) keeps its states; its results are 0. `states` None: the first step,
    which is then one for all rows, makes them."""
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
    """The state given, or zeros."""
    return zeros(x.array.layout.shape[1], size, dtype=x.dtype, device=x.device) if state is None else state


# ---- the ops --------------------------------------------------------------------------------------------------------

@op
def rnn_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, nw_ih: Tensor | None,
             nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None, mask: Tensor | None, *, nonlinearity: str = "tanh",
             norm: str | None = None, eps: float = 1e-5) -> Tensor:
    """One step of an Elman network (1990).

        h' = tanh(N(W_ih x) + b_ih + N(W_hh (h * mask)) + b_hh),      or relu

    Shapes: x (batch, inputs), h and mask (batch, hidden), w_ih (hidden, inputs), w_hh (hidden, hidden), biases, and weight `nw`
    and bias `nb` of the norms (hidden,) -> h' (batch, hidden).
    """
    return rnn_step(x, h, w_ih, w_hh, b_ih, b_hh, mask, _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh)), nonlinearity)[0]


@op
def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, w_hr: Tensor | None,
              nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None, nw_c: Tensor | None,
              nb_c: Tensor | None, mask: Tensor | None, *, norm: str | None = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000; projection: Sak et
    al. 2014; norms: Ba et al. 2016, eq. 20 to 22).

        i, f, g, o = the quarters of N(W_ih x) + b_ih + N(W_hh (h * mask)) + b_hh
        c' = sigmoid(f) c + sigmoid(i) tanh(g),      h' = W_hr (sigmoid(o) tanh(N(c')))

    Shapes: x (batch, inputs), h (batch, outputs), c (batch, hidden), w_ih (4 hidden, inputs), w_hh (4 hidden, outputs), w_hr
    (outputs, hidden) or None (outputs = hidden), biases (4 hidden,), `nw` and `nb` of the norms like what they act on.
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh), c=(nw_c, nb_c))
    return lstm_step(x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mask, normalize)[:2]


@op
def gru_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, nw_ih: Tensor | None,
             nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None, mask: Tensor | None, *, norm: str | None = None,
             eps: float = 1e-5, reset_after: bool = True) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014).

        r, z = sigmoid of the first two thirds of p + q,      p = N(W_ih x) + b_ih,  q = N(W_hh (h * mask)) + b_hh
        n = tanh(p_n + r q_n),      h' = (1 - z) n + z h

    With `reset_after=False` (the paper's first version) the reset comes before the product: n = tanh(p_n + W_hn (r h) + b_hn).

    Shapes: x (batch, inputs), h and mask (batch, hidden), w_ih (3 hidden, inputs), w_hh (3 hidden, hidden), the rest (3 hidden,).
    """
    return gru_step(x, h, w_ih, w_hh, b_ih, b_hh, mask, _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh)), reset_after)[0]


@op
def rnn_sequence(x: Tensor, h: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                 nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None, mask: Tensor | None,
                 lengths: Tensor | None, *, nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5,
                 reverse: bool = False) -> tuple[Tensor, Tensor]:
    """`rnn_cell` over the steps of x (steps, batch, inputs), from h or zeros; from the last step to the first if `reverse`.

    Row b has lengths[b] steps; past them its output is 0. -> every step's h (steps, batch, hidden), the last h (batch, hidden).
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor) -> tuple:
        return rnn_step(now, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, nonlinearity)
    (y,), (h_n,) = scan(step, x, [start(h, x, w_hh.array.layout.shape[1])], lengths, reverse)
    return y, h_n


@op
def lstm_sequence(x: Tensor, h: Tensor | None, c: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                  w_hr: Tensor | None, nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None,
                  nw_c: Tensor | None, nb_c: Tensor | None, mask: Tensor | None, lengths: Tensor | None, *, norm: str | None = None,
                  eps: float = 1e-5, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`lstm_cell` over the steps of x (steps, batch, inputs), from (h, c) or zeros; from the last step to the first if `reverse`.

    Row b has lengths[b] steps; past them its outputs are 0. -> every step's h (steps, batch, outputs), the last h and c, every
    step's c (steps, batch, hidden) and gates i f g o (steps, batch, 4 hidden).
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh), c=(nw_c, nb_c))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor, c: Tensor) -> tuple:
        return lstm_step(now, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mask, normalize)
    gates, outputs = w_hh.array.layout.shape
    (y, cells, opened), (h_n, c_n) = scan(step, x, [start(h, x, outputs), start(c, x, gates // 4)], lengths, reverse)
    return y, h_n, c_n, cells, opened


@op
def gru_sequence(x: Tensor, h: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
                 nw_ih: Tensor | None, nb_ih: Tensor | None, nw_hh: Tensor | None, nb_hh: Tensor | None, mask: Tensor | None,
                 lengths: Tensor | None, *, norm: str | None = None, eps: float = 1e-5, reset_after: bool = True,
                 reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """`gru_cell` over the steps of x (steps, batch, inputs), from h or zeros; from the last step to the first if `reverse`.

    Row b has lengths[b] steps; past them its outputs are 0. -> every step's h (steps, batch, hidden), the last h, every step's
    gates r z n (steps, batch, 3 hidden).
    """
    normalize = _row_norms(norm, eps, ih=(nw_ih, nb_ih), hh=(nw_hh, nb_hh))

    def step(t: int, now: Tensor, live: Tensor | None, h: Tensor) -> tuple:
        return gru_step(now, h, w_ih, w_hh, b_ih, b_hh, mask, normalize, reset_after)
    (y, opened), (h_n,) = scan(step, x, [start(h, x, w_hh.array.layout.shape[1])], lengths, reverse)
    return y, h_n, opened


# ---- the shape rule -------------------------------------------------------------------------------------------------

def _rule(name: str, inputs: Sequence[str], gates: int, layouts: Sequence[Layout | None], norm: str | None, eps: float) -> None:
    of = dict(zip(inputs, layouts, strict=True))
    x, w_ih, w_hh = of["x"], of["w_ih"], of["w_hh"]
    cell = name.endswith("_cell")
    if x is None or w_ih is None or w_hh is None or cell and of["h"] is None:
        raise TypeError(f"[{name}] x, w_ih and w_hh must be Tensors" + (", and so must h" if cell else ""))
    if norm not in NORMS:
        fail(name, "norm must be None, 'layer' or 'rms'", repr(norm), kind=ValueError)
    for role, p in of.items():
        if p is not None and role.startswith(("nw_", "nb_")) and (norm is None or norm == "rms" and role[1] == "b"):
            fail(name, f"{role} has no part in it", f"norm {norm!r}", "pass None", kind=ValueError)
    if x.ndim != 3 - cell:
        fail(name, "x must be (batch, inputs)" if cell else "x must be (steps, batch, inputs)", x)
    if not cell and not x.shape[0]:
        fail(name, "a sequence must have at least one step", x)
    if w_ih.ndim != 2 or w_ih.shape[1] != x.shape[-1]:
        fail(name, "w_ih must be (gates * hidden, inputs) with inputs = the last size of x", [f"x {x}", f"w_ih {w_ih}"])
    if w_ih.shape[0] % gates or not w_ih.shape[0]:
        fail(name, f"w_ih must have {gates} rows for each hidden unit", f"w_ih {w_ih}")
    n, batch = w_ih.shape[0], x.shape[-2]
    hidden = outputs = n // gates
    w_hr = of.get("w_hr")
    if w_hr is not None:
        if w_hr.ndim != 2 or w_hr.shape[1] != hidden:
            fail(name, f"w_hr must be (outputs, hidden) with hidden {hidden}", f"w_hr {w_hr}")
        outputs = w_hr.shape[0]
    want = {"w_hh": (n, outputs), "h": (batch, outputs), "c": (batch, hidden), "mask": (batch, outputs), "lengths": (batch,),
            "nw_c": (hidden,), "nb_c": (hidden,)}
    for role, p in of.items():
        if p is None:
            continue
        shape = want.get(role, p.shape if role in ("x", "w_ih", "w_hr") else (n,))
        if p.shape != shape:
            fail(name, f"{role} must have the shape {list(shape)}", [f"x {x}", f"w_ih {w_ih}", f"{role} {p}"])
        if role == "lengths":
            if p.dtype != INT64:
                fail(name, "lengths must be int64", p, kind=TypeError)
        elif p.dtype != x.dtype:
            fail(name, "all tensors must have one dtype", [f"x {x}", f"{role} {p}"], "convert with .to(dtype)")
    if not is_float(x.dtype):
        fail(name, "x must be floating point", x, "convert with .float()")


def _nonlinearity(name: str, nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        fail(name, "nonlinearity must be 'tanh' or 'relu'", repr(nonlinearity), kind=ValueError)


def _no_norm_before(name: str, norm: str | None, reset_after: bool) -> None:
    if norm is not None and not reset_after:
        fail(name, "norm needs reset_after=True: with the reset before it, W_hh h is never there as a whole to be normalised",
             f"norm {norm!r}", kind=ValueError)


# ---- the kernels ----------------------------------------------------------------------------------------------------

_ROLES = ("x", "h", "c", "w_ih", "w_hh", "w_hr", "b_ih", "b_hh", "nw_ih", "nb_ih", "nw_hh", "nb_hh", "nw_c", "nb_c", "mask", "lengths")


def _prepare(kernels: KernelTable, inputs: Sequence[str], layouts: Sequence[Layout | None], kind: int, norm: str | None, eps: float,
             reverse: bool, cell: bool) -> Any:
    """forward and backward of a sequence, or of a cell as a sequence of one step."""
    of = dict(zip(inputs, layouts, strict=True))
    x, w_ih, w_hh = of["x"], of["w_ih"], of["w_hh"]
    assert x is not None and w_ih is not None and w_hh is not None
    forward, backward = kernels.rnn_forward[x.dtype], kernels.rnn_backward[x.dtype]
    same_dtypes("rnn", x, *[p for role, p in of.items() if role != "lengths"])
    steps, (batch, width) = 1 if cell else x.shape[0], x.shape[-2:]
    (n, outputs), lstm, gru, normal = w_hh.shape, kind == 2, kind == 3, {None: 0, "layer": 1, "rms": 2}[norm]
    if not outputs:
        raise NoKernel("there are no outputs")
    hidden, rows = n // (4 if lstm else 3 if gru else 1), steps * batch
    mask, lengths, w_hr = of.get("mask"), of.get("lengths"), of.get("w_hr")
    projects, keeps_h = w_hr is not None, mask is not None or lengths is not None and reverse

    def shaped(*shape: int) -> Layout:
        return layout(x.device, x.dtype, shape)
    every_n, every_hidden, every_output = shaped(steps, batch, n), shaped(steps, batch, hidden), shaped(steps, batch, outputs)
    last_h, last_c, statistics, bias_like = shaped(batch, outputs), shaped(batch, hidden), shaped(6, rows), shaped(n)
    forward_work = shaped(cpu.rnn_forward_work(n, hidden, outputs, projects))
    backward_work = shaped(cpu.rnn_backward_work(n, hidden, outputs, projects))
    together = shaped(cpu.rnn_steps(batch), batch, n)
    sums_layout = shaped(cpu.rnn_sums(batch, n, hidden))
    places = tuple([inputs.index(role) if role in inputs else -1 for role in _ROLES])
    sizes = (steps, batch, width, hidden, outputs, kind, normal, int(reverse))

    def run_forward(*arrays: Array | None) -> Any:
        xa, ha, ca, wi, wh, wr, bi, bh, ni, pi, nh, ph, nc, pc, ma, le = [arrays[i] if i >= 0 else None for i in places]
        assert xa is not None and wi is not None and wh is not None
        y, h_n = alloc(every_output), alloc(last_h)
        c_n, cells, tanhc = (alloc(last_c), alloc(every_hidden), alloc(every_hidden)) if lstm else (None, None, None)
        gates = alloc(every_n) if lstm or gru else None
        inner = alloc(every_hidden) if gru else None
        projected = alloc(every_hidden) if projects else None
        raw_x, raw_h, stats = (alloc(every_n), alloc(every_n), alloc(statistics)) if norm else (None, None, None)
        hin = alloc(every_output) if keeps_h else None
        work = alloc(forward_work)
        forward.call(y.ptr, h_n.ptr, address(c_n), address(gates), address(cells), address(tanhc), address(inner), address(projected),
                     address(raw_x), address(raw_h), address(stats), address(hin), work.ptr, xa.ptr, address(ha), address(ca), wi.ptr,
                     wh.ptr, address(wr), address(bi), address(bh), address(ni), address(pi), address(nh), address(ph), address(nc),
                     address(pc), address(ma), address(le), *sizes, eps)
        kept = (xa, ha, ca, wi, wh, wr, ni, nh, nc, ma, le, y, gates, cells, tanhc, inner, projected, raw_x, raw_h, stats, hin)
        if cell:
            return ((h_n, c_n) if lstm else h_n), kept
        return ((y, h_n, c_n, cells, gates) if lstm else (y, h_n, gates) if gru else (y, h_n)), kept

    def run_backward(kept: Any, gs: Any, needs: list[bool]) -> list[Array | None] | None:
        xa, ha, ca, wi, wh, wr, ni, nh, nc, ma, le, y, gates, cells, tanhc, inner, projected, raw_x, raw_h, stats, hin = kept
        if cell:
            gy, gh, gc = None, gs[0] if lstm else gs, gs[1] if lstm else None
        else:
            gy, gh, gc = gs[0], gs[1], gs[2] if lstm else None
            if any([g is not None for g in gs[3 if lstm else 2:]]):
                return None                     # through the gates and cells that were asked for: the definition knows
        need = [needs[i] if i >= 0 else False for i in places]
        if need[14]:
            return None

        def made(role: int) -> Array | None:
            return alloc(layouts[places[role]]) if need[role] else None       # type: ignore[arg-type]
        gx, gwi, gwh, gwr, gni, gnh, gnc, gpc = made(0), made(3), made(4), made(5), made(8), made(10), made(12), made(13)
        gh0, gc0 = alloc(last_h), alloc(last_c) if lstm else None
        of_x, of_h = need[6] or need[9], need[7] or need[11]
        if not gru:
            of_x, of_h = of_x or of_h, False
        gbx, gbh = alloc(bias_like) if of_x else None, alloc(bias_like) if of_h else None
        dx = alloc(together)
        dr = alloc(together) if norm or gru else dx
        dhs = alloc(every_output) if projects else None
        sums, work = alloc(sums_layout), alloc(backward_work)
        backward.call(address(gx), gh0.ptr, address(gc0), address(gwi), address(gwh), address(gwr), address(gbx), address(gbh),
                      address(gni), address(gnh), address(gnc), address(gpc), dx.ptr, dr.ptr, address(dhs), sums.ptr, work.ptr,
                      address(gy), address(gh), address(gc), xa.ptr, address(ha), address(ca), wi.ptr, wh.ptr, address(wr), address(ni),
                      address(nh), address(nc), address(ma), address(le), y.ptr, address(gates), address(cells), address(tanhc),
                      address(inner), address(projected), address(raw_x), address(raw_h), address(stats), address(hin), *sizes)
        if not gru:
            gbh = gbx                           # their biases are added up: one gradient for all
        results = (gx, gh0, gc0, gwi, gwh, gwr, gbx, gbh, gni, gbx, gnh, gbh, gnc, gpc, None, None)
        return [results[_ROLES.index(role)] if needed else None for role, needed in zip(inputs, needs, strict=True)]
    return run_forward, run_backward


def _install(of: Any, gates: int) -> None:
    """The shape rule and the kernels of a cell or sequence op."""
    name, cell, inputs = of.name, of.name.endswith("_cell"), of.inputs

    @of.check
    def rule(*layouts: Layout | None, nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5, reset_after: bool = True,
             reverse: bool = False) -> None:
        _nonlinearity(name, nonlinearity)
        _no_norm_before(name, norm, reset_after)
        _rule(name, inputs, gates, layouts, norm, eps)

    @of.fused
    def kernels(table: KernelTable, *layouts: Layout | None, nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5,
                reset_after: bool = True, reverse: bool = False) -> Any:
        if not reset_after:
            raise NoKernel("the kernels reset after the product with W_hh")
        kind = _KINDS[{1: nonlinearity, 4: "lstm", 3: "gru"}[gates]]
        return _prepare(table, inputs, layouts, kind, norm, eps, bool(reverse), cell)


for _op, _count in ((rnn_cell, 1), (lstm_cell, 4), (gru_cell, 3), (rnn_sequence, 1), (lstm_sequence, 4), (gru_sequence, 3)):
    _install(_op, _count)


# ---- samples, errors, oracle ----------------------------------------------------------------------------------------

def _sigmoid(p: Any) -> Any:
    return 1 / (1 + np.exp(-p))


def _norm_oracle(p: Any, weight: Any, bias: Any, norm: str | None, eps: float) -> Any:
    if norm is None:
        return p
    centre = p.mean(-1, keepdims=True) if norm == "layer" else 0
    p = (p - centre) / np.sqrt(((p - centre) ** 2).mean(-1, keepdims=True) + eps)
    return p * (1 if weight is None else weight) + (0 if bias is None else bias)


def _oracle(name: str, inputs: Sequence[str], values: Sequence[Any], nonlinearity: str = "tanh", norm: str | None = None, eps: float = 1e-5,
            reset_after: bool = True, reverse: bool = False) -> Any:
    """NumPy, row by row and step by step."""
    v: dict[str, Any] = dict.fromkeys(_ROLES)
    v.update(zip(inputs, values, strict=True))
    cell = name.endswith("_cell")
    x = v["x"][None] if cell else v["x"]
    size = v["w_ih"].shape[0] // {"r": 1, "l": 4, "g": 3}[name[0]]
    outputs = v["w_hh"].shape[1]
    n = v["w_ih"].shape[0]
    y, cells, opened = np.zeros((*x.shape[:2], outputs)), np.zeros((*x.shape[:2], size)), np.zeros((*x.shape[:2], n))
    last_h, last_c = np.zeros((x.shape[1], outputs)), np.zeros((x.shape[1], size))
    for b in range(x.shape[1]):
        h = np.zeros(outputs) if v["h"] is None else v["h"][b]
        c = np.zeros(size) if v["c"] is None else v["c"][b]
        steps = range(len(x) if v["lengths"] is None else v["lengths"][b])
        for t in reversed(steps) if reverse else steps:
            seen = h if v["mask"] is None else h * v["mask"][b]
            p = _norm_oracle(v["w_ih"] @ x[t, b], v["nw_ih"], v["nb_ih"], norm, eps) + (0 if v["b_ih"] is None else v["b_ih"])
            q = _norm_oracle(v["w_hh"] @ seen, v["nw_hh"], v["nb_hh"], norm, eps) + (0 if v["b_hh"] is None else v["b_hh"])
            if name[0] == "r":
                h = np.tanh(p + q) if nonlinearity == "tanh" else np.maximum(p + q, 0)
            elif name[0] == "l":
                i, f, g, o = np.split(p + q, 4)
                i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
                c = f * c + i * g
                h = o * np.tanh(_norm_oracle(c, v["nw_c"], v["nb_c"], norm, eps))
                h = h if v["w_hr"] is None else v["w_hr"] @ h
                opened[t, b] = np.concatenate([i, f, g, o])
            else:
                r, z = _sigmoid((p + q)[:size]), _sigmoid((p + q)[size:2 * size])
                inner = r * q[2 * size:]
                if not reset_after:
                    inner = v["w_hh"][2 * size:] @ (r * seen) + (0 if v["b_hh"] is None else v["b_hh"][2 * size:])
                fresh = np.tanh(p[2 * size:] + inner)
                h = (1 - z) * fresh + z * h
                opened[t, b] = np.concatenate([r, z, fresh])
            y[t, b], cells[t, b] = h, c
        last_h[b], last_c[b] = h, c
    if cell:
        return (last_h, last_c) if name[0] == "l" else last_h
    return {"r": (y, last_h), "l": (y, last_h, last_c, cells, opened), "g": (y, last_h, opened)}[name[0]]


def _sample(make: Any, of: Any, gates: int, steps: int, batch: int, width: int, hidden: int, without: Sequence[str] = (), outputs: int = 0,
            norm: str | None = None, **attrs: Any) -> tuple:
    """Arguments of the given sizes; the inputs named in `without` are None, and so is what the attributes do not ask for."""
    n, size = gates * hidden, outputs or hidden
    shapes = {"x": (batch, width) if of.name.endswith("_cell") else (steps, batch, width), "h": (batch, size), "c": (batch, hidden),
              "w_ih": (n, width), "w_hh": (n, size), "w_hr": (size, hidden), "nw_c": (hidden,), "nb_c": (hidden,), "mask": (batch, size)}
    absent = {*without, *([] if outputs else ["w_hr"]), *([] if norm else ["nw_ih", "nw_hh", "nw_c"]),
              *([] if norm == "layer" else ["nb_ih", "nb_hh", "nb_c"])}
    values: list[Any] = []
    for role in of.inputs:
        if role in absent:
            values.append(None)
        elif role == "lengths":
            values.append(make.ints(batch, low=1, high=steps + 1))
        else:
            scale = 0.5 if role.startswith(("w_", "b_")) else 2.0
            values.append(make(*shapes.get(role, (n,)), low=-scale, high=scale))
    return (*values, {**({"norm": norm} if norm else {}), **attrs})


def _document(of: Any, gates: int, options: Sequence[dict]) -> None:
    cell = of.name.endswith("_cell")
    plain, full = ["h", "c", "mask", "lengths"], ["mask", "lengths"]
    if cell:
        plain = full = ["mask"]

    @of.samples
    def _(make: Any) -> Any:
        yield _sample(make, of, gates, 3, 2, 3, 2, plain, **options[0])
        yield _sample(make, of, gates, 3, 3, 2, 3, ["b_ih", "b_hh"], **options[-1])
        yield _sample(make, of, gates, 2, 2, 3, 3, [], norm="layer")
        yield _sample(make, of, gates, 1, 2, 2, 4, ["mask", "b_hh"], norm="rms")
        yield _sample(make, of, gates, 2, 17, 5, 33, full)
        if gates == 4:
            yield _sample(make, of, gates, 2, 2, 3, 3, ["mask"], outputs=2)
            yield _sample(make, of, gates, 2, 2, 3, 3, full, outputs=2, norm="layer")
        if not cell:
            yield _sample(make, of, gates, 3, 3, 2, 3, ["h", "c", "mask"], norm="layer", reverse=True)
            yield _sample(make, of, gates, 3, 2, 2, 2, ["lengths"], norm="rms", reverse=True)
            yield _sample(make, of, gates, 3, 2, 2, 3, full, reverse=True)

    @of.errors
    def _(make: Any) -> Any:
        def broken(**changes: Any) -> Any:
            sample = list(_sample(make, of, gates, 2, 2, 3, 3, full))
            for role, value in changes.items():
                if role in of.inputs:
                    sample[of.inputs.index(role)] = value
                else:
                    sample[-1][role] = value
            return tuple(sample)
        yield broken(x=make(2, 2, 2, 3)), RuntimeError, "x must be"
        yield broken(w_ih=make(gates * 3, 4)), RuntimeError, r"inputs = the last size of x.*\[.*4\]"
        yield broken(h=make(2, 4)), RuntimeError, r"h must have the shape \[2, 3\]"
        yield broken(w_hh=make(gates * 3, 2)), RuntimeError, "w_hh must have the shape"
        yield broken(b_ih=make(5)), RuntimeError, "b_ih must have the shape"
        yield broken(b_hh=make(gates * 3, dtype=np.float16)), RuntimeError, "one dtype"
        yield broken(norm="batch"), ValueError, "'layer' or 'rms'"
        yield broken(nw_ih=make(gates * 3)), ValueError, "nw_ih has no part"
        if not cell:
            yield broken(lengths=make.ints(3)), RuntimeError, "lengths must have the shape"
            yield broken(x=make(0, 2, 3)), RuntimeError, "at least one step"
        if gates > 1:
            yield broken(w_ih=make(gates * 3 + 1, 3)), RuntimeError, "rows for each hidden unit"
        if gates == 3:
            yield broken(norm="layer", reset_after=False), ValueError, "reset_after"
        if gates == 1:
            yield broken(nonlinearity="sin"), ValueError, "nonlinearity"

    @of.reference
    def _(*values: Any, **attrs: Any) -> Any:
        return _oracle(of.name, of.inputs, values, **attrs)


for _op, _count, _options in ((rnn_cell, 1, [{}, {"nonlinearity": "relu"}]), (rnn_sequence, 1, [{}, {"nonlinearity": "relu"}]),
                              (lstm_cell, 4, [{}]), (lstm_sequence, 4, [{}]),
                              (gru_cell, 3, [{}, {"reset_after": False}]), (gru_sequence, 3, [{}, {"reset_after": False}])):
    _document(_op, _count, _options)
