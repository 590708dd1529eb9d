"""Half precision: arithmetic and sums run in float32 and round once, in results and gradients. The matrix of all ops is the check `half`
of `ops/test_conformance.py`; here are values that only float32 can compute, functions of several ops, and dtypes."""
from __future__ import annotations

import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, study
from minigrad.devices.base import NoKernel
from minigrad.devices.plan import host_plan
from minigrad.ops.norm import layer_norm
from minigrad.testing import half_dtypes

F = nn.functional
h = np.dtype("float16")
HALVES = half_dtypes()
LARGE = [[7000.0, -8000, 6500, 100]]


def close(got, want, dtype=h):
    """Equal, but for one ulp of the dtype; the result has that dtype."""
    assert got.dtype == dtype
    near = np.asarray(want, np.float64).astype(dtype)
    error = np.abs(got.double().numpy(force=True) - want)
    assert (error <= np.abs(np.spacing(near)).astype(np.float64)).all(), f"{got} is not {near}"


@pytest.mark.parametrize("call, want", [
    (lambda: F.layer_norm(mg.tensor(LARGE, dtype=h), (4,)), [[0.92236, -1.54883, 0.84018, -0.21416]]),
    (lambda: F.rms_norm(mg.tensor(LARGE, dtype=h), (4,)), [[1.12404, -1.28461, 1.04375, 0.016058]]),
    (lambda: F.layer_norm(mg.zeros(1, 4, dtype=h), (4,), eps=1e-12), [[0.0] * 4]),
    (lambda: F.scaled_dot_product_attention(*[mg.full((1, 2, 64), 40.0, dtype=h)] * 2, mg.ones(1, 2, 1, dtype=h)), [[[1.0], [1.0]]]),
    (lambda: F.avg_pool2d(mg.ones(1, 1, 64, 64, dtype=h), 64), [[[[1.0]]]]), (lambda: F.adaptive_avg_pool2d(mg.ones(1, 1, 64, 64, dtype=h), 1), [[[[1.0]]]]),
    (lambda: mg.tensor([300.0, 400], dtype=h).norm(), 500.0), (lambda: mg.tensor([300.0, 400], dtype=h).norm(3), 449.794),
    (lambda: mg.tensor([300.0, 900], dtype=h).std(), 424.264), (lambda: mg.tensor([1e-4, 3e-4], dtype=h).std(), 1.41456e-4),
    (lambda: mg.std_mean(mg.tensor([300.0, 900], dtype=h))[0], 424.264), (lambda: mg.tensor([300.0, 400], dtype=h).var(), 5000.0),
    (lambda: mg.full((4096,), 0.1, dtype=h).cumsum(0)[-1], 409.5), (lambda: mg.full((3000,), 1.0, dtype=h).cumsum(0)[-1], 3000.0),
    (lambda: mg.tensor([300.0, 400], dtype=h).cumprod(0)[0], 300.0), (lambda: mg.tensor([60000.0, 1000, 1e-3], dtype=h).prod(), 60010.5),
    (lambda: mg.full((3,), 60000.0, dtype=h).mean(), 60000.0), (lambda: mg.nanmean(mg.full((3,), 60000.0, dtype=h)), 60000.0),
    (lambda: F.normalize(mg.tensor([[300.0, 400]], dtype=h)), [[0.6, 0.8]]), (lambda: mg.lerp(mg.tensor(-60000.0, dtype=h), mg.tensor(60000.0, dtype=h), 0.5), 0.0),
    (lambda: mg.ldexp(mg.tensor(1e-4, dtype=h), mg.tensor(20)), 104.875), (lambda: mg.tensor([1e-3], dtype=h) * 1e5, [100.0212]),
    (lambda: mg.add(mg.ones(1, dtype=h), mg.ones(1, dtype=h), alpha=0.1), [1.1]), (lambda: mg.dot(*[mg.full((4096,), 0.1, dtype=h)] * 2), 40.9404),
    (lambda: mg.addmm(mg.full((1, 1), -60000.0, dtype=h), mg.full((1, 2), 200.0, dtype=h), mg.full((2, 1), 200.0, dtype=h)), [[20000.0]]),
    (lambda: F.kl_div(mg.full((4, 2), -9000.0, dtype=h), mg.ones(4, 2, dtype=h), reduction="batchmean"), 18000.0),
    (lambda: F.cross_entropy(mg.tensor([[8.0, 0]], dtype=h), mg.tensor([0])), 3.35406e-4),
    (lambda: mg.index_add(mg.zeros(1, dtype=h), 0, mg.zeros(4096, dtype=mg.int64), mg.full((4096,), 0.1, dtype=h)), [409.5]),
    (lambda: mg.einsum("i,i,i->", *[mg.full((2,), 300.0, dtype=h)] * 2, mg.full((2,), 1e-3, dtype=h)), 180.03)])
def test_only_results_must_fit(call, want):
    close(call(), np.array(want))


def test_running_statistics_of_float16_batches():
    x = (mg.arange(8).reshape(4, 2) * 100 - 300).half()
    for make, y in ((nn.BatchNorm1d, x), (nn.InstanceNorm1d, x.T.reshape(1, 2, 4).contiguous())):
        norm, plain = (make(2, track_running_stats=True) for _ in range(2))
        assert norm(y).dtype == h
        plain(y.float())
        for a, b in ((norm.running_mean, plain.running_mean), (norm.running_var, plain.running_var)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
        norm.half()(y)
        assert norm.running_var.dtype == h and np.isfinite(norm.running_var.numpy()).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_of_large_values(dtype):
    for call in (lambda x: F.layer_norm(x, (4,)), lambda x: x.norm(), lambda x: x.std(), lambda x: x.softmax(1), lambda x: x.cumsum(1)):
        x, wide = (mg.tensor(np.array([[500.0, 512, 480, 520]]).astype(d), requires_grad=True) for d in (dtype, np.float64))
        g = np.array([[1.0, -0.5, 0.25, 2.0]])
        (call(x) * mg.tensor(g.astype(dtype))).sum().backward()
        (call(wide) * mg.tensor(g)).sum().backward()
        near = np.abs(np.spacing(wide.grad.numpy().astype(dtype))).astype(np.float64)
        assert (np.abs(x.grad.double().numpy() - wide.grad.numpy()) <= near + 2e-6).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_dtypes_of_results(dtype):
    x, n = mg.ones(2, 3).to(dtype), mg.tensor([[1, 2, 3]])
    for f in (mg.logaddexp2, mg.xlogy, mg.ldexp, mg.add, mg.mul, mg.copysign):
        assert f(x, n).dtype == f(n, x).dtype == dtype, f
    assert F.hardswish(x).dtype == x.softmax(1).dtype == x.sum(0).dtype == (x @ x.T).dtype == (0.1 * x).dtype == (x % 2).dtype == dtype
    assert x.argmax(1).dtype == x.argsort(1).dtype == mg.int64 and (x > 0.1).dtype == mg.isclose(x, x).dtype == mg.bool
    assert x.sum(dtype=mg.float32).dtype == x.softmax(1, dtype=mg.float32).dtype == x.cumsum(1, dtype=mg.float32).dtype == mg.float32
    assert (x + mg.ones(3)).dtype == mg.addcmul(x, x, mg.ones(3)).dtype == F.mse_loss(x, mg.ones(2, 3)).dtype == mg.float32
    assert (x + mg.ones(3).double()).dtype == mg.float64 and (x + mg.tensor(1.0)).dtype == dtype
    assert x.cummax(1).values.dtype == x.max(1).values.dtype == x.sort(1).values.dtype == x.topk(2).values.dtype == dtype
    assert mg.nan_to_num(x / 0).dtype == dtype and np.isfinite(mg.nan_to_num(x / 0).float().numpy()).all()
    assert mg.where(x > 0, x, 0.1).dtype == x.clamp(0.1, 0.2).dtype == dtype and (mg.tensor([0.1]).to(dtype) == 0.1).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_in_place_and_accumulated(dtype):
    x = mg.full((3,), 2.0).to(dtype)
    x += 0.1
    x *= mg.ones(3)
    x.add_(mg.ones(3).to(dtype), alpha=0.1).mul_(3)
    close(x, np.full(3, 6.6) if dtype == h else np.full(3, 6.59375), dtype)
    a, b = (mg.tensor(np.random.default_rng(k).uniform(-1, 1, 200).astype(dtype)) for k in (0, 1))
    assert (a.clone().add_(b, alpha=0.3) == (a.float() + b.float() * 0.3).to(dtype)).all()
    assert (a.clone().lerp_(b, 0.3) == a.float().lerp(b.float(), 0.3).to(dtype)).all()
    w = mg.ones(3).to(dtype).requires_grad_()
    for _ in range(2):
        (w * w).sum().backward()
    assert w.grad.tolist() == [4.0] * 3 and w.grad.dtype == dtype


def test_derivatives_of_higher_order():
    x = mg.tensor([0.5, 1.0, -2.0], dtype=h, requires_grad=True)
    g, = mg.autograd.grad(mg.tanh(x).sum(), x, create_graph=True)
    g2, = mg.autograd.grad(g.sum(), x, create_graph=True)
    g3, = mg.autograd.grad(g2.sum(), x)
    t = np.tanh([0.5, 1.0, -2.0])
    close(g2, -2 * t * (1 - t ** 2))
    close(g3, (6 * t ** 2 - 2) * (1 - t ** 2))


def test_the_path_is_shown_and_layouts_are_taken():
    x = mg.ones(4, 6, dtype=h)
    assert "computed in float32" in study.explain(mg.add, x, x) and "computed in float32" in study.explain(layer_norm, x, None, None, normalized_shape=(6,))
    assert "layer_norm_forward_f32" in study.launches(lambda: F.layer_norm(x, (6,)))
    with mg.set_fused("require"):
        F.layer_norm(x, (6,))
    assert (x.T @ x).shape == (6, 6) and x.T[::2].sum(1).tolist() == [4.0] * 3
    with pytest.raises(RuntimeError, match=r"last but one.*float16\[4, 6\]"):
        x @ x


def test_a_captured_step_in_half_precision():
    w = nn.Parameter(mg.ones(3, dtype=h))
    step = mg.capture(lambda x: (w * x).softmax(0).std())
    for k in (1.0, 2.0, 3.0):
        x = mg.tensor([k, 2.0, -k], dtype=h)
        assert step(x).item() == (w * x).softmax(0).std().item()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_finfo(dtype):
    limits, one = mg.finfo(dtype), np.ones((), dtype)
    assert float(limits.eps) == float(np.spacing(one)) and limits.bits == 16 and limits.dtype == dtype
    assert float(limits.max) < np.inf and mg.finfo().dtype == np.float32 and mg.finfo(mg.float64).bits == 64
    assert mg.empty(2000, dtype=dtype).random_().float().max().item() <= 2 / float(limits.eps)


SEVERAL = {
    "std": lambda a, b: a.std(1), "std_mean": lambda a, b: mg.std_mean(a, 1)[0], "nanmean": lambda a, b: mg.nanmean(a, 1),
    "addmm": lambda a, b: mg.addmm(b[:, :6], a, b.T, alpha=0.3, beta=0.7), "addmv": lambda a, b: mg.addmv(b[:, 0], a, b[0], alpha=0.3),
    "baddbmm": lambda a, b: mg.baddbmm(b[:, :6], a[None], b.T[None], alpha=0.3), "addbmm": lambda a, b: mg.addbmm(b[:, :6], a[None], b.T[None], alpha=0.3),
    "einsum": lambda a, b: mg.einsum("ij,kj,kj->ik", a, b, b), "kl_div": lambda a, b: F.kl_div(a, b.abs(), reduction="sum"),
    "batchmean": lambda a, b: F.kl_div(a, b, reduction="batchmean", log_target=True), "nll_loss": lambda a, b: F.nll_loss(a, mg.arange(6), b[0].abs()),
    "huber_loss": lambda a, b: F.huber_loss(a, b, weight=b.abs()), "normalize": lambda a, b: F.normalize(a, 3.0), "index_add": lambda a, b: mg.index_add(a, 0, mg.tensor([0, 0, 1]), b[:3], alpha=0.3),
    "add": lambda a, b: mg.add(a, b, alpha=0.3), "div": lambda a, b: mg.div(a, b, rounding_mode="floor"), "power": lambda a, b: a.abs() ** 1.7, "number": lambda a, b: 0.3 / a,
    "cov": lambda a, b: mg.cov(a, aweights=b[0].abs()), "corrcoef": lambda a, b: mg.corrcoef(a), "cross": lambda a, b: mg.linalg.cross(a[:, :3], b[:, :3]),
    "gradient": lambda a, b: mg.gradient(a, spacing=(0.3, mg.arange(9).square()), edge_order=2)[1], "linear_cross_entropy": lambda a, b: F.linear_cross_entropy(a, b, mg.arange(6)),
    "hypot": lambda a, b: mg.hypot(a, mg.arange(9)), "logaddexp": lambda a, b: mg.logaddexp(mg.arange(9), a)}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", SEVERAL)
def test_functions_of_several_ops_round_once(name, dtype):
    """Bit for bit what float32 gives, rounded: results and gradients."""
    rng, results = np.random.default_rng(0), []
    a, b, g = (rng.uniform(-2, 2, (6, 9)).astype(np.float32).astype(dtype) for _ in range(3))
    for to in (dtype, np.float32):
        x = mg.tensor(a.astype(to), requires_grad=True)
        y = SEVERAL[name](x, mg.tensor(b.astype(to)))
        back = mg.tensor(np.resize(g, tuple(y.shape)).astype(to))
        grad = mg.autograd.grad(y, x, back)[0] if y.requires_grad else x.detach()
        assert y.dtype == grad.dtype == to
        results.append([t.to(dtype).float().numpy(force=True) for t in (y, grad)])
    for half, single in zip(*results, strict=True):
        assert np.array_equal(half, single)


@pytest.mark.parametrize("name", HALVES)
def test_a_numpy_function_computes_no_half_precision(name):
    """It would round each step. The layouts of the inputs must be given, so that nobody forgets to ask."""
    x = mg.zeros(3).to(name).layout
    assert host_plan(x, np.copyto, "why", (x,), moves=True).layout is x
    with pytest.raises(NoKernel, match="why"):
        host_plan(x, np.add, "why", (mg.zeros(3).layout, x))
    with pytest.raises(TypeError):
        host_plan(x, np.add, "why")


def test_bfloat16_says_which_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for make in (lambda: mg.ones(2).bfloat16(), lambda: mg.nn.Linear(2, 3).bfloat16()):
        with pytest.raises(ModuleNotFoundError, match="pip install ml_dtypes"):
            make()
