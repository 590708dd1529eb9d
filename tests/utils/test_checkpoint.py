"""Checkpointing: the plain call's values, gradients, random numbers and running statistics, bit for bit."""
from __future__ import annotations

import gc
import weakref
from collections import namedtuple
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

import minigrad as mg
import minigrad.utils.checkpoint
from minigrad import autograd, nn, optim
from minigrad.core.modes import mode
from minigrad.nn import functional as F

checkpoint = partial(mg.utils.checkpoint.checkpoint, use_reentrant=False)
checkpoint_sequential = partial(mg.utils.checkpoint.checkpoint_sequential, use_reentrant=False)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 12)).astype(np.float32)
T = RNG.integers(0, 5, 16)


def block(norm=nn.BatchNorm1d):
    return nn.Sequential(nn.Linear(12, 20), norm(20), nn.ReLU(), nn.Dropout(0.4), nn.Linear(20, 12), nn.Tanh())


def bits(*tensors):
    return [None if t is None else t.numpy(force=True).tobytes() for t in tensors]


def run(how, steps=3, momentum=0.1):
    """Training steps of two blocks and a head, with `how(block, x)` for a block's call: all that can be compared."""
    mg.manual_seed(1)
    a, b, head = block(), block(nn.LayerNorm), nn.Linear(12, 5)
    a[1].momentum = momentum
    parameters = [*a.parameters(), *b.parameters(), *head.parameters()]
    optimizer = optim.SGD(parameters, lr=0.1)
    x = mg.tensor(X, requires_grad=True)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        x.grad = None
        h = how(a, x)
        loss = F.cross_entropy(head(how(b, h) + h), mg.tensor(T))
        loss.backward()
        optimizer.step()
        seen.append(bits(loss, x.grad, *[p.grad for p in parameters], *parameters, *a.buffers(), mg.get_rng_state(), mg.rand(3)))
    assert a[1].num_batches_tracked.item() == steps
    return seen


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("reentrant", [True, False, None])
def test_bit_identical_to_the_plain_call(reentrant, momentum):
    plain = run(lambda f, x: f(x), momentum=momentum)
    with pytest.warns(UserWarning, match="use_reentrant") if reentrant is None else nullcontext():
        assert run(lambda f, x: checkpoint(f, x, use_reentrant=reentrant), momentum=momentum) == plain
    assert run(lambda f, x: checkpoint_sequential(f, 3, x, use_reentrant=False), momentum=momentum) == plain
    assert run(lambda f, x: checkpoint(lambda y: checkpoint_sequential(f, 2, y), x), momentum=momentum) == plain        # nested


def test_without_preserved_state_the_mask_differs():
    x = mg.ones(1000, requires_grad=True)
    mg.manual_seed(0)
    y = checkpoint(F.dropout, x, preserve_rng_state=False)
    y.sum().backward()
    assert bits(y) != bits(x.grad)
    x.grad = None
    y = checkpoint(F.dropout, x)
    drawn = mg.rand(2)
    y.sum().backward()
    assert bits(y) == bits(x.grad) and bits(drawn) != bits(mg.rand(2))


def test_running_statistics_move_once_for_every_layer_that_has_them():
    for layer, shape in ((nn.BatchNorm1d(3), (4, 3)), (nn.BatchNorm2d(3), (2, 3, 4, 4)), (nn.InstanceNorm1d(3, track_running_stats=True), (2, 3, 6))):
        x = mg.tensor(RNG.standard_normal(shape).astype(np.float32), requires_grad=True)
        other = type(layer)(3, track_running_stats=True)
        other(x)
        y = checkpoint(layer, x)
        middle = bits(*layer.buffers())
        (y * y).sum().backward()
        assert bits(*layer.buffers()) == middle == bits(*other.buffers())
    layer(x)                                            # the flag is gone
    assert bits(*layer.buffers()) != middle


def test_gradients_of_any_order():
    w = mg.tensor(RNG.standard_normal((3, 3)), requires_grad=True)
    x = mg.tensor(RNG.standard_normal((2, 3)), requires_grad=True)
    early = x.sin()

    def f(a, b, scale):
        return (a @ w).tanh() * b * scale + early, a.exp()      # a parameter and an earlier node come in past the arguments

    def whole(how):
        one, two = how(f, x, x.cos(), scale=2.0)
        g, = autograd.grad((one * one).sum() + two.sum(), x, create_graph=True)
        h, = autograd.grad((g * g).sum(), x, create_graph=True)
        third = autograd.grad((h * h).sum(), [x, w], retain_graph=True)
        return [t.numpy(force=True) for t in (one, two, g, h, *third)]
    for plain, got in zip(whole(lambda f, *a, **k: f(*a, **k)), whole(checkpoint), strict=True):
        np.testing.assert_allclose(got, plain, rtol=1e-12, atol=1e-12)
    assert autograd.gradcheck(lambda a: checkpoint(lambda t: (t @ w).tanh() * t, a), x)
    assert autograd.gradgradcheck(lambda a: checkpoint(lambda t: (t @ w).tanh() * t, a), x)


def test_against_torch(torch):
    from torch.utils import checkpoint as theirs
    results = []
    for run_block, tensor in ((checkpoint, mg.tensor), (lambda f, *a, **k: theirs.checkpoint(f, *a, use_reentrant=False, **k), torch.tensor)):
        x, w = tensor(X.astype(np.float64), requires_grad=True), tensor(np.linspace(-1, 1, 144).reshape(12, 12), requires_grad=True)
        out = run_block(lambda a, k, w=w: {"y": [(a @ w).tanh() * k], "n": 3}, x, k=2.0)
        assert out["n"] == 3
        (out["y"][0] ** 2).sum().backward()
        results.append([t.detach().numpy() for t in (out["y"][0], x.grad, w.grad)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_one_target_behind_another():
    x = mg.tensor([2.0], requires_grad=True)
    y = x * 3
    z = checkpoint(lambda a, b: a * b, x, y)            # y was computed from x
    z.sum().backward(inputs=[x])
    assert x.grad.tolist() == [12.0]


def test_outputs_that_pass_through_or_take_no_gradient():
    Pair = namedtuple("Pair", "a b")
    x = mg.tensor([3.0, 4.0], requires_grad=True)
    same, pair, count = checkpoint(lambda t: (t, Pair(t * 2, t.detach()), t > 3), x)
    assert isinstance(pair, Pair) and not pair.b.requires_grad and count.tolist() == [False, True] and not count.requires_grad
    (same + pair.a).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    plain = mg.ones(2)
    assert checkpoint(lambda t: t, plain) is plain      # nothing takes a gradient
    with mg.no_grad():
        assert not checkpoint(lambda t: t * 2, x).requires_grad


def test_hooks_run_once():
    w, x = mg.tensor([2.0], requires_grad=True), mg.tensor([3.0], requires_grad=True)
    seen, inner = [], []
    h = x * 5
    for t in (w, x, h):
        t.register_hook(seen.append)
    h.retain_grad()

    def f(a):
        b = a * w
        b.register_hook(inner.append)
        return b * w
    checkpoint(f, h).sum().backward()
    assert sorted(g.item() for g in seen) == [4.0, 20.0, 60.0]
    assert h.grad.tolist() == [4.0] and [g.tolist() for g in inner] == [[2.0]]


def test_activations_are_not_kept():
    kept = []

    def f(a):
        b = a.exp()
        kept.append(weakref.ref(b.node))
        return b.sin().sum()
    x = mg.ones(10, requires_grad=True)
    gc.disable()
    try:
        y = checkpoint(f, x)
        assert kept[0]() is None
        node = weakref.ref(y.node)
        y.backward()
        assert len(kept) == 2 and kept[1]() is None
        del y
        assert node() is None
    finally:
        gc.enable()


def test_capture():
    runs = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(3)
        model, head = block(), nn.Linear(12, 5)
        optimizer = optim.Adam([*model.parameters(), *head.parameters()], lr=0.01)

        def step(x, t, model=model, head=head, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(head(checkpoint(model, x)), t)
            loss.backward()
            optimizer.step()
            return loss
        step = wrap(step)
        losses = [step(mg.tensor(X), mg.tensor(T)).item() for _ in range(8)]
        runs.append((losses, bits(*model.state_dict().values(), *head.parameters(), mg.rand(2))))
    assert runs[0] == runs[1] and model[1].num_batches_tracked.item() == 8


def test_errors():
    x = mg.ones(3, requires_grad=True)
    w = mg.ones(3, requires_grad=True)
    y = checkpoint(lambda t: t * w, x)
    with mg.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match=r"\[checkpoint backward\] .*modified by an inplace operation"):
        y.sum().backward()
    calls = []
    y = checkpoint(lambda t: (calls.append(0), (t * w)[:len(calls)])[1], x)
    with pytest.raises(RuntimeError, match=r"\[checkpoint\] the block must give the same outputs .*float32\[1\].*float32\[2\]"):
        y.sum().backward()
    y = checkpoint(lambda t: t * w, x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward.*checkpoint has nothing saved"):
        y.sum().backward()
    y = checkpoint(lambda t: t * w, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(NotImplementedError, match="debug"):
        checkpoint(lambda t: t, x, debug=True)
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(lambda t: t, x, determinism_check="all")
    with pytest.raises(ValueError, match="segments must be from 1"):
        checkpoint_sequential([F.relu], 2, x)
    with pytest.raises(ValueError, match="takes no keywords but.*got other"):
        checkpoint_sequential([F.relu], 1, x, other=1)
    state = mg.get_rng_state()
    y = checkpoint(lambda t: 1 / len(calls) * F.dropout(t * w), x)
    calls.clear()
    mg.rand(3)
    after = mg.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert bits(mg.get_rng_state()) == bits(after) != bits(state) and not mode.recompute


W = mg.ones(3, requires_grad=True)


@pytest.mark.parametrize("first, second, text", [
    (lambda t: t.sin().exp().sin(), lambda t: t.sin().exp(), "first sin .*, then nothing more"), (lambda t: t.sin().exp(), lambda t: t.sin().exp().sin(), "first nothing more, then sin"),
    (lambda t: t.sin(), lambda t: t.cos(), r"first sin float32\[3\] that saves float32\[3\], then cos"), (lambda t: t.sum(), lambda t: t.sum()[None], r"output float32\[\], then output float32\[1\]"),
    (lambda t: (t.double() * 2).float(), lambda t: t * 2, "then"), (lambda t: (t * W)[:2].exp(), lambda t: t[:2].exp(), "first mul"),
    (lambda t: t.repeat(2).exp().sum(), lambda t: t.exp().sum(), r"first reshape float32\[1, 3\]"), (lambda t: (t, t), lambda t: (t,), r"first output float32\[3\], then nothing more")])
def test_another_second_run_is_noticed(first, second, text):
    def run(**options):
        calls = []
        made = checkpoint(lambda t: (second if calls else first, calls.append(0))[0](t), mg.ones(3, requires_grad=True) * 1, **options)
        return sum(o.sum() for o in (made if isinstance(made, tuple) else (made,)))
    with pytest.raises(minigrad.utils.checkpoint.CheckpointError, match=r"\[checkpoint\] the block must give the same outputs .*" + text):
        run().backward()
    if "output" not in text:                                    # another form of the output cannot go backward
        run(determinism_check="none").backward()


def test_use_reentrant_is_asked_for():
    x = mg.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match=r"\[checkpoint\] the use_reentrant parameter should be passed explicitly"):
        minigrad.utils.checkpoint.checkpoint(F.relu, x)
    with pytest.warns(UserWarning, match=r"\[checkpoint_sequential\] the use_reentrant") as seen:
        minigrad.utils.checkpoint.checkpoint_sequential([F.relu, F.relu, F.relu], 2, x)
    assert len(seen) == 1


def test_contexts():
    order = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            order.append(self.name)

        def __exit__(self, *_):
            order.append("end " + self.name)
    x = mg.ones(2, requires_grad=True)
    y = checkpoint(lambda t: t.exp(), x, context_fn=lambda: (Note("first"), Note("second")), use_reentrant=False)
    assert order == ["first", "end first"]
    y.sum().backward()
    assert order[2:] == ["second", "end second"]
    with pytest.raises(ValueError, match="use_reentrant=False"):
        checkpoint(lambda t: t, x, context_fn=lambda: (Note(""), Note("")), use_reentrant=True)
    assert minigrad.utils.checkpoint.checkpoint is checkpoint.func


@pytest.mark.parametrize("lengths", [None, [3, 2, 1]])
def test_batch_norm_of_a_recurrence_counts_a_batch_once(lengths):
    x = mg.randn(3, 3, 2, requires_grad=True)
    plain = nn.LSTM(2, 4, norm="batch", norm_max_length=3)
    again = nn.LSTM(2, 4, norm="batch", norm_max_length=3)
    again.load_state_dict(plain.state_dict())
    plain(x, lengths=lengths)[0].sum().backward()
    checkpoint(again, x, lengths=lengths)[0].sum().backward()
    for (name, a), b in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert a.tolist() == b.tolist(), name
