"""Mixed precision: what autocast casts, where it is on, and the steps of a GradScaler."""
from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.core import half
from minigrad.core.op import registry
from minigrad.utils.checkpoint import checkpoint

pytest.importorskip("ml_dtypes")
F = nn.functional
X, W, IMAGE = mg.ones(4, 8), mg.ones(8, 8), mg.ones(1, 2, 5, 5)
LOSSES = {
    "cross_entropy": lambda h: F.cross_entropy(h, mg.arange(4)), "nll_loss": lambda h: F.nll_loss(h, mg.arange(4)),
    "mse_loss": lambda h: F.mse_loss(h, h * 2), "l1_loss": lambda h: F.l1_loss(h, h), "huber_loss": lambda h: F.huber_loss(h, h),
    "smooth_l1_loss": lambda h: F.smooth_l1_loss(h, h), "kl_div": lambda h: F.kl_div(h, h, reduction="sum"), "prod": lambda h: h.prod(),
    "bce": lambda h: F.binary_cross_entropy(h.sigmoid(), h.sigmoid()), "bce_logits": lambda h: F.binary_cross_entropy_with_logits(h, h.sigmoid())}
PRODUCTS = {
    "matmul": lambda: X @ W, "mm": lambda: mg.mm(X, W), "bmm": lambda: mg.bmm(X[None], W[None]), "addmm": lambda: mg.addmm(X, X, W),
    "baddbmm": lambda: mg.baddbmm(X[None], X[None], W[None]), "addbmm": lambda: mg.addbmm(X, X[None], W[None]),
    "linear": lambda: F.linear(X, W, W[0]), "einsum": lambda: mg.einsum("ij,jk->ik", X, W), "conv2d": lambda: F.conv2d(IMAGE, mg.ones(3, 2, 3, 3)),
    "conv_transpose2d": lambda: F.conv_transpose2d(IMAGE, mg.ones(2, 3, 3, 3)), "attention": lambda: F.scaled_dot_product_attention(X, X, X),
    "lstm": lambda: nn.LSTM(8, 3)(X)[0], "gru": lambda: nn.GRU(8, 3)(X)[0], "rnn": lambda: nn.RNN(8, 3)(X)[0], "lstm cell": lambda: nn.LSTMCell(8, 3)(X)[0],
    "gru cell": lambda: nn.GRUCell(8, 3)(X), "rnn cell": lambda: nn.RNNCell(8, 3)(X)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_run_in_half_precision(name, dtype):
    plain = PRODUCTS[name]().dtype
    with mg.autocast("cpu", dtype=getattr(mg, dtype)):
        assert PRODUCTS[name]().dtype == getattr(mg, dtype)
    assert PRODUCTS[name]().dtype == plain == mg.float32


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU, nn.LSTMCell])
def test_recurrent_layers_round_their_results_alone(make):
    """They have no kernels of half precision: rounding weights and their gradients would cost launches and digits."""
    mg.manual_seed(0)
    layer = make(8, 3)
    results = []
    for on, dtype in ((False, mg.float32), (True, mg.float32), (True, mg.float64), (True, mg.bfloat16)):
        x = X.clone().to(dtype).requires_grad_()
        with mg.autocast("cpu", enabled=on):
            y = layer.to(mg.float64 if dtype == mg.float64 else mg.float32)(x)[0]
        layer.zero_grad()
        y.backward(mg.ones_like(y))
        results.append([y.detach(), x.grad, *[p.grad for p in layer.parameters()]])
    plain, half, double, both = results
    assert [t.dtype for t in half] == [mg.bfloat16] + [mg.float32] * (len(half) - 1)
    assert half[0].equal(plain[0].bfloat16()) and all(a.equal(b) for a, b in zip(half[1:], plain[1:], strict=True))
    assert {t.dtype for t in double} == {np.dtype(np.float64)} and {t.dtype for t in both[:2]} == {np.dtype(mg.bfloat16)}


def test_recurrent_layers_round_what_is_asked_for(monkeypatch):
    """Every step's gates are four times as much as the outputs."""
    cast, rounded = half.functions.cast, []
    monkeypatch.setattr(half.functions, "cast", lambda t, dtype: rounded.append(t.shape) or cast(t, dtype))
    with mg.autocast("cpu"):
        y, (h, c) = nn.LSTM(8, 3)(X)
    assert y.dtype == h.dtype == c.dtype == mg.bfloat16 and rounded and all(12 not in shape[1:] for shape in rounded)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_run_in_float32(name):
    h = X.softmax(1).bfloat16()
    assert LOSSES[name](h).dtype == mg.bfloat16
    with mg.autocast("cpu"):
        assert LOSSES[name](h).dtype == mg.float32


def test_what_is_left_alone():
    with mg.amp.autocast("cpu"):
        assert (X.double() @ W.double()).dtype == mg.float64 and (X.long() @ W.long()).dtype == mg.int64
        h = X @ W
        assert h.softmax(1).dtype == F.layer_norm(h, (8,)).dtype == h.sum().dtype == mg.bfloat16
        assert (h + X).dtype == mg.cat([h, X]).dtype == mg.exp(X).dtype == mg.float32


def test_blocks_nest_and_end():
    tables = {name: op.plans for name, op in registry.items()}
    assert not mg.is_autocast_enabled("cpu") and mg.get_autocast_dtype("cpu") == mg.bfloat16
    with mg.autocast("cpu", mg.float16):
        assert mg.is_autocast_enabled("cpu") and mg.get_autocast_dtype("cpu") == mg.float16 and not mg.is_autocast_enabled()
        with mg.autocast("cpu", enabled=False):
            assert (X @ W).dtype == mg.float32 and not mg.is_autocast_enabled("cpu")
            with mg.autocast("cpu"):
                assert (X @ W).dtype == mg.bfloat16
        with pytest.raises(RuntimeError, match="last but one"):
            X @ X
        assert (X @ W).dtype == mg.float16
    assert all(op.plans is tables[name] for name, op in registry.items()), "the plan tables are as before"

    @mg.autocast("cpu")
    def product(n):
        return X @ W if n == 0 else product(n - 1)
    assert product(2).dtype == mg.bfloat16 and (X @ W).dtype == mg.float32


def test_decorated_generators_and_coroutines_cast_in_their_body_only():
    tables = {name: op.plans for name, op in registry.items()}
    state = lambda: (mg.is_autocast_enabled("cpu"), (X @ W).dtype)     # noqa: E731
    inside, outside = (True, mg.bfloat16), (False, mg.float32)

    @mg.autocast("cpu")
    def numbers():
        yield state()
        with mg.autocast("cpu", enabled=False):
            yield state()
        yield state()

    @mg.autocast("cpu")
    async def work():
        first = state()
        await asyncio.sleep(0)
        return first, state()

    @mg.autocast("cpu")
    async def stream():
        yield state()
        yield state()

    async def main():
        async def beside():
            for _ in range(3):
                assert state() == outside
                await asyncio.sleep(0)
        assert (await asyncio.gather(work(), beside()))[0] == (inside, inside)
        async for found in stream():
            assert found == inside and state() == outside
    for found, expected in zip(numbers(), (inside, outside, inside), strict=True):
        assert found == expected and state() == outside
    asyncio.run(main())
    assert all(op.plans is tables[name] for name, op in registry.items()), "the plan tables are as before"


def test_other_threads_do_not_cast():
    entered, done, found = threading.Event(), threading.Event(), []

    def other():
        entered.wait()
        found.append((X @ W).dtype)
        done.set()
    thread = threading.Thread(target=other)
    thread.start()
    with mg.autocast("cpu"):
        entered.set()
        done.wait()
        assert (X @ W).dtype == mg.bfloat16
    thread.join()
    assert found == [mg.float32]


def test_what_cannot_be_cast_warns():
    for dtype in (mg.float32, mg.float64, mg.int64):
        with pytest.warns(UserWarning, match="Disabling autocast"):
            block = mg.autocast("cpu", dtype=dtype)
        with block:
            assert (X @ W).dtype == mg.float32
    with pytest.raises(RuntimeError, match="device_type"):
        mg.autocast("banana")
    with pytest.raises(ValueError, match="device_type must be a str"):
        mg.autocast(mg.float16)
    mg.autocast("cuda", enabled=False)


def test_gradients_are_those_of_the_parameters():
    model = nn.Sequential(nn.Linear(8, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3))
    with mg.autocast("cpu"):
        loss = F.cross_entropy(model(X), mg.tensor([0, 1, 2, 0]))
    loss.backward()
    half = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(X), mg.tensor([0, 1, 2, 0])).backward()
    for p, g in zip(model.parameters(), half, strict=True):
        assert g.dtype == mg.float32
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), atol=0.02)


def test_captured_and_checkpointed_functions_keep_their_state():
    step = mg.capture(lambda x: x @ W)
    assert step(X).dtype == mg.float32
    with mg.autocast("cpu"):
        assert step(X).dtype == mg.bfloat16
    assert step(X).dtype == mg.float32
    seen = []

    def block(x):
        y = x @ W
        seen.append(y.dtype)
        return y
    x = X.clone().requires_grad_()
    with mg.autocast("cpu"):
        y = checkpoint(block, x, use_reentrant=False)
    y.sum().backward()
    assert seen == [mg.bfloat16, mg.bfloat16] and x.grad.dtype == mg.float32


# ---- GradScaler ----

def _problem():
    w = nn.Parameter(mg.ones(3))
    return w, optim.SGD([w], lr=0.1)


def test_a_step_is_that_of_unscaled_gradients():
    w, optimizer = _problem()
    scaler = mg.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for scale in (8.0, 8.0, 16.0):
        assert scaler.get_scale() == scale
        optimizer.zero_grad()
        loss = scaler.scale((w * mg.tensor([1.0, 2.0, 3.0])).sum())
        loss.backward()
        assert w.grad.tolist() == [scale, 2 * scale, 3 * scale]
        scaler.step(optimizer)
        scaler.update()
    np.testing.assert_allclose(w.tolist(), [0.7, 0.4, 0.1], rtol=1e-5)
    assert [t.item() for t in scaler.scale([mg.tensor(1.0), mg.tensor(2.0)])] == [16.0, 32.0]
    assert scaler.scale(mg.tensor(3.0).half()).item() == 48.0 and scaler.scale(mg.tensor(3.0).half()).dtype == mg.float32
    assert scaler.scale(mg.tensor([3.0]).half()).dtype == mg.float16


def _scaling(**options):
    """A scaler that has scaled something: the tests set gradients by hand."""
    scaler = mg.amp.GradScaler(**options)
    scaler.scale(mg.ones(()))
    return scaler


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_without_finite_gradients_is_left_out(bad):
    w, optimizer = _problem()
    scaler = _scaling(init_scale=8.0, backoff_factor=0.25)
    w.grad = mg.tensor([1.0, bad, 1.0])
    assert scaler.step(optimizer) is None and w.tolist() == [1.0, 1.0, 1.0]
    scaler.update()
    assert scaler.get_scale() == 2.0
    w.grad = mg.tensor([2.0, 2.0, 2.0])
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1.0, 1.0, 1.0], "clipping sees the true gradients"
    scaler.step(optimizer)
    scaler.update(new_scale=5.0)
    assert w.tolist() == pytest.approx([0.9] * 3) and scaler.get_scale() == 5.0


def test_the_order_of_calls_is_checked():
    w, optimizer = _problem()
    scaler = _scaling()
    with pytest.raises(RuntimeError, match="update\\(\\) needs"):
        scaler.update()
    w.grad = mg.ones(3)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="unscale_\\(\\) has been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="step\\(\\) has been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="step\\(\\) has been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, closure=lambda: None)
    half = nn.Parameter(mg.ones(2).half())
    half.grad = mg.ones(2).half()
    with pytest.raises(ValueError, match="float16 gradients"):
        _scaling().unscale_(optim.SGD([half], lr=0.1))
    half.data = half.data.bfloat16()
    half.grad = mg.ones(2).bfloat16()
    scaler = _scaling(init_scale=4.0)
    scaler.unscale_(optim.SGD([half], lr=0.1))
    assert half.grad.tolist() == [0.25, 0.25]


def test_state_and_a_scaler_that_is_off():
    scaler = mg.amp.GradScaler(init_scale=4.0, growth_factor=3.0, backoff_factor=0.1, growth_interval=7)
    assert scaler.state_dict() == {"scale": 4.0, "growth_factor": 3.0, "backoff_factor": 0.1, "growth_interval": 7, "_growth_tracker": 0}
    other = mg.amp.GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    off, (w, optimizer) = mg.amp.GradScaler(enabled=False), _problem()
    w.grad = mg.ones(3)
    off.step(optimizer)
    off.update()
    assert w.tolist() == pytest.approx([0.9] * 3) and off.get_scale() == 1.0 and off.state_dict() == {} and not off.is_enabled()
    with pytest.raises(RuntimeError, match="empty"):
        scaler.load_state_dict(off.state_dict())


@pytest.mark.parametrize("method", ["step", "unscale_"])
def test_gradients_that_were_never_scaled_are_not_divided(method):
    p = mg.ones(2, requires_grad=True)
    o, scaler = optim.SGD([p], lr=1.0), mg.amp.GradScaler()
    p.sum().backward()
    with pytest.raises(RuntimeError, match=r"\[GradScaler\] nothing was scaled"):
        getattr(scaler, method)(o)
    assert p.tolist() == [1, 1] and p.grad.tolist() == [1, 1]
    mg.amp.GradScaler(enabled=False).step(o)
    assert p.tolist() == [0, 0]
