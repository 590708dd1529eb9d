"""How many launches a training step makes: kernels and calls of cuBLAS, which a GPU takes a microsecond or more for, each."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.usefixtures("gpu"), pytest.mark.skipif(REAL, reason="the stand-in counts")]


def cnn():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(64, 10))


class Reader(nn.Module):
    """The last hidden state of a recurrent layer, classified."""

    def __init__(self, layer, **options):
        super().__init__()
        self.rnn, self.out = layer(8, 32, batch_first=True, **options), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Block(nn.Module):
    """Pre-norm, 4 heads of 8, causal."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.qkv, self.merge = nn.LayerNorm(32), nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))

    def forward(self, x):
        heads = [t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1)]
        x = x + self.merge(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A language model of 50 characters."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.blocks, self.norm, self.head = nn.Sequential(Block(), Block()), nn.LayerNorm(32), nn.Linear(32, 50)

    def forward(self, tokens):
        places = self.places(mg.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(self.tokens(tokens) + places))).flatten(0, 1)


def reals(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def labels(classes, *shape):
    return np.random.default_rng(1).integers(0, classes, shape)


# model, its input, its labels, the most launches of a step, the most nodes of its graph
STEPS = {
    "CNN with batch norm": (cnn, reals(8, 1, 8, 8), labels(10, 8), 45, 45),
    "LSTM, 16 steps": (lambda: Reader(nn.LSTM), reals(8, 16, 8), labels(10, 8), 30, 30),
    "LSTM with layer norm, 16 steps": (lambda: Reader(nn.LSTM, norm="layer"), reals(8, 16, 8), labels(10, 8), 32, 32),
    "GRU, 16 steps": (lambda: Reader(nn.GRU), reals(8, 16, 8), labels(10, 8), 28, 28),
    "transformer of 2 blocks": (Transformer, labels(50, 4, 16), labels(50, 64), 120, 120),
}


@pytest.mark.parametrize("name", STEPS)
def test_launches_of_a_training_step(name, monkeypatch):
    make, x, y, most, most_nodes = STEPS[name]
    model = make().to("cuda")
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x, y = mg.tensor(x, device="cuda"), mg.tensor(y, device="cuda")
    launches, record = [], fakecupy.record
    monkeypatch.setattr(fakecupy, "record", lambda call, *stream: (launches.append(call), record(call, *stream)))

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    for _ in range(2):
        launches.clear()
        step(x, y)
    made = len(launches)
    captured = mg.capture(step)
    captured(x, y)
    [program], = captured.programs.values()
    [nodes] = [len(s.run.graph._ops) for s in program.segments]         # one graph: nothing of a step is left to Python
    print(f"{name}: {made} launches, {nodes} nodes")
    assert made <= most and nodes <= most_nodes, (made, nodes)


# layer, how it is told what is valid, the most launches forward and backward; by the definition, they were 31 and 22
LENGTHS, PLACES = {"lengths": mg.tensor([9, 2, 4, 7])}, {"mask": mg.tensor(reals(4, 6, 9) > 0)}
MASKED = {
    "batch": (lambda: nn.BatchNorm1d(6), LENGTHS, 7, 2),            # with the counter, the running mean and variance
    "group": (lambda: nn.GroupNorm(2, 6), LENGTHS, 4, 3),
    "instance": (lambda: nn.InstanceNorm1d(6, affine=True), LENGTHS, 4, 2),
    "layer": (lambda: nn.LayerNorm((6, 9)), PLACES, 1, 2),
    "rms": (lambda: nn.RMSNorm((6, 9)), PLACES, 1, 2),
}


@pytest.mark.parametrize("dtype", [mg.float32, mg.float16], ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_launches_of_a_masked_norm(name, dtype, monkeypatch):
    """Forward: two for the mask of lengths, its copy in the shape of x, the norm. Backward: for x, for the parameters; group norm
    copies the gradient of its view of a leaf."""
    make, how, *most = MASKED[name]
    layer, how = make().to("cuda").to(dtype), {k: v.to("cuda") for k, v in how.items()}
    x = mg.tensor(reals(4, 6, 9), device="cuda").to(dtype).requires_grad_()
    launches, record, made = [], fakecupy.record, []
    monkeypatch.setattr(fakecupy, "record", lambda call, *stream: (launches.append(call), record(call, *stream)))
    for run in (lambda: layer(x, **how), lambda: y.backward(g)):
        for p in layer.parameters():
            p.grad = None
        x.grad = None
        launches.clear()
        y = run()
        made.append(len(launches))
        g = mg.ones_like(x) if y is not None else None
    print(f"{name}: {made}")
    assert all(a <= b for a, b in zip(made, most, strict=True)), (made, launches)


@pytest.mark.parametrize("dtype", [mg.float32, mg.float64, mg.float16, mg.bfloat16], ids=str)
def test_launches_of_clipping(dtype, monkeypatch):
    """Three for the norm of all gradients and their scaling, one for limits; eager and in a graph, with the CPU's values."""
    launches, record, made = [], fakecupy.record, []
    monkeypatch.setattr(fakecupy, "record", lambda call, *stream: (launches.append(call), record(call, *stream)))
    for wrap, device in ((lambda f: f, "cpu"), (lambda f: f, "cuda"), (mg.capture, "cuda")):
        leaves = [mg.zeros(*shape, dtype=dtype, device=device, requires_grad=True) for shape in ((3, 5), (2100,), (0,), (1,))]
        for p in leaves:
            p.grad = mg.tensor(reals(*p.shape), device=device).to(dtype) * 3
        steps = [wrap(step) for step in (lambda of=leaves: nn.utils.clip_grad_norm_(of, 7.0), lambda of=leaves: nn.utils.clip_grad_value_(of, 0.1))]
        for step, most in zip(steps, (3, 1), strict=True):
            launches.clear()
            made.append(step())
            if wrap is mg.capture:
                [program], = step.programs.values()
                assert [len(s.run.graph._ops) for s in program.segments] == [most]
            assert device == "cpu" or wrap is mg.capture or len(launches) == most
            made[-1:] = [t.detach().float().cpu().numpy().copy() for t in (*made[-1:], *[p.grad for p in leaves]) if t is not None]
    third = len(made) // 3
    for want, eager, captured in zip(made[:third], made[third:2 * third], made[2 * third:], strict=True):
        np.testing.assert_array_equal(eager, captured)
        np.testing.assert_allclose(eager, want, rtol=1e-6 if dtype.itemsize > 2 else 8e-3)
    assert made[0].item() > 20 and abs(made[1]).max() < 1


def counted(monkeypatch, function):
    """What it gives, and how many launches it makes."""
    launches, record = [], fakecupy.record
    monkeypatch.setattr(fakecupy, "record", lambda call, *stream: (launches.append(call), record(call, *stream)))
    made = function()
    monkeypatch.setattr(fakecupy, "record", record)
    return made, len(launches)


@pytest.mark.parametrize("dtype", [mg.float32, mg.float16], ids=str)
def test_launches_of_a_total_norm(dtype, monkeypatch):
    tensors = [(mg.tensor(reals(*shape), device="cuda") * 20).to(dtype) for shape in ((3, 5), (2100,), (0,), (1,))]
    total, launches = counted(monkeypatch, lambda: nn.utils.get_total_norm(tensors))
    want = sum(float((t.double() ** 2).sum().item()) for t in tensors) ** 0.5
    assert launches <= 4 + (dtype == mg.float16) and total.dtype == dtype and abs(total.item() - want) < 1e-3 * want


def test_launches_of_labels_picked(monkeypatch):
    """Of log-probabilities: nll_loss without weights takes no product with ones."""
    x, y = mg.tensor(reals(8, 5), device="cuda").requires_grad_(), mg.tensor(labels(5, 8), device="cuda")
    loss, forward = counted(monkeypatch, lambda: F.nll_loss(x, y))
    _, backward = counted(monkeypatch, loss.backward)
    assert (forward, backward) <= (12, 6), (forward, backward)
    assert abs(loss.item() + float(np.mean([x[i, int(k)].item() for i, k in enumerate(y.tolist())]))) < 1e-6
