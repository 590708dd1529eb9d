"""Recurrence against a plain loop in NumPy: layers, directions, lengths, packing, states, norms; gradients by finite differences of the loop."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn.utils import rnn as pads

KINDS = ("RNN", "LSTM", "GRU")
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


# ---- the loop ----

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Loop:
    """What a layer computes, step by step. `own` holds its parameters by name, `stats` the running statistics of norm="batch"."""

    def __init__(self, kind, own, norm=None, relu=False, reset_after=True, stats=None, training=True, longest=0):
        self.kind, self.own, self.norm, self.relu, self.reset_after = kind, own, norm, relu, reset_after
        self.stats, self.training, self.longest = {} if stats is None else stats, training, longest

    def normalized(self, p, which, suffix, t, live):
        if self.norm is None:
            return p
        weight, bias = self.own[f"norm_{which}{suffix}.weight"], self.own.get(f"norm_{which}{suffix}.bias", 0.0)
        if self.norm == "rms":
            return p / np.sqrt((p * p).mean(-1, keepdims=True) + 1e-5) * weight
        if self.norm == "layer":
            mean, var = p.mean(-1, keepdims=True), p.var(-1, keepdims=True)
        else:
            mean, var = self.of_the_step(p[live], f"norm_{which}{suffix}", min(t, self.longest - 1))
        return (p - mean) / np.sqrt(var + 1e-5) * weight + bias

    def of_the_step(self, p, name, t):
        """Mean and variance over the samples that reach step t; training moves its running statistics by a tenth."""
        kept = self.stats[name + ".running_mean"], self.stats[name + ".running_var"]
        if not self.training:
            return kept[0][t], kept[1][t]
        for running, value in zip(kept, (p.mean(0), p.var(0, ddof=1)), strict=True):
            running[t] += 0.1 * (value - running[t])
        return p.mean(0), p.var(0)

    def step(self, suffix, x, h, c, t, live):
        own = self.own
        w_hh, b_hh = own["weight_hh" + suffix], own.get("bias_hh" + suffix, np.zeros(len(own["weight_hh" + suffix])))
        p = self.normalized(x @ own["weight_ih" + suffix].T, "ih", suffix, t, live) + own.get("bias_ih" + suffix, 0.0)
        q = self.normalized(h @ w_hh.T, "hh", suffix, t, live) + b_hh
        if self.kind == "RNN":
            return (np.maximum(p + q, 0) if self.relu else np.tanh(p + q)), c
        if self.kind == "LSTM":
            i, f, g, o = np.split(p + q, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(self.normalized(c, "c", suffix, t, live))
            return (h @ own["weight_hr" + suffix].T if "weight_hr" + suffix in own else h), c
        (pr, pz, pn), (qr, qz, qn) = np.split(p, 3, -1), np.split(q, 3, -1)
        r, z = sigmoid(pr + qr), sigmoid(pz + qz)
        size = len(w_hh) // 3
        new = np.tanh(pn + (r * qn if self.reset_after else (r * h) @ w_hh[2 * size:].T + b_hh[2 * size:]))
        return (1 - z) * new + z * h, c

    def direction(self, suffix, x, h, c, lengths):
        """One layer in one direction: x (steps, batch, size) -> outputs, last states. A backward direction of a shorter sample starts
        at the sample's own end."""
        steps, batch = x.shape[:2]
        ys = np.zeros((steps, batch, h.shape[-1]))
        for k in range(steps):
            live = lengths > k
            at = np.where(live, lengths - 1 - k, 0) if suffix.endswith("_reverse") else np.full(batch, k)
            new_h, new_c = self.step(suffix, x[at, np.arange(batch)], h, c, k, live)
            h, c = np.where(live[:, None], new_h, h), np.where(live[:, None], new_c, c)
            ys[at[live], live.nonzero()[0]] = h[live]
        return ys, h, c

    def __call__(self, x, layers=1, both=False, lengths=None, hx=None):
        lengths = np.full(x.shape[1], len(x)) if lengths is None else np.asarray(lengths)
        last_h, last_c = [], []
        for layer in range(layers):
            ys = []
            for suffix in [f"_l{layer}"] + ([f"_l{layer}_reverse"] if both else []):
                hidden = len(self.own["weight_hh" + suffix]) // GATES[self.kind]
                outputs = self.own["weight_hh" + suffix].shape[1]
                h, c = (hx[0][len(last_h)], hx[-1][len(last_h)]) if hx else (np.zeros((x.shape[1], outputs)), np.zeros((x.shape[1], hidden)))
                y, h, c = self.direction(suffix, x, h, c, lengths)
                ys.append(y), last_h.append(h), last_c.append(c)
            x = np.concatenate(ys, -1)
        return [x, np.stack(last_h), *([np.stack(last_c)] if self.kind == "LSTM" else [])]


# ---- comparing ----

def flat(result):
    y, state = result[:2]
    return [y, *(state if isinstance(state, tuple) else (state,))]


def numbers(t):
    return t.numpy(force=True).copy()


def compare(layer, mine, inputs, loop, rng, tolerance=1e-9):
    """Results; then the derivative of a weighted sum of them along a random direction of all parameters and inputs.

    `inputs`: tensors that the results depend on. `loop(own, *arrays)` gives the same results from arrays.
    """
    own = {name: numbers(p) for name, p in layer.named_parameters()}
    arrays = [numbers(t) for t in inputs]
    want = loop(own, *arrays)
    for k, (a, b) in enumerate(zip(mine, want, strict=True)):
        np.testing.assert_allclose(numbers(a), b, rtol=tolerance, atol=tolerance, err_msg=f"result {k}")
    weights = [rng.standard_normal(b.shape) for b in want]
    loss = sum(((t * mg.tensor(w)).sum() for t, w in zip(mine, weights, strict=True)), mg.zeros((), dtype=mg.float64))
    loss.backward()
    slopes = {name: numbers(p.grad) for name, p in layer.named_parameters()}
    ds, dxs = {name: rng.standard_normal(p.shape) for name, p in own.items()}, [rng.standard_normal(a.shape) for a in arrays]
    exact = sum((slopes[n] * d).sum() for n, d in ds.items()) + sum((numbers(t.grad) * d).sum() for t, d in zip(inputs, dxs, strict=True))

    def value(e):
        found = loop({n: p + e * ds[n] for n, p in own.items()}, *[a + e * d for a, d in zip(arrays, dxs, strict=True)])
        return sum((w * y).sum() for w, y in zip(weights, found, strict=True))
    numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    size = sum(np.abs(slopes[n] * d).sum() for n, d in ds.items())
    assert abs(exact - numeric) < 1e-7 * max(1.0, size), (exact, numeric)


def leaf(values):
    return mg.tensor(values, requires_grad=True)


def moved_off_their_start(layer, rng):
    """Weights of norms off 1 and biases off 0, so that each has its part."""
    with mg.no_grad():
        for name, p in layer.named_parameters():
            if name.startswith("norm_"):
                p += mg.tensor(0.3 * rng.standard_normal(tuple(p.shape)))
    return layer


# ---- layers ----

OPTIONS = [(kind, layers, both, bias, proj) for kind, layers, both, bias, proj in
           itertools.product(KINDS, (1, 2), (False, True), (True, False), (0, 2)) if not proj or kind == "LSTM"]


@pytest.mark.parametrize("way", ["plain", "first", "packed", "lengths", "unbatched", "hx"])
@pytest.mark.parametrize(("kind", "layers", "both", "bias", "proj"), OPTIONS)
def test_layers(kind, layers, both, bias, proj, way):
    rng = np.random.default_rng([layers, both, bias, proj])
    relu = kind == "RNN" and not bias
    options = {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": way == "first",
               **({"proj_size": proj} if proj else {}), **({"nonlinearity": "relu"} if relu else {})}
    layer = getattr(nn, kind)(3, 4, **options).double()
    x = leaf(rng.standard_normal((5, 3) if way == "unbatched" else (5, 3, 3)))
    lengths, inputs, count = [2, 5, 4], [x], layers * (2 if both else 1)
    turned = lambda y: np.swapaxes(y, 0, 1) if way == "first" else y      # noqa: E731

    def loop(own, x, *hx):
        x = x[:, None] if way == "unbatched" else turned(x)
        y, *states = Loop(kind, own, relu=relu)(x, layers, both, lengths if way in ("packed", "lengths") else None, hx)
        return [y[:, 0], *[s[:, 0] for s in states]] if way == "unbatched" else [turned(y), *states]
    if way == "packed":
        y, state = layer(pads.pack_padded_sequence(x, lengths, enforce_sorted=False))
        mine = flat((pads.pad_packed_sequence(y)[0], state))
    elif way == "lengths":
        mine = flat(layer(x, lengths=lengths))
    elif way == "hx":
        inputs += [leaf(rng.standard_normal((count, 3, size))) for size in (proj or 4, 4)[:2 if kind == "LSTM" else 1]]
        mine = flat(layer(x, tuple(inputs[1:]) if kind == "LSTM" else inputs[1]))
    else:
        mine = flat(layer(x))
    compare(layer, mine, inputs, loop, rng)


@pytest.mark.parametrize("lengths", [None, [2, 4, 3]], ids=["whole", "lengths"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(("kind", "layers", "both", "bias", "proj"), OPTIONS)
def test_normalised_layers(kind, layers, both, bias, proj, norm, lengths):
    """As the papers write them: Ba, Kiros and Hinton 2016, eq. 20 to 22, and the same with root mean squares."""
    rng = np.random.default_rng([layers, both, bias, proj])
    layer = getattr(nn, kind)(3, 5, layers, bidirectional=both, bias=bias, norm=norm, **({"proj_size": proj} if proj else {})).double()
    moved_off_their_start(layer, rng)
    x = leaf(rng.standard_normal((4, 3, 3)))
    compare(layer, flat(layer(x, lengths=lengths)), [x], lambda own, x: Loop(kind, own, norm)(x, layers, both, lengths), rng)
    if lengths:
        y, state = layer(pads.pack_padded_sequence(x, lengths, enforce_sorted=False))
        want = layer(x, lengths=lengths)
        for a, b in zip(flat((pads.pad_packed_sequence(y)[0], state)), flat(want), strict=True):
            np.testing.assert_allclose(numbers(a), numbers(b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, [5, 2, 4, 5]], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_of_each_step(kind, lengths):
    """Values, gradients and running statistics; beyond norm_max_length steps share the last statistics."""
    rng = np.random.default_rng(0)
    layer = moved_off_their_start(getattr(nn, kind)(3, 4, norm="batch", norm_max_length=3).double(), rng)
    before = {k: numbers(b) for k, b in layer.named_buffers()}
    x = leaf(rng.standard_normal((5, 4, 3)))

    def loop(own, x, stats=None, training=True):
        kept = {k: v.copy() for k, v in before.items()} if stats is None else stats
        return Loop(kind, own, "batch", stats=kept, training=training, longest=3)(x, lengths=lengths)
    compare(layer, flat(layer(x, lengths=lengths)), [x], loop, rng, 1e-8)
    own, stats = {k: numbers(p) for k, p in layer.named_parameters()}, {k: v.copy() for k, v in before.items()}
    loop(own, numbers(x), stats)
    for name, b in layer.named_buffers():
        if "running" in name:
            np.testing.assert_allclose(numbers(b), stats[name], rtol=1e-8, atol=1e-10, err_msg=name)
    for a, b in zip(flat(layer.eval()(x, lengths=lengths)), loop(own, numbers(x), stats, False), strict=True):
        np.testing.assert_allclose(numbers(a), b, rtol=1e-8, atol=1e-9)


def test_reset_before():
    """GRU of Cho et al. 2014, version 1."""
    rng = np.random.default_rng(0)
    layer, x = nn.GRU(3, 4, reset_after=False).double(), leaf(rng.standard_normal((4, 2, 3)))
    compare(layer, flat(layer(x)), [x], lambda own, x: Loop("GRU", own, reset_after=False)(x), rng)


# ---- cells ----

@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("kind", KINDS)
def test_cells(kind, norm, batched):
    rng = np.random.default_rng(0)
    for options in ({}, {"bias": False}, *([{"nonlinearity": "relu"}] if kind == "RNN" else [])):
        cell = moved_off_their_start(getattr(nn, kind + "Cell")(3, 4, norm=norm, **options).double(), rng)
        x = leaf(rng.standard_normal((2, 5, 3) if batched else (2, 3)))
        state = cell(x[1], cell(x[0]))

        def loop(own, x, kind=kind, options=options):
            own = {_of_layer(k): v for k, v in own.items()}
            states = Loop(kind, own, norm, relu="nonlinearity" in options)(x if batched else x[:, None])[1:]
            return [s[0] if batched else s[0, 0] for s in states]
        compare(cell, list(state) if kind == "LSTM" else [state], [x], loop, rng)


def _of_layer(name):
    """A cell's name of a parameter as a layer has it."""
    head, dot, tail = name.partition(".")
    return f"{head}_l0{dot}{tail}"


# ---- initial values, packing ----

def test_initial_values():
    """U(-k, k) with k = 1 / sqrt(hidden size)."""
    mg.manual_seed(0)
    for kind in KINDS:
        for p in getattr(nn, kind)(30, 50, 2).parameters():
            bound = 50 ** -0.5
            assert 0.9 * bound < abs(p).max().item() <= bound and abs(p.std().item() - bound / 3 ** 0.5) < 0.02


@pytest.mark.parametrize("first", [False, True])
def test_packing(first):
    """Step after step, the samples that reach it, the longest sample first."""
    for lengths, ordered in (([5, 3, 1], True), ([2, 4, 3], False), ([4, 4, 4], True), ([5, 1, 5], False)):
        data = np.arange(30.0).reshape(5, 3, 2)
        order = sorted(range(3), key=lambda b: -lengths[b])         # stable
        rows = [data[t, b] for t in range(max(lengths)) for b in order if lengths[b] > t]
        packed = pads.pack_padded_sequence(mg.tensor(data.swapaxes(0, 1).copy() if first else data), lengths, first, ordered)
        assert sorted(map(tuple, packed.data.tolist())) == sorted(map(tuple, np.array(rows).tolist()))
        if len(set(lengths)) == 3:
            assert packed.data.tolist() == np.array(rows).tolist()
        assert packed.batch_sizes.tolist() == [sum(n > t for n in lengths) for t in range(max(lengths))]
        for total, fill in ((None, 0.0), (7, -1.0)):
            padded, found = pads.pad_packed_sequence(packed, first, fill, total)
            want = np.full((total or max(lengths), 3, 2), fill)
            for b, n in enumerate(lengths):
                want[:n, b] = data[:n, b]
            assert np.array_equal(padded.numpy().swapaxes(0, 1) if first else padded.numpy(), want) and found.tolist() == lengths


def test_padding_and_packing_of_sequences():
    sequences = [mg.arange(float(n)) for n in (2, 4, 1)]
    assert pads.pad_sequence(sequences, True, -1.0).tolist() == [[0, 1, -1, -1], [0, 1, 2, 3], [0, -1, -1, -1]]
    assert pads.pad_sequence(sequences, False, -1.0).tolist() == [[0, 0, 0], [1, 1, -1], [-1, 2, -1], [-1, 3, -1]]
    assert pads.pad_sequence(sequences, True, -1.0, "left").tolist() == [[-1, -1, 0, 1], [0, 1, 2, 3], [-1, -1, -1, 0]]
    packed = pads.pack_sequence(sequences, enforce_sorted=False)
    assert packed.data.tolist() == [0, 0, 0, 1, 1, 2, 3] and packed.batch_sizes.tolist() == [3, 2, 1, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 2] and packed.unsorted_indices.tolist() == [1, 0, 2]
    assert [t.tolist() for t in pads.unpack_sequence(packed)] == [s.tolist() for s in sequences]
    assert [t.tolist() for t in pads.unpad_sequence(pads.pad_sequence(sequences), [2, 4, 1])] == [s.tolist() for s in sequences]
    x = leaf(np.random.default_rng(0).standard_normal((4, 2, 3)))
    (pads.pad_packed_sequence(pads.pack_padded_sequence(x, [4, 2]))[0] ** 2).sum().backward()
    want = 2 * numbers(x)
    want[2:, 1] = 0
    np.testing.assert_allclose(numbers(x.grad), want)
