"""Parameters of half precision: updated in float32, by master weights that are part of the state."""
from __future__ import annotations

import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F
from minigrad.testing import half_dtypes

OPTIMIZERS = "SGD Adam AdamW RMSprop Adagrad Adadelta Adamax ASGD NAdam RAdam Rprop Adafactor Muon SparseAdam".split()


def values(seed, *shape):
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_values_are_those_of_float32_rounded(name, dtype):
    """To the last bit, with a contiguous parameter and another; first with steps that half precision would round away."""
    half = [values(0, 4, 5).to(dtype).requires_grad_(), values(1, 3, 6).to(dtype).t().requires_grad_()]
    single = [p.detach().float().contiguous().requires_grad_() for p in half]
    optimizers = [getattr(optim, name)(params, lr=1e-5) for params in (half, single)]
    for step in range(20):
        for i, (a, b) in enumerate(zip(half, single, strict=True)):
            a.grad = values(10 * step + i, *a.shape).to(dtype)
            b.grad = a.grad.float()
        for optimizer in optimizers:
            if step == 12:
                optimizer.param_groups[0]["lr"] = 0.5
            optimizer.step()
    for a, b in zip(half, single, strict=True):
        state = optimizers[0].state[a]
        assert a.dtype == dtype and {t.dtype for t in state.values() if t.shape == a.shape} == {mg.float32}
        np.testing.assert_array_equal(state["master_param"].numpy(), b.detach().numpy())
        np.testing.assert_array_equal(a.detach().float().numpy(), b.detach().to(dtype).float().numpy())


def test_small_updates_add_up():
    p = mg.ones(3).half().requires_grad_()
    optimizer = optim.SGD([p], lr=1e-4)                 # half a step of float16 below 1 is 2.4e-4
    for _ in range(100):
        p.grad = mg.ones(3).half()
        optimizer.step()
    np.testing.assert_allclose(p.detach().float().numpy(), 0.99, atol=3e-4)


def test_a_new_value_of_the_parameter_counts():
    """Only where it is new: elsewhere the master weights go on."""
    p = mg.ones(3).half().requires_grad_()
    optimizer = optim.SGD([p], lr=1e-4)
    for _ in range(3):
        p.grad = mg.ones(3).half()
        optimizer.step()
        with mg.no_grad():
            p[1] = 5.0
    optimizer.step()
    np.testing.assert_allclose(optimizer.state[p]["master_param"].numpy(), [0.9996, 4.9997, 0.9996], rtol=1e-6)     # 5 stays the rounded value


def _model(dtype):
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    return model, optim.AdamW(model.parameters(), lr=1e-3)


def _trained(model, optimizer, steps, run=lambda step: step):
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    step, dtype = run(step), next(model.parameters()).dtype
    return [float(step(values(i, 16, 6).to(dtype), mg.arange(16) % 3)) for i in steps]


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
def test_a_loaded_state_continues(dtype, tmp_path):
    model, optimizer = _model(dtype)
    _trained(model, optimizer, range(5))
    mg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    want = _trained(model, optimizer, range(5, 10))
    other, loaded = _model(dtype)
    saved = mg.load(tmp_path / "state.pt")
    other.load_state_dict(saved["model"])
    loaded.load_state_dict(saved["optimizer"])
    assert _trained(other, loaded, range(5, 10)) == want
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        a, b = optimizer.state[p]["master_param"], loaded.state[q]["master_param"]
        assert b.dtype == mg.float32 and (a == b).all() and (a != p).any()


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
def test_captured_steps_have_the_bits_of_eager_ones(dtype):
    made = []
    for run in (lambda step: step, mg.capture):
        model, optimizer = _model(dtype)
        losses = _trained(model, optimizer, range(12), run)
        made.append((losses, [optimizer.state[p]["master_param"].numpy().tobytes() for p in model.parameters()]))
    assert made[0] == made[1]


def test_a_state_that_was_dropped_is_not_kept():
    p = mg.ones(8).half().requires_grad_()
    o, masters = optim.Adam([p]), []
    for _ in range(3):
        p.grad = mg.ones(8).half()
        o.step()
        masters.append(weakref.ref(o.state[p]["master_param"]))
        o.state.clear()
    p.grad = mg.ones(8).half()
    o.step()
    assert [m() for m in masters] == [None] * 3
