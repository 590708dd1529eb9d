"""Half precision on the GPU: the values of the CPU, autocast, and steps with a GradScaler."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import emulated

import minigrad as mg
from minigrad import nn, optim
from minigrad.amp import is_autocast_available

pytest.importorskip("ml_dtypes")
pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
F = nn.functional
HALVES = [mg.float16, mg.bfloat16]
rng = np.random.default_rng(0)


def on(device, *shape):
    return mg.tensor(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32), device=device)


# ---- autocast --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_products_run_in_half_precision(dtype):
    x, w, image = on("cuda", 4, 8), on("cuda", 8, 8), on("cuda", 1, 2, 5, 5)
    with mg.autocast("cuda", dtype=dtype):
        made = {"matmul": x @ w, "linear": F.linear(x, w, w[0]), "bmm": mg.bmm(x[None], w[None]), "conv2d": F.conv2d(image, on("cuda", 3, 2, 3, 3)),
                "attention": F.scaled_dot_product_attention(x, x, x), "lstm": nn.LSTM(8, 3).to("cuda")(x)[0]}
        h = x @ w
        wide = {"softmax": F.softmax(h, 1), "log_softmax": F.log_softmax(h, 1), "layer_norm": F.layer_norm(h, (8,)),
                "group_norm": F.group_norm(h[None].transpose(1, 2), 2), "mse": F.mse_loss(h, h * 2),
                "cross_entropy": F.cross_entropy(h, mg.arange(4, device="cuda"))}
        assert (h + x).dtype == mg.float32 and (h + h).dtype == h.relu().dtype == dtype
        assert (x.double() @ w.double()).dtype == mg.float64
    assert {name: t.dtype for name, t in made.items() if t.dtype != dtype} == {}
    assert {name: t.dtype for name, t in wide.items() if t.dtype != mg.float32} == {}
    assert (x @ w).dtype == mg.float32


def test_each_device_has_its_own_block():
    """As in PyTorch: a block for one type of device leaves the other alone, and blocks of both may be nested."""
    a, b = on("cpu", 4, 4), on("cuda", 4, 4)
    state = lambda: ((a @ a).dtype, (b @ b).dtype, a.softmax(1).dtype, (b.half().softmax(1)).dtype)       # noqa: E731
    f32, f16, bf16 = mg.float32, mg.float16, mg.bfloat16
    assert state() == (f32, f32, f32, f16) and is_autocast_available("cuda")
    with mg.autocast("cuda"):
        assert state() == (f32, f16, f32, f32) and mg.is_autocast_enabled() and not mg.is_autocast_enabled("cpu")
        with mg.autocast("cpu"):
            assert state() == (bf16, f16, f32, f32) and mg.is_autocast_enabled() and mg.is_autocast_enabled("cpu")
            with mg.autocast("cuda", enabled=False):
                assert state() == (bf16, f32, f32, f16)
            with mg.autocast("cuda", mg.bfloat16):
                assert state() == (bf16, bf16, f32, f32) and mg.get_autocast_dtype("cuda") == bf16
        assert state() == (f32, f16, f32, f32)
    assert state() == (f32, f32, f32, f16) and mg.get_autocast_dtype("cuda") == f16

    @mg.autocast("cuda")
    def decorated():
        return state()
    with mg.autocast("cpu"):
        assert decorated() == (bf16, f16, f32, f32) and state() == (bf16, f32, f32, f16)


def test_checkpointed_blocks_keep_both(gpu):
    seen = []

    def block(x):
        seen.append(((x @ x).dtype, (mg.ones(2, 2) @ mg.ones(2, 2)).dtype))
        return x @ x
    x = on("cuda", 3, 3).requires_grad_()
    with mg.autocast("cuda", mg.bfloat16), mg.autocast("cpu", mg.float16):
        y = mg.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    y.sum().backward()
    assert seen == [(mg.bfloat16, mg.float16)] * 2 and x.grad.dtype == mg.float32


# ---- training --------------------------------------------------------------------------------------------------------

def _model():
    mg.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_scaled_step_agrees_with_the_cpu(dtype):
    """Parameters, states and gradients are float32 (the master weights); products and their gradients are in half precision."""
    losses = {}
    for device in ("cpu", "cuda"):
        model = _model().to(device)
        optimizer, scaler = optim.AdamW(model.parameters(), lr=1e-2), mg.amp.GradScaler(device, init_scale=2.0 ** 10, growth_interval=3)
        x, y, losses[device] = on(device, 32, 12), (mg.arange(32) % 4).to(device), []
        for _ in range(6):
            with mg.autocast(device, dtype=dtype):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            assert {p.grad.dtype for p in model.parameters()} == {np.dtype("float32")}
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            losses[device].append(loss.item())
        assert scaler.get_scale() == 2.0 ** 12 and {p.dtype for p in model.parameters()} == {np.dtype("float32")}
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=2e-2)
    assert losses["cuda"][-1] < 0.8 * losses["cuda"][0]


def test_an_overflow_leaves_the_step_out():
    w = nn.Parameter(mg.ones(3, device="cuda"))
    optimizer, scaler = optim.SGD([w], lr=0.1), mg.amp.GradScaler("cuda", init_scale=2.0 ** 20)
    for _ in range(2):
        optimizer.zero_grad()
        with mg.autocast("cuda"):
            loss = (w[None] @ mg.ones(3, 1, device="cuda")).sum()
        scaler.scale(loss).backward()           # the gradient of the product is float16: 2^20 is infinite there
        scaler.step(optimizer)
        scaler.update()
    assert w.tolist() == [1, 1, 1] and scaler.get_scale() == 2.0 ** 18
