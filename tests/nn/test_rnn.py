"""Recurrence: padding, states, dropout, capture, refusals; and against PyTorch, its layers for the plain ones, loops over its functions
for the normalised ones. test_rnn_by_hand.py holds the layers against a loop in NumPy, without PyTorch."""
from __future__ import annotations

import collections
import itertools
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.core.op import registry
from minigrad.devices.native import get_num_threads
from minigrad.nn import functional as F
from minigrad.nn.utils import rnn as pads
from minigrad.ops.dispatch import set_fused

RNG = np.random.default_rng(0)
KINDS = ("RNN", "LSTM", "GRU")


def values(*shape):
    return RNG.standard_normal(shape)


def copy_state(ours, theirs):
    ours.load_state_dict({k: mg.tensor(v.detach().numpy()) for k, v in theirs.state_dict().items()})


def near(a, b, where="", tolerance=1e-9):
    a = a.numpy(force=True) if isinstance(a, mg.Tensor) else a
    b = b.detach().numpy() if hasattr(b, "detach") else b
    assert a.shape == b.shape, (where, a.shape, b.shape)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=where)


def flat(result):
    """output and states as a list"""
    y, state = result[:2]
    return [y, *(state if isinstance(state, tuple) else (state,))]


def total(tensors, weights, make):
    parts = [(t * make(w)).sum() for t, w in zip(tensors, weights, strict=True)]
    out = parts[0]
    for p in parts[1:]:
        out = out + p
    return out


def compare(ours, theirs, mine, others, x, tx, tolerance=1e-9):
    """Outputs, then the gradients of the parameters (by name) and of the input."""
    import torch
    for k, (a, b) in enumerate(zip(mine, others, strict=True)):
        near(a, b, f"result {k}", tolerance)
    weights = [values(*b.shape) for b in others]
    total(mine, weights, mg.tensor).backward()
    total(others, weights, torch.tensor).backward()
    near(x.grad, tx.grad, "gradient of the input", tolerance)
    for name, p in ours.named_parameters():
        near(p.grad, theirs[name].grad, f"gradient of {name}", tolerance)


# ---- torch's layers -----------------------------------------------------------------------------------------------------

OPTIONS = [(kind, layers, both, first, bias, proj) for kind, layers, both, first, bias, proj in
           itertools.product(KINDS, (1, 2), (False, True), (False, True), (True, False), (0, 2)) if not proj or kind == "LSTM"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["plain", "packed", "lengths", "unbatched", "hx"])
@pytest.mark.parametrize(("kind", "layers", "both", "first", "bias", "proj"), OPTIONS)
def test_layers_are_torchs(torch, kind, layers, both, first, bias, proj, way):
    options = {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": bias, "dropout": 0.3, **({"proj_size": proj} if proj else {})}
    theirs, ours = getattr(torch.nn, kind)(3, 4, **options).double().eval(), getattr(nn, kind)(3, 4, **options).double().eval()
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    copy_state(ours, theirs)
    data = values(5, 3) if way == "unbatched" else values(3, 5, 3) if first else values(5, 3, 3)
    x, tx = mg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    lengths = [2, 5, 4]
    if way == "packed":
        y, state = ours(pads.pack_padded_sequence(x, lengths, first, enforce_sorted=False))
        ty, their_state = theirs(torch.nn.utils.rnn.pack_padded_sequence(tx, lengths, first, enforce_sorted=False))
        near(y.data, ty.data)
        mine, others = (pads.pad_packed_sequence(y, first)[0], state), (torch.nn.utils.rnn.pad_packed_sequence(ty, first)[0], their_state)
    elif way == "lengths":
        ty, their_state = theirs(torch.nn.utils.rnn.pack_padded_sequence(tx, lengths, first, enforce_sorted=False))
        mine, others = ours(x, lengths=lengths), (torch.nn.utils.rnn.pad_packed_sequence(ty, first)[0], their_state)
    elif way == "hx":
        count = layers * (2 if both else 1)
        start = [values(count, 3, proj or 4), values(count, 3, 4)][:2 if kind == "LSTM" else 1]
        hx, thx = [mg.tensor(s) for s in start], [torch.tensor(s) for s in start]
        mine, others = ours(x, tuple(hx) if kind == "LSTM" else hx[0]), theirs(tx, tuple(thx) if kind == "LSTM" else thx[0])
    else:
        mine, others = ours(x), theirs(tx)
    compare(ours, dict(theirs.named_parameters()), flat(mine), flat(others), x, tx)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_states_and_steps(torch, kind):
    """What comes in as hx gets its gradient, also in a packed batch out of order; relu; f32 sizes beyond a block of rows."""
    for steps, batch, width, hidden, options in ((3, 3, 2, 4, {}), (2, 37, 5, 33, {"nonlinearity": "relu"} if kind == "RNN" else {})):
        theirs, ours = getattr(torch.nn, kind)(width, hidden, **options).double(), getattr(nn, kind)(width, hidden, **options).double()
        copy_state(ours, theirs)
        data, start = values(steps, batch, width), [values(1, batch, hidden) for _ in range(2 if kind == "LSTM" else 1)]
        lengths = RNG.integers(1, steps + 1, batch)
        lengths[0] = steps
        hx, thx = [mg.tensor(s, requires_grad=True) for s in start], [torch.tensor(s, requires_grad=True) for s in start]
        y, state = ours(pads.pack_padded_sequence(mg.tensor(data), lengths, enforce_sorted=False), tuple(hx) if kind == "LSTM" else hx[0])
        ty, their_state = theirs(torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(data), torch.tensor(lengths), enforce_sorted=False),
                                 tuple(thx) if kind == "LSTM" else thx[0])
        mine, others = flat((pads.pad_packed_sequence(y)[0], state)), flat((torch.nn.utils.rnn.pad_packed_sequence(ty)[0], their_state))
        weights = [values(*t.shape) for t in others]
        total(mine, weights, mg.tensor).backward()
        total(others, weights, torch.tensor).backward()
        for a, b in zip(hx, thx, strict=True):
            near(a.grad, b.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_state_is_used(torch, kind):
    theirs, ours = getattr(torch.nn, kind)(3, 4).double(), getattr(nn, kind)(3, 4).double()
    copy_state(ours, theirs)
    data = values(4, 2, 3)
    h, th = flat(ours(mg.tensor(data)))[-1], flat(theirs(torch.tensor(data)))[-1]
    h.sum().backward()
    th.sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        near(p.grad, q.grad)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_torchs(torch, kind, batched):
    for options in ({}, {"bias": False}, *([{"nonlinearity": "relu"}] if kind == "RNN" else [])):
        theirs, ours = getattr(torch.nn, kind + "Cell")(3, 4, **options).double(), getattr(nn, kind + "Cell")(3, 4, **options).double()
        assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
        copy_state(ours, theirs)
        data = values(5, 3) if batched else values(3)
        x, tx = mg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
        mine, others = ours(x), theirs(tx)
        mine, others = ours(x, mine), theirs(tx, others)
        mine, others = (list(mine), list(others)) if kind == "LSTM" else ([mine], [others])
        compare(ours, dict(theirs.named_parameters()), mine, others, x, tx)


def test_initial_values_are_torchs(torch):
    mg.manual_seed(0)
    torch.manual_seed(0)
    for kind in KINDS:
        theirs, ours = getattr(torch.nn, kind)(30, 50, 2), getattr(nn, kind)(30, 50, 2)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert abs(p).max().item() <= 50 ** -0.5 and abs(p.std().item() - q.std().item()) < 0.02


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 3)])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_states_can_be_detached_in_place(kind, shape):
    """Truncated backpropagation through time: each part ends with `h.detach_()`."""
    layer, state = getattr(nn, kind)(3, 4), None
    for _ in range(2):
        y, state = layer(mg.randn(*shape), state)
        y.sum().backward()
        for s in state if kind == "LSTM" else [state]:
            assert s.detach_() is s and s.grad_fn is None and not s.requires_grad


def test_forget_bias():
    layer = nn.LSTM(3, 4, forget_bias=1.0, bidirectional=True)
    for suffix in ("_l0", "_l0_reverse"):
        assert (getattr(layer, "bias_ih" + suffix) + getattr(layer, "bias_hh" + suffix))[4:8].tolist() == [1.0] * 4
    assert nn.LSTMCell(3, 4, forget_bias=2.0).bias_ih[4:8].tolist() == [2.0] * 4


# ---- normalised layers --------------------------------------------------------------------------------------------------

def normalized(p, own, which, suffix, norm, eps=1e-5):
    import torch
    if norm is None:
        return p
    weight, bias = own[f"norm_{which}{suffix}.weight"], own.get(f"norm_{which}{suffix}.bias")
    if norm == "layer":
        return torch.nn.functional.layer_norm(p, p.shape[-1:], weight, bias, eps)
    return torch.nn.functional.rms_norm(p, p.shape[-1:], weight, eps)


def one_step(kind, own, suffix, x, h, c, norm, relu=False):
    """A step of a normalised cell as the papers write it, by torch's functions."""
    import torch
    p = normalized(x @ own["weight_ih" + suffix].T, own, "ih", suffix, norm)
    q = normalized(h @ own["weight_hh" + suffix].T, own, "hh", suffix, norm)
    p, q = p + own.get("bias_ih" + suffix, 0.0), q + own.get("bias_hh" + suffix, 0.0)
    if kind == "RNN":
        return torch.relu(p + q) if relu else torch.tanh(p + q), None
    if kind == "LSTM":
        i, f, g, o = (p + q).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * normalized(c, own, "c", suffix, norm).tanh()
        return (h @ own["weight_hr" + suffix].T if "weight_hr" + suffix in own else h), c
    (pr, pz, pn), (qr, qz, qn) = p.chunk(3, -1), q.chunk(3, -1)
    r, z = (pr + qr).sigmoid(), (pz + qz).sigmoid()
    return (1 - z) * (pn + r * qn).tanh() + z * h, None


def by_hand(kind, own, x, layers, both, hidden, outputs, norm, lengths, relu=False):
    """Layers and directions, row by row: x (steps, batch, size) -> output, last states."""
    import torch
    hs, cs = [], []
    for layer in range(layers):
        rows = [[] for _ in range(x.shape[1])]
        for suffix in [f"_l{layer}"] + ([f"_l{layer}_reverse"] if both else []):
            last_h, last_c = [], []
            for b in range(x.shape[1]):
                h, c = x.new_zeros(outputs), x.new_zeros(hidden)
                steps, out = range(lengths[b]), [None] * lengths[b]
                for t in reversed(steps) if suffix.endswith("e") else steps:
                    h, c = one_step(kind, own, suffix, x[t, b], h, c, norm, relu)
                    out[t] = h
                rows[b].append(torch.stack(out + [x.new_zeros(outputs)] * (x.shape[0] - lengths[b])))
                last_h.append(h)
                last_c.append(c)
            hs.append(torch.stack(last_h))
            cs.append(torch.stack(last_c) if kind == "LSTM" else None)
        x = torch.stack([torch.cat(r, 1) for r in rows], 1)
    return [x, torch.stack(hs), *([torch.stack(cs)] if kind == "LSTM" else [])]


NORMED = [(kind, norm, layers, both, bias, proj) for kind, norm, layers, both, bias, proj in
          itertools.product(KINDS, ("layer", "rms"), (1, 2), (False, True), (True, False), (0, 2)) if not proj or kind == "LSTM"]


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, [2, 4, 3]], ids=["whole", "lengths"])
@pytest.mark.parametrize(("kind", "norm", "layers", "both", "bias", "proj"), NORMED)
def test_normalised_layers_are_the_papers(torch, kind, norm, layers, both, bias, proj, lengths):
    relu = {"nonlinearity": "relu"} if kind == "RNN" and not bias else {}
    ours = getattr(nn, kind)(3, 5, layers, bias=bias, bidirectional=both, norm=norm, **relu, **({"proj_size": proj} if proj else {})).double()
    with mg.no_grad():                                      # off 1 and 0, so that each has its part
        for name, p in ours.named_parameters():
            if name.startswith("norm_"):
                p += mg.tensor(0.3 * values(*p.shape))
    data = values(4, 3, 3)
    x, tx = mg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    own = {k: torch.tensor(p.numpy(force=True), requires_grad=True) for k, p in ours.named_parameters()}
    others = by_hand(kind, own, tx, layers, both, 5, proj or 5, norm, lengths or [4] * 3, bool(relu))
    mine = ours(x, lengths=lengths) if lengths else ours(x)
    compare(ours, own, flat(mine), others, x, tx)
    if lengths:                                             # and packed
        y, state = ours(pads.pack_padded_sequence(x, lengths, enforce_sorted=False))
        for a, b in zip(flat((pads.pad_packed_sequence(y)[0], state)), others, strict=True):
            near(a, b)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("kind", KINDS)
def test_normalised_cells_step_like_the_layers(kind, norm):
    layer, cell = getattr(nn, kind)(3, 4, norm=norm), getattr(nn, kind + "Cell")(3, 4, norm=norm)
    cell.load_state_dict({k.replace("_l0", ""): v for k, v in layer.state_dict().items()})
    x = mg.tensor(values(3, 2, 3).astype(np.float32))
    y, state = layer(x)
    s = None
    for t in range(3):
        s = cell(x[t], s)
    for a, b in zip(s if kind == "LSTM" else [s], state if kind == "LSTM" else [state], strict=True):
        near(a, b.numpy(force=True)[0], tolerance=1e-5)
    assert y.shape == (3, 2, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_large_offsets_are_normalised_away(kind):
    """Pre-activations of 1e4 +- 1 keep their digits in float32: variance is not E[p^2] - E[p]^2."""
    layer = getattr(nn, kind)(1, 40, norm="layer", bias=False)
    with mg.no_grad():
        layer.weight_ih_l0.copy_(mg.tensor((1e4 + values(*layer.weight_ih_l0.shape)).astype(np.float32)))
    x = mg.ones(3, 2, 1)
    near(layer(x)[0], layer.double()(x.double())[0].numpy(force=True).astype(np.float32), tolerance=2e-3)          # 1e4 has steps of 1e-3


# ---- batch norm: statistics of each step ---------------------------------------------------------------------------------

class TestBatchNorm:
    def by_hand(self, kind, own, stats, x, training, lengths=None, longest=3):
        import torch
        def norm(p, which, t, live):
            weight, bias = own[f"norm_{which}_l0.weight"], own[f"norm_{which}_l0.bias"]
            mean, var = stats[f"norm_{which}_l0.running_mean"][min(t, longest - 1)], stats[f"norm_{which}_l0.running_var"][min(t, longest - 1)]
            if training:
                out = torch.zeros_like(p)
                out[live] = torch.nn.functional.batch_norm(p[live], mean, var, weight, bias, True, 0.1)
                return out
            return torch.nn.functional.batch_norm(p, mean, var, weight, bias, False)
        batch = x.shape[1]
        h = c = x.new_zeros(batch, 4)
        ys = []
        for t in range(x.shape[0]):
            live = torch.ones(batch, dtype=bool) if lengths is None else torch.tensor(lengths) > t
            p = norm(x[t] @ own["weight_ih_l0"].T, "ih", t, live) + own["bias_ih_l0"]
            q = norm(h @ own["weight_hh_l0"].T, "hh", t, live) + own["bias_hh_l0"]
            if kind == "LSTM":
                i, f, g, o = (p + q).chunk(4, -1)
                new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                new = o.sigmoid() * norm(new_c, "c", t, live).tanh()
                c = torch.where(live[:, None], new_c, c)
            elif kind == "RNN":
                new = (p + q).tanh()
            else:
                (pr, pz, pn), (qr, qz, qn) = p.chunk(3, -1), q.chunk(3, -1)
                r, z = (pr + qr).sigmoid(), (pz + qz).sigmoid()
                new = (1 - z) * (pn + r * qn).tanh() + z * h
            h = torch.where(live[:, None], new, h)
            ys.append(torch.where(live[:, None], new, torch.zeros(())))
        return [torch.stack(ys), h[None], *([c[None]] if kind == "LSTM" else [])]

    @pytest.mark.parametrize("lengths", [None, [5, 2, 4, 5]], ids=["whole", "lengths"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_values_gradients_and_statistics(self, torch, kind, lengths):
        ours = getattr(nn, kind)(3, 4, norm="batch", norm_max_length=3).double()
        data = values(5, 4, 3)
        own = {k: torch.tensor(p.numpy(force=True), requires_grad=True) for k, p in ours.named_parameters()}
        stats = {k: torch.tensor(p.numpy(force=True).copy()) for k, p in ours.named_buffers()}
        x, tx = mg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
        mine = flat(ours(x, lengths=lengths))
        compare(ours, own, mine, self.by_hand(kind, own, stats, tx, True, lengths), x, tx, 1e-8)
        for name, b in ours.named_buffers():
            near(b, stats[name], name)
        ours.eval()
        for a, b in zip(flat(ours(mg.tensor(data), lengths=lengths)), self.by_hand(kind, own, stats, tx, False, lengths), strict=True):
            near(a, b)

    def test_state_and_initial_values(self):
        layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, norm="batch", norm_max_length=7)
        state = layer.state_dict()
        assert state["norm_hh_l1_reverse.running_mean"].shape == (7, 16) and state["norm_c_l0.weight"].tolist() == [np.float32(0.1)] * 4
        y, _ = layer(mg.tensor(values(9, 5, 3).astype(np.float32)), lengths=[9, 3, 1, 8, 8])
        y.sum().backward()
        assert all(p.grad is not None for p in layer.parameters())

    def test_backward_direction_counts_from_the_end(self):
        """Turning a batch by hand and running forward is the backward direction."""
        layer = nn.GRU(3, 4, norm="batch", norm_max_length=5, bidirectional=True).double()
        one = nn.GRU(3, 4, norm="batch", norm_max_length=5).double()
        one.load_state_dict({k.replace("_reverse", ""): v for k, v in layer.state_dict().items() if "_reverse" in k})
        data, lengths = values(5, 3, 3), [3, 5, 4]
        turned = data.copy()
        for b, n in enumerate(lengths):
            turned[:n, b] = data[:n, b][::-1]
        y, ty = layer(mg.tensor(data), lengths=lengths)[0].numpy(force=True)[..., 4:], one(mg.tensor(turned), lengths=lengths)[0].numpy(force=True)
        for b, n in enumerate(lengths):
            np.testing.assert_allclose(y[:n, b], ty[:n, b][::-1], atol=1e-12)

    def test_cells(self):
        cell, layer = nn.LSTMCell(3, 4, norm="batch", norm_max_length=2), nn.LSTM(3, 4, norm="batch", norm_max_length=2)
        cell.load_state_dict({k.replace("_l0", ""): v for k, v in layer.state_dict().items()})
        x = mg.tensor(values(3, 6, 3).astype(np.float32))
        state = None
        for t in range(3):
            state = cell(x[t], state, step=t)
        near(state[0], layer(x)[0].numpy(force=True)[2], tolerance=1e-5)
        near(nn.Recurrent(cell.eval())(x)[0], layer.eval()(x)[0].numpy(force=True), tolerance=1e-5)


# ---- lengths, states, dropout, any cell ----------------------------------------------------------------------------------

@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_reaches_nothing(kind, norm):
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True, norm=norm)
    data, lengths, results = values(4, 3, 3).astype(np.float32), [2, 4, 1], []
    for fill in (0.0, np.nan, np.inf):
        for b, n in enumerate(lengths):
            data[n:, b] = fill
        x = mg.tensor(data, requires_grad=True)
        out = flat(layer(x, lengths=lengths))
        layer.zero_grad()
        total(out, [np.ones(t.shape, np.float32) for t in out], mg.tensor).backward()
        results.append([t.numpy(force=True).tobytes() for t in (*out, *[p.grad for p in layer.parameters()], x.grad)])
        assert not out[0].numpy(force=True)[2:, 0].any() and not x.grad.numpy()[1:, 2].any()
    assert results[0] == results[1] == results[2]


def test_lengths_may_be_anything_that_holds_whole_numbers():
    layer, x = nn.GRU(3, 4), mg.tensor(values(4, 2, 3).astype(np.float32))
    want = layer(x, lengths=[4, 2])[0].numpy(force=True)
    for lengths in ((4, 2), np.array([4, 2]), np.array([4, 2], np.int32), mg.tensor([4, 2]), mg.tensor([4, 2], dtype=mg.int32)):
        assert np.array_equal(layer(x, lengths=lengths)[0].numpy(force=True), want)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_return_states(kind, first):
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True, batch_first=first, return_states=True).double()
    data, lengths = values(5, 2, 3), [5, 3]
    x = mg.tensor(data.transpose(1, 0, 2) if first else data)
    y, state, every = layer(x, lengths=lengths)
    h = every.h.numpy(force=True).transpose(0, 2, 1, 3) if first else every.h.numpy(force=True)
    out = y.numpy(force=True).transpose(1, 0, 2) if first else y.numpy(force=True)
    assert h.shape == (4, 5, 2, 4) and np.array_equal(out, np.concatenate([h[2], h[3]], -1))
    assert len(layer(x, return_states=False)) == 2
    if kind == "LSTM":
        c = every.c.numpy(force=True)
        c = c.transpose(0, 2, 1, 3) if first else c
        near(state[1], np.stack([np.stack([c[k][(0 if k % 2 else n - 1), b] for b, n in enumerate(lengths)]) for k in range(4)]))
        assert not c[:, 3:, 1].any()
    else:
        assert every.c is None
    if kind == "RNN":
        assert every.gates is None
        return
    gates = every.gates.numpy(force=True)
    gates = gates.transpose(0, 2, 1, 3) if first else gates
    if kind == "LSTM":                      # c and h of the first layer follow from its gates
        i, f, g, o = np.split(gates[0][:, 0], 4, -1)
        cell = np.zeros(4)
        for t in range(5):
            cell = f[t] * cell + i[t] * g[t]
            np.testing.assert_allclose(o[t] * np.tanh(cell), h[0][t, 0], atol=1e-12)
    else:
        r, z, n = np.split(gates[0][:, 0], 3, -1)
        np.testing.assert_allclose((1 - z[1]) * n[1] + z[1] * h[0][0, 0], h[0][1, 0], atol=1e-12)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gradients_through_every_state(kind):
    """Gates and cells may be part of a loss; the kernels leave that to the definition."""
    layer, results = getattr(nn, kind)(3, 4, norm="layer").double(), []
    data = values(3, 2, 3)
    for path in ("auto", "off"):
        with set_fused(path):
            _, _, every = layer(mg.tensor(data), return_states=True)
            layer.zero_grad()
            loss = (every.gates * every.gates).sum() + (every.h ** 3).sum()
            (loss if every.c is None else loss + (every.c ** 2).sum()).backward()
            results.append([p.grad.numpy().copy() for p in layer.parameters()])
    for a, b in zip(*results, strict=True):
        near(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_learnt_initial_state(kind):
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True, learn_initial_state=True, norm="rms").double()
    names = [n for n, _ in layer.named_parameters() if n in ("h_0", "c_0")]
    assert names == (["h_0", "c_0"] if kind == "LSTM" else ["h_0"])
    start = [values(4, 4) for _ in names]
    with mg.no_grad():
        for name, s in zip(names, start, strict=True):
            getattr(layer, name).copy_(mg.tensor(s))
    x = mg.tensor(values(5, 3, 3))
    y, _ = layer(x, lengths=[5, 2, 3])
    given = [mg.tensor(np.repeat(s[:, None], 3, 1)) for s in start]
    near(y, layer(x, tuple(given) if kind == "LSTM" else given[0], lengths=[5, 2, 3])[0].numpy(force=True))
    y.sum().backward()
    assert all(getattr(layer, n).grad.numpy().all() for n in names)


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout_is_locked(kind, norm):
    """One mask for all steps, on h before W_hh only; the definition and the kernels agree under the same seed."""
    layer = getattr(nn, kind)(3, 4, recurrent_dropout=0.5, norm=norm, norm_max_length=4).double()
    x, results = mg.tensor(values(6, 5, 3)), []
    for path in ("auto", "off"):
        with set_fused(path):
            mg.manual_seed(3)
            layer.zero_grad()
            y, _ = layer(x)
            (y * y).sum().backward()
            results.append([y.numpy(force=True).copy(), *[p.grad.numpy().copy() for p in layer.parameters()]])
    for a, b in zip(*results, strict=True):
        near(a, b)
    plain = getattr(nn, kind)(3, 4, norm=norm, norm_max_length=4).double()
    plain.load_state_dict(layer.state_dict())
    assert np.array_equal(layer.eval()(x)[0].numpy(force=True), plain.eval()(x)[0].numpy(force=True))
    with mg.no_grad():                      # W_hh = the identity, no input: h' shows the mask, step after step
        ones = nn.RNN(1, 64, nonlinearity="relu", bias=False, recurrent_dropout=0.5)
        ones.weight_hh_l0.copy_(mg.eye(64))
        h = ones(mg.zeros(3, 2, 1), mg.ones(1, 2, 64))[0].numpy(force=True)
    assert set(np.unique(h[0])) == {0.0, 2.0} and np.array_equal(h[1], 2 * h[0]) and np.array_equal(h[2], 4 * h[0])


def test_dropout_between_layers():
    layer = nn.LSTM(3, 4, 2, dropout=1.0)
    y, (h, _) = layer(mg.tensor(values(3, 2, 3).astype(np.float32)))
    with mg.no_grad():
        layer.weight_ih_l1.fill_(1e9)       # what dropout=1 lets through of the first layer is 0
    near(layer(mg.tensor(values(3, 2, 3).astype(np.float32)))[0], y.numpy(force=True))
    with pytest.warns(UserWarning, match="num_layers"):
        nn.LSTM(3, 4, dropout=0.5)


@pytest.mark.parametrize("norm", [None, "layer", "rms", "batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_is_the_layer(kind, norm):
    cell = getattr(nn, kind + "Cell")(3, 4, norm=norm, norm_max_length=4)
    driver = nn.Recurrent(cell, num_layers=2, bidirectional=True, batch_first=True).double()
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True, batch_first=True, norm=norm, norm_max_length=4).double()
    state = {}
    for i, suffix in enumerate(("_l0", "_l0_reverse", "_l1", "_l1_reverse")):
        for k, v in driver.cells[i].state_dict().items():
            head, _, tail = k.partition(".")
            state[head + suffix + ("." + tail if tail else "")] = v
    layer.load_state_dict(state)
    data = values(3, 5, 3)
    for arguments in ({}, {"lengths": [2, 5, 3]}, {"hx": [mg.tensor(values(4, 3, 4)) for _ in range(2 if kind == "LSTM" else 1)]}):
        if "hx" in arguments and kind != "LSTM":
            arguments = {"hx": arguments["hx"][0]}
        elif "hx" in arguments:
            arguments = {"hx": tuple(arguments["hx"])}
        x, tx = mg.tensor(data, requires_grad=True), mg.tensor(data, requires_grad=True)
        mine, others = flat(driver(x, **arguments)), flat(layer(tx, **arguments))
        weights = [values(*t.shape) for t in others]
        for a, b in zip(mine, others, strict=True):
            near(a, b.numpy(force=True), tolerance=1e-8)
        total(mine, weights, mg.tensor).backward()
        total(others, weights, mg.tensor).backward()
        near(x.grad, tx.grad.numpy(), tolerance=1e-8)
    packed = pads.pack_padded_sequence(mg.tensor(data), [2, 5, 3], True, enforce_sorted=False)
    near(driver.eval()(packed)[0].data, layer.eval()(packed)[0].data.numpy(force=True), tolerance=1e-8)


def test_recurrent_takes_any_cell():
    class Leaky(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.inner = nn.Linear(size, 4)

        def forward(self, x, h):
            now = mg.tanh(self.inner(x))
            return now if h is None else 0.9 * h + 0.1 * now
    driver = nn.Recurrent(lambda layer, direction: Leaky(8 if layer else 3), num_layers=2, bidirectional=True)
    x = mg.tensor(values(5, 3, 3).astype(np.float32))
    y, h = driver(x, lengths=[5, 1, 3])
    assert y.shape == (5, 3, 8) and h.shape == (4, 3, 4) and not y[1:, 1].numpy(force=True).any()
    near(h[3], y.numpy(force=True)[0, :, 4:])
    y.sum().backward()
    assert all(p.grad is not None for p in driver.parameters())
    nn.Recurrent(Leaky(3))(x)
    with pytest.raises(TypeError, match="list of 2 cells"):
        nn.Recurrent(Leaky(3), num_layers=2)
    with pytest.raises(ValueError, match="one cell"):
        nn.Recurrent([Leaky(3)], num_layers=2)


def test_reset_before(torch):
    """GRU of Cho et al. 2014, version 1, against a loop."""
    layer = nn.GRU(3, 4, reset_after=False).double()
    w_ih, w_hh, b_ih, b_hh = [torch.tensor(p.numpy(force=True), requires_grad=True) for p in layer.parameters()]
    data = values(4, 2, 3)
    x, tx = mg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    h, ys = torch.zeros(2, 4, dtype=torch.float64), []
    for t in range(4):
        p, q = tx[t] @ w_ih.T + b_ih, h @ w_hh[:8].T + b_hh[:8]
        r, z = (p[:, :4] + q[:, :4]).sigmoid(), (p[:, 4:8] + q[:, 4:]).sigmoid()
        h = (1 - z) * (p[:, 8:] + (r * h) @ w_hh[8:].T + b_hh[8:]).tanh() + z * h
        ys.append(h)
    compare(layer, dict(zip([n for n, _ in layer.named_parameters()], (w_ih, w_hh, b_ih, b_hh), strict=True)), flat(layer(x)),
            [torch.stack(ys), h[None]], x, tx)
    with pytest.raises(ValueError, match="reset_after"):
        nn.GRU(3, 4, reset_after=False, norm="layer")


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"norm": "rms", "recurrent_dropout": 0.4}, {"proj_size": 3}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_of_many_rows(kind, options, lengths):
    """More than the kernels take together (about 256 rows), with a remainder, both directions: as the definition."""
    if "proj_size" in options and kind != "LSTM":
        pytest.skip("projection is LSTM's")
    layer, results = getattr(nn, kind)(3, 5, bidirectional=True, **options).double(), []
    data, valid = values(9, 60, 3), RNG.integers(1, 10, 60)
    start = [values(2, 60, options.get("proj_size", 5)), values(2, 60, 5)][:2 if kind == "LSTM" else 1]
    for path in ("auto", "off"):
        with set_fused(path):
            mg.manual_seed(0)
            layer.zero_grad()
            x, hx = mg.tensor(data, requires_grad=True), [mg.tensor(s, requires_grad=True) for s in start]
            out = flat(layer(x, tuple(hx) if kind == "LSTM" else hx[0], lengths=valid if lengths else None))
            total(out, [np.cos(np.arange(t.numel())).reshape(t.shape) for t in out], mg.tensor).backward()
            results.append([t.numpy(force=True).copy() for t in (*out, x.grad, *[h.grad for h in hx], *[p.grad for p in layer.parameters()])])
    for a, b in zip(*results, strict=True):
        near(a, b, tolerance=1e-10)


# ---- same bits ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("kind", KINDS)
def test_bits(kind, norm):
    """1 and 2 threads give the same bits; a row's result and its input's gradient do not depend on the other rows."""
    layer = getattr(nn, kind)(20, 65, norm=norm, bidirectional=True)
    data, before = values(6, 70, 20).astype(np.float32), get_num_threads()

    def run(rows):
        layer.zero_grad()
        x = mg.tensor(np.ascontiguousarray(data[:, rows]), requires_grad=True)
        y, _ = layer(x)
        (y * y).sum().backward()
        return [y.numpy(force=True), x.grad.numpy()], [p.grad.numpy().copy() for p in layer.parameters()]
    try:
        mg.set_num_threads(1)
        one = run(slice(None))
        mg.set_num_threads(2)
        two = run(slice(None))
    finally:
        mg.set_num_threads(before)
    assert [a.tobytes() for a in (*one[0], *one[1])] == [a.tobytes() for a in (*two[0], *two[1])]
    some, _ = run([3, 69, 40])
    for a, b in zip(one[0], some, strict=True):
        assert np.array_equal(a[:, [3, 69, 40]], b)


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"norm": "rms", "bidirectional": True, "num_layers": 2, "dropout": 0.2},
                                     {"norm": "batch", "norm_max_length": 2}, {"recurrent_dropout": 0.3, "learn_initial_state": True}, {"proj_size": 5}],
                         ids=str)
@pytest.mark.parametrize("lengths", [None, [7, 2, 4, 5], "tensor"])
def test_captured_training_is_eager_training(options, lengths):
    runs, steps = [], 3 if "norm_max_length" in options else 7     # batch norm has launches for each step: recording takes its time
    data = [values(steps, 4, 6).astype(np.float32) for _ in range(4)]
    lengths = [min(n, steps) for n in lengths] if isinstance(lengths, list) else lengths
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        layer = nn.LSTM(6, 9, **options)
        head = nn.Linear((options.get("proj_size") or 9) * (2 if "bidirectional" in options else 1), 3)
        optimizer = optim.Adam([*layer.parameters(), *head.parameters()], lr=0.01)

        def step(x, target, valid, layer=layer, head=head, optimizer=optimizer):
            optimizer.zero_grad()
            y, _ = layer(x, lengths=valid if lengths == "tensor" else lengths)
            loss = F.cross_entropy(head(y.mean(0)), target)
            loss.backward()
            optimizer.step()
            return loss
        step, losses = wrap(step), []
        for i in range(20):
            losses.append(step(mg.tensor(data[i % 4]), mg.tensor([0, 2, 1, i % 3]), mg.tensor([steps, 1 + i % steps, 3, 2])).item())
            junk = [mg.ones(steps, 4, 36) * i, mg.ones(4, 9) * i]       # others use the pool meanwhile
        runs.append((losses, [t.numpy(force=True).tobytes() for t in (*layer.state_dict().values(), *head.state_dict().values())]))
        del junk
    assert runs[0] == runs[1]
    assert runs[0][0][-1] < runs[0][0][0]


def test_third_derivative():
    """Where torch's layer_norm is silently wrong: a scalar normalised cell, by central differences of the second derivative."""
    op = registry["lstm_sequence"]
    from minigrad.testing import directional_error, samples_of
    arguments, attributes = next(s for s in samples_of(op) if s[1].get("norm") == "layer" and not s[1].get("reverse"))
    error, allowed = directional_error(op, arguments, attributes, 3)
    assert error <= 10 * allowed


# ---- packing ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("first", [False, True])
def test_packing_is_torchs(torch, first):
    tt = torch.nn.utils.rnn
    for shape, dtype in (((5, 3), np.int64), ((5, 3, 2), np.float64), ((5, 3, 2, 2), np.float32)):
        data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        data = np.ascontiguousarray(data.swapaxes(0, 1)) if first else data
        for lengths, ordered in (([5, 3, 1], True), ([2, 4, 3], False), ([4, 4, 4], True), ([5, 1, 5], False)):
            mine = pads.pack_padded_sequence(mg.tensor(data), lengths, first, ordered)
            other = tt.pack_padded_sequence(torch.tensor(data), lengths, first, ordered)
            assert np.array_equal(mine.data.numpy(force=True), other.data.numpy()) or lengths == [5, 1, 5]
            assert mine.batch_sizes.tolist() == other.batch_sizes.tolist() and mine.data.dtype == dtype
            for total_length, value in ((None, 0), (7, -1)):
                a, n = pads.pad_packed_sequence(mine, first, value, total_length)
                b, m = tt.pad_packed_sequence(other, first, value, total_length)
                assert np.array_equal(a.numpy(force=True), b.numpy()) and n.tolist() == m.tolist()
    sequences = [np.arange(n, dtype=np.float32) for n in (2, 4, 1)]
    ours, theirs = [mg.tensor(s) for s in sequences], [torch.tensor(s) for s in sequences]
    for side in ("right", "left"):
        assert np.array_equal(pads.pad_sequence(ours, first, -1.0, side).numpy(), tt.pad_sequence(theirs, first, -1.0, side).numpy())
    packed, other = pads.pack_sequence(ours, enforce_sorted=False), tt.pack_sequence(theirs, enforce_sorted=False)
    assert packed.data.tolist() == other.data.tolist() and packed.sorted_indices.tolist() == other.sorted_indices.tolist()
    assert packed.unsorted_indices.tolist() == other.unsorted_indices.tolist()
    assert [t.tolist() for t in pads.unpack_sequence(packed)] == [s.tolist() for s in sequences]
    assert [t.tolist() for t in pads.unpad_sequence(pads.pad_sequence(ours, first), [2, 4, 1], first)] == [s.tolist() for s in sequences]
    assert packed.double().data.dtype == np.float64 and packed.double().sorted_indices is not None and packed.to(mg.float32) is packed
    x = mg.tensor(values(4, 2, 3), requires_grad=True)
    (pads.pad_packed_sequence(pads.pack_padded_sequence(x, [4, 2]))[0] ** 2).sum().backward()
    near(x.grad[:2], 2 * x.numpy(force=True)[:2])
    assert not x.grad.numpy()[2:, 1].any()


# ---- what is refused ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [
    lambda: pads.pack_padded_sequence(mg.ones(3, 2), [4, 1]), lambda: pads.pack_padded_sequence(mg.ones(3, 2), [3, 0]),
    lambda: pads.pack_padded_sequence(mg.ones(3, 2), [3, -1]), lambda: pads.pack_padded_sequence(mg.ones(3, 2), [1, 3]),
    lambda: pads.pack_padded_sequence(mg.ones(3, 2), [3]), lambda: pads.pack_padded_sequence(mg.ones(3), [3]),
    lambda: pads.pack_padded_sequence(mg.ones(0, 2), [1, 1]), lambda: pads.pad_sequence(3), lambda: pads.pad_sequence([]),
    lambda: pads.pad_sequence([mg.ones(2, 3), mg.ones(2, 2)]), lambda: pads.pad_sequence([mg.ones(2)], padding_side="top"),
    lambda: pads.pad_packed_sequence(pads.PackedSequence(mg.ones(5), mg.tensor([2, 3]))),
    lambda: pads.pad_packed_sequence(pads.PackedSequence(mg.ones(5), mg.tensor([3, 3]))),
    lambda: pads.pad_packed_sequence(pads.PackedSequence(mg.ones(5), mg.tensor([5, -1, 1]))),
    lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), lengths=[5, 1]), lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), lengths=[0, 1]),
    lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), lengths=[4]), lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), lengths=mg.tensor([4, 5])),
    lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), lengths=[1.5, 2.0]), lambda: nn.GRU(2, 3)(mg.ones(4, 2, 5)), lambda: nn.GRU(2, 3)(mg.ones(0, 2, 2)),
    lambda: nn.GRU(2, 3)(mg.ones(4, 2, 2), mg.ones(1, 3, 3)), lambda: nn.GRU(2, 3)(mg.ones(4, 2, 2), mg.ones(2, 2, 3)),
    lambda: nn.GRU(2, 3)(mg.ones(4, 2, 2), mg.ones(2, 3)), lambda: nn.GRU(2, 3)(mg.ones(4, 2), mg.ones(1, 1, 3)),
    lambda: nn.LSTM(2, 3)(mg.ones(4, 2, 2), (mg.ones(1, 2, 3), mg.ones(1, 2, 4))),
    lambda: nn.GRUCell(2, 3)(mg.ones(4, 3)), lambda: nn.GRUCell(2, 3)(mg.ones(4, 2), mg.ones(4, 4)), lambda: nn.GRUCell(2, 3)(mg.ones(4, 2), mg.ones(2, 3)),
    lambda: nn.LSTM(2, 3)(pads.pack_sequence([mg.ones(3, 2)]), lengths=[3])])
def test_refused_as_runtime_error(wrong):
    with pytest.raises(RuntimeError, match=r"^\[.*; "):
        wrong()


@pytest.mark.parametrize("wrong", [
    lambda: nn.LSTM(2, 3, norm="group"), lambda: nn.LSTMCell(2, 3, norm="instance"), lambda: nn.LSTM(2, 3, norm="batch"),
    lambda: nn.GRU(2, 3, norm="layer", norm_eps=0.0), lambda: nn.RNN(2, 3, nonlinearity="sin"), lambda: nn.RNNCell(2, 3, nonlinearity="sin"),
    lambda: nn.GRU(2, 3, forget_bias=1.0), lambda: nn.LSTM(2, 3, bias=False, forget_bias=1.0), lambda: nn.LSTM(2, 3, proj_size=3),
    lambda: nn.GRU(2, 3, proj_size=1), lambda: nn.LSTM(2, 3, dropout=1.5), lambda: nn.LSTM(2, 3, recurrent_dropout=-1), lambda: nn.LSTM(0, 3),
    lambda: nn.LSTM(2, 3)(mg.ones(2)), lambda: nn.LSTM(2, 3)(mg.ones(2, 2, 2, 2)), lambda: nn.LSTM(2, 3)(mg.ones(3, 2, 2, dtype=mg.float64)),
    lambda: nn.LSTM(2, 3, num_layers=0), lambda: nn.RNNCell(2, 3)(mg.ones(2, 2, 2)),
    lambda: pads.pad_packed_sequence(pads.pack_sequence([mg.ones(3)]), total_length=2)])
def test_refused_as_value_error(wrong):
    with pytest.raises(ValueError, match=r"^\["):
        wrong()


@pytest.mark.parametrize("wrong", [
    lambda: nn.LSTM(2.0, 3), lambda: nn.LSTM(2, 3, bias=1), lambda: nn.LSTM(2, 3)(np.ones((3, 2, 2))), lambda: nn.LSTM(2, 3)(mg.ones(3, 2, 2), mg.ones(1, 2, 3)),
    lambda: nn.LSTM(2, 3)(mg.ones(3, 2, 2), (1, 2)), lambda: nn.LSTMCell(2, 3)(mg.ones(2, 2), mg.ones(2, 3)), lambda: nn.GRUCell(2, 3)(None)])
def test_refused_as_type_error(wrong):
    with pytest.raises(TypeError, match=r"^\["):
        wrong()


def test_flatten_parameters_is_there():
    layer = nn.LSTM(2, 3, 2)
    layer.flatten_parameters()
    assert [len(w) for w in layer.all_weights] == [4, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.LSTM(2, 3, 2, dropout=0.1)


def test_batch_sizes_cannot_be_an_argument_of_a_captured_function():
    """They decide shapes: a replay with others of the same sum would be wrong without a word. Packed inside, they are fixed."""
    layer, x, data = nn.GRU(3, 4), values(3, 3, 3), values(6, 3)
    layer.double()
    step = mg.capture(lambda data, sizes: layer(pads.PackedSequence(data, sizes))[0].data)
    with pytest.raises(RuntimeError, match="batch_sizes reads a value while recording"):
        step(mg.tensor(data), mg.tensor([3, 2, 1]))
    packs = mg.capture(lambda x: layer(pads.pack_padded_sequence(x, [3, 2, 1]))[0].data)
    for scale in (1.0, 2.0):
        given = mg.tensor(x * scale)
        assert packs(given).tolist() == layer(pads.pack_padded_sequence(given, [3, 2, 1]))[0].data.tolist()


def test_a_captured_step_refuses_wrong_lengths_at_replay():
    lstm = nn.LSTM(3, 4, norm="layer")
    step = mg.capture(lambda x, lengths: lstm(x, lengths=lengths)[0])
    x = mg.randn(5, 2, 3)
    step(x, mg.tensor([5, 1]))
    for wrong in ([6, 1], [5, 0], [-1, 2]):
        with pytest.raises(ValueError, match="lengths must lie between 1 and the number of steps 5"):
            step(x, mg.tensor(wrong))
    np.testing.assert_array_equal(step(x, mg.tensor([2, 3])).numpy(), lstm(x, lengths=mg.tensor([2, 3]))[0].numpy(force=True))


def test_recurrent_and_cells_refuse_states_and_masks_of_another_shape():
    x = mg.randn(5, 2, 3)
    for cell, hx in ((nn.GRUCell(3, 4), mg.randn(3, 2, 4)), (nn.LSTMCell(3, 4), (mg.randn(1, 3, 4), mg.randn(1, 3, 4)))):
        with pytest.raises(RuntimeError, match=r"each state of hx must be \(layers \* directions = 1, batch = 2, size\)"):
            nn.Recurrent(cell)(x, hx)
    cell = nn.GRUCell(1, 4, norm="batch", norm_max_length=1)
    with pytest.raises(RuntimeError, match=r"live must be a bool tensor \(batch, 1\)"):
        cell(mg.randn(12, 1), live=mg.tensor([True] * 12))
    with pytest.raises(ValueError, match="step must be"):
        cell(mg.randn(12, 1), step=-1)


def test_a_packed_sequence_has_one_signature():
    captured = mg.capture(lambda pair: pair[0] + pair[1])
    Pair = collections.namedtuple("Pair", "a b")
    for _ in range(3):
        x = mg.randn(3)
        np.testing.assert_array_equal(captured(Pair(x, x)).numpy(), (x + x).numpy())
    assert len(captured.programs) == 1


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"norm": "batch", "norm_max_length": 2}, {"bias": False}])
def test_cells_without_units_or_inputs(kind, options):
    for inputs, hidden, batch in ((3, 0, 2), (0, 4, 2), (0, 0, 2)):
        cell, x = kind(inputs, hidden, **options), mg.ones(batch, inputs, requires_grad=True)
        out = cell(x)
        h = out[0] if kind is nn.LSTMCell else out
        assert h.shape == (batch, hidden)
        h.sum().backward()
        assert x.grad.shape == x.shape and not x.grad.any() or hidden
        assert cell.weight_hh.grad.shape[1] == hidden
    with pytest.raises(ValueError, match="hidden_size must not be negative; got -1"):
        kind(3, -1)
    for layer in (nn.RNN, nn.LSTM, nn.GRU):
        with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
            layer(3, 0)
