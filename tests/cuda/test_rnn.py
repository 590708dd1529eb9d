"""The kernels of a whole sequence against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import emulator, fakeblas
from cuda_on_cpu.twins import DTYPES, REAL, emulated, rng

import minigrad as mg
from minigrad import nn
from minigrad.devices import native
from minigrad.devices.native import signatures

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]

TANH, RELU, LSTM, GRU = range(4)
# (kind, norm, options): what is None unless named in the options; sizes are steps, batch, inputs, hidden, outputs
CASES = {
    "tanh": (TANH, 0, "b_ih b_hh", (3, 5, 4, 33, 33)),
    "relu": (RELU, 0, "h0 lengths", (4, 3, 2, 5, 5)),
    "tanh-norm": (TANH, 1, "h0 b_ih b_hh nw_ih nb_ih nw_hh nb_hh mask lengths reverse", (3, 3, 2, 7, 7)),
    "lstm": (LSTM, 0, "b_ih b_hh", (5, 2, 3, 9, 9)),
    "lstm-one": (LSTM, 0, "", (1, 1, 1, 1, 1)),
    "lstm-many-rows": (LSTM, 0, "h0 c0 b_ih b_hh lengths", (2, 271, 2, 3, 3)),
    "lstm-reverse": (LSTM, 0, "h0 c0 b_ih reverse lengths mask", (4, 5, 3, 6, 6)),
    "lstm-projection": (LSTM, 0, "h0 c0 w_hr b_ih b_hh lengths", (3, 4, 3, 5, 7)),
    "lstm-wide": (LSTM, 0, "b_ih", (2, 1, 2, 300, 300)),
    "lstm-layer": (LSTM, 1, "h0 c0 b_ih b_hh nw_ih nb_ih nw_hh nb_hh nw_c nb_c lengths", (3, 3, 2, 40, 40)),
    "lstm-layer-projection": (LSTM, 1, "w_hr nw_ih nw_hh nw_c mask lengths", (3, 2, 3, 8, 3)),
    "lstm-rms": (LSTM, 2, "b_hh nw_ih nw_hh reverse", (3, 2, 2, 6, 6)),
    "gru": (GRU, 0, "b_ih b_hh", (4, 3, 3, 35, 35)),
    "gru-state": (GRU, 0, "h0 b_hh mask lengths reverse", (3, 141, 2, 4, 4)),
    "gru-layer": (GRU, 1, "h0 b_ih b_hh nw_ih nb_ih nw_hh nb_hh lengths", (3, 3, 2, 11, 11)),
    "gru-rms": (GRU, 2, "nw_hh mask", (2, 2, 2, 5, 5)),
}


class Network:
    """The arguments of both kernels for one case, by name; `cuda` runs them there, and on the CPU otherwise."""

    def __init__(self, suffix, kind, norm, options, sizes):
        self.suffix, self.t, options = suffix, DTYPES[suffix], options.split()
        steps, batch, inputs, hidden, outputs = sizes
        n = (1, 1, 4, 3)[kind] * hidden
        self.sizes = dict(zip(("steps", "batch", "inputs", "hidden", "outputs"), sizes, strict=True), kind=kind, norm=norm,
                          reverse=int("reverse" in options), eps=1e-5)
        per_n = dict.fromkeys(("b_ih", "b_hh", "nw_ih", "nb_ih", "nw_hh", "nb_hh"), (n,))
        shapes = {**per_n, "h0": (batch, outputs), "c0": (batch, hidden), "w_hr": (outputs, hidden), "nw_c": (hidden,),
                  "nb_c": (hidden,), "mask": (batch, outputs)}
        self.given = {name: self.random(*shape) if name in options else None for name, shape in shapes.items()}
        self.given |= {"x": self.random(steps, batch, inputs), "w_ih": self.random(n, inputs), "w_hh": self.random(n, outputs),
                       "lengths": rng.integers(1, steps + 1, batch) if "lengths" in options else None}
        def some(*shape):                   # what was in memory before, which no kernel may rely on
            return np.full(shape, 7, self.t)
        row, unit, out = some(steps, batch, n), some(steps, batch, hidden), some(steps, batch, outputs)
        lstm, gru, given = kind == LSTM, kind == GRU, self.given
        keeps_h = given["mask"] is not None or given["lengths"] is not None and "reverse" in options
        self.made = {"y": out, "hn": out[0], "cn": unit[0] if lstm else None, "gates": row if lstm or gru else None,
                     "cells": unit if lstm else None, "tanhc": unit if lstm else None, "inner": unit if gru else None,
                     "projected": unit if given["w_hr"] is not None else None, "raw_x": row if norm else None, "raw_h": row if norm else None,
                     "stats": some(6, steps, batch) if norm else None, "hin": out if keeps_h else None}
        projects = given["w_hr"] is not None
        self.forward_work = some(native.rnn_forward_work(n, hidden, outputs, projects))
        self.gradients = {f"g{name}": some(*self.given[name].shape) for name in ("x", "w_ih", "w_hh")}
        self.gradients |= {"g" + name: None if given[name] is None else some(*given[name].shape)
                           for name in ("w_hr", "nw_ih", "nw_hh", "nw_c")}
        self.gradients |= {"gh0": out[0], "gc0": unit[0] if lstm else None, "gb_ih": row[0, 0], "gb_hh": row[0, 0] if gru else None,
                           "gnb_c": unit[0, 0] if norm == 1 and lstm else None}
        every = some(max(steps, native.rnn_steps(batch, n)), batch, n)
        self.scratch = {"dx": every, "dr": every if norm or gru else None, "dhs": out if projects else None,
                        "sums": some(batch * native.rnn_sums(1, n, hidden)),
                        "work": some(native.rnn_backward_work(n, hidden, outputs, projects))}

    def random(self, *shape):
        return rng.uniform(-0.9, 0.9, shape).astype(self.t)

    def run(self, name, kernel, arguments):
        """The arrays of a launch by name, as they are afterwards; without an array of its own, `dr` is `dx`."""
        device, full = mg.device(name), f"{kernel}_{self.suffix}"
        held = {of: device.upload(a) for of, a in arguments.items() if isinstance(a, np.ndarray)}
        if arguments.get("dr", 0) is None:
            held["dr"] = held["dx"]
        next(k for k in device.kernels if k.name == full).call(
            *[held[of].ptr if of in held else arguments[of] or 0 for of in signatures()[full].names])
        return {of: device.download(a) for of, a in held.items()}

    def forward(self, device):
        return self.run(device, "rnn_forward", {**self.given, **self.made, **self.sizes, "work": self.forward_work})

    def backward(self, device, kept, incoming):
        return self.run(device, "rnn_backward", {**self.given, **self.made, **kept, **incoming, **self.gradients, **self.scratch, **self.sizes})


def agree(got, want, names, tolerance):
    for name in names:
        scale = max(1, np.abs(want[name]).max(initial=0))
        np.testing.assert_allclose(got[name], want[name], rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_sequence(case, suffix, order, monkeypatch):
    kind, norm, options, sizes = CASES[case]
    net = Network(suffix, kind, norm, options, sizes)
    tolerance = 3e-5 if suffix == "f32" else 3e-13
    want, got = net.forward("cpu"), net.forward("cuda")
    results = [name for name, a in net.made.items() if a is not None]
    if net.given["lengths"] is not None and norm:       # past a row's length nobody reads statistics
        past = np.arange(sizes[0])[:, None] >= net.given["lengths"]
        for stats in (want["stats"], got["stats"]):
            stats[:, past] = 0
    agree(got, want, results, tolerance)
    incoming = {"gy": net.random(*net.made["y"].shape), "ghn": net.random(*net.made["hn"].shape),
                "gcn": net.random(*net.made["cn"].shape) if kind == LSTM else None}
    for changes in ({}, {"gy": None}, {"ghn": None, "gcn": None}):
        kept = {name: want[name] for name in results}
        w, g = (net.backward(device, kept, {**incoming, **changes}) for device in ("cpu", "cuda"))
        made = [name for name, a in net.gradients.items() if a is not None]
        agree(g, w, [*made, *(["dhs"] if net.scratch["dhs"] is not None else [])], 4 * tolerance)


@pytest.mark.skipif(REAL, reason="looks into the stand-in for CuPy")
@pytest.mark.parametrize("make, most", [(nn.RNN, 14), (nn.LSTM, 16), (nn.GRU, 16), (lambda *sizes: nn.LSTM(*sizes, norm="layer"), 20)])
def test_launches_do_not_grow_with_the_steps(make, most, monkeypatch):
    """Forward and backward of a layer, products included."""
    started, run, counts = [], emulator.RawKernel.__call__, []

    def counted(kernel, *args, **options):
        started.append(kernel)
        return run(kernel, *args, **options)
    monkeypatch.setattr(emulator.RawKernel, "__call__", counted)
    net = make(3, 5).to("cuda")
    for steps in (2, 9):
        x = mg.zeros(steps, 2, 3, device="cuda", requires_grad=True)
        net.zero_grad(), started.clear(), fakeblas.calls.clear()
        net(x)[0].sum().backward()
        counts.append(len(started) + len(fakeblas.calls))
    assert counts[0] == counts[1] <= most


@pytest.mark.parametrize("network, hidden", [(nn.LSTM, 640), (nn.LSTM, 641), (nn.LSTM, 800), (nn.GRU, 731), (nn.GRU, 732), (nn.RNN, 1024), (nn.RNN, 1025)])
@pytest.mark.parametrize("shared", [46 << 10, 227 << 10])
def test_the_widest(network, hidden, shared, monkeypatch, gpu):
    """A block's shared memory has the states of a row up to some width; the definition runs beyond it. An H100 has 227 KiB for a block."""
    monkeypatch.setattr(gpu, "shared", shared)
    mg.manual_seed(0)
    net, x, started, run = network(3, hidden), mg.ones(2 if shared > 46 << 10 else 3, 1, 3), [], emulator.RawKernel.__call__

    def values(x):
        net.zero_grad()
        y = net(x)[0]
        (y * y).sum().backward()
        return [t.numpy(force=True) for t in (y, net.weight_hh_l0.grad, net.bias_ih_l0.grad)]
    want = values(x)

    def counted(kernel, *args, **options):
        started.append(kernel.name)
        return run(kernel, *args, **options)
    monkeypatch.setattr(emulator.RawKernel, "__call__", counted)
    net = net.to("cuda")
    for got, expected in zip(values(x.to("cuda")), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=3e-6)
    assert REAL or ("rnn_forward_f32" in started) == (hidden in (640, 731, 1024) or shared > 46 << 10)
