"""Elementwise functions and activations where a formula cancels, overflows or meets 0 * inf."""
from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused

NAN, INF = math.nan, math.inf


def derivative(f, values, order=1, dtype=mg.float64):
    x = mg.tensor(values, dtype=dtype, requires_grad=True)
    y = f(x)
    for _ in range(order):
        y, = mg.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach().numpy()


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_sinc_near_0(order, path):
    """The derivatives of sin(u) / u are the integrals of t^n cos(u t + n pi / 2) over [0, 1]."""
    x = np.array([0.0, 1e-13, 1e-8, 1e-3, 0.2, 0.31, 0.32, 0.5, -0.3, 2.0])
    t, w = np.polynomial.legendre.leggauss(60)
    t, w = (t + 1) / 2, w / 2
    want = math.pi ** order * (w * t ** order * np.cos(math.pi * x[:, None] * t + order * math.pi / 2)).sum(1)
    with set_fused(path):
        np.testing.assert_allclose(derivative(mg.sinc, x, order), want, 1e-11, 1e-13)
        if order == 1:
            np.testing.assert_allclose(derivative(mg.sinc, x, 1, mg.float32)[2:], want[2:], 1e-5)


CLAMPS = {"clamp min": lambda x: mg.clamp(x, min=NAN), "clamp max": lambda x: mg.clamp(x, max=NAN), "clip": lambda x: mg.clip(x, NAN, 1),
          "clip max": lambda x: mg.clip(x, 0, NAN), "clamp_": lambda x: x.clone().clamp_(NAN), "clamp_ both": lambda x: x.clone().clamp_(0, NAN),
          "clamp_min": lambda x: mg.clamp_min(x, NAN), "clamp_max": lambda x: mg.clamp_max(x, NAN), "hardtanh": lambda x: F.hardtanh(x, NAN, 1),
          "hardtanh max": lambda x: F.hardtanh(x, 0, NAN), "hardtanh_": lambda x: F.hardtanh(x.clone(), NAN, 1, inplace=True)}


@pytest.mark.parametrize("name", CLAMPS)
def test_a_bound_of_nan_gives_nan(name):
    assert CLAMPS[name](mg.tensor([0.0, 5.0])).isnan().all()


def test_clamp_of_integers_by_nan_and_promotion():
    assert mg.clamp(mg.tensor([1, 2]), NAN).isnan().all()
    double, single = mg.tensor(0.0, dtype=mg.float64), mg.tensor([1.0, 1.0])
    assert mg.clamp(mg.tensor([1, 2]), double, single).dtype == mg.float32      # a 0-d bound counts less, on either side
    assert mg.clamp(mg.tensor([1, 2]), single, double).dtype == mg.float32
    assert mg.clamp(mg.tensor([1.0]), 0.0, float(np.finfo(np.float32).max)).item() == 1         # no warning


def test_a_bound_keeps_the_sign_of_its_zero():
    for bound in (0.0, -0.0, 0.0):
        y = mg.clamp(mg.tensor([-1.0]), bound, 1.0).numpy()
        assert np.signbit(y).item() == np.signbit(bound)
        x = mg.tensor([-1.0], requires_grad=True)
        F.leaky_relu(x, bound).sum().backward()
        assert np.signbit(x.grad.numpy()).item() == np.signbit(bound)


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("dtype", [mg.float32, mg.float64])
def test_tails_of_sigmoid_and_tanh(dtype, path):
    x = np.array([3.0, 6.9, 7.0, 20.0, -20.0, 40.0, 80.0, 0.1])
    e = np.exp(-np.abs(x))
    with set_fused(path):
        np.testing.assert_allclose(derivative(mg.sigmoid, x, 1, dtype), e / (1 + e) ** 2, 1e-4 if dtype == mg.float32 else 1e-12)
        np.testing.assert_allclose(derivative(mg.tanh, x / 2, 1, dtype), 4 * e / (1 + e) ** 2, 1e-4 if dtype == mg.float32 else 1e-12)
        second = -np.sign(x) * e / (1 + e) ** 2 * (1 - e) / (1 + e)
        np.testing.assert_allclose(derivative(mg.sigmoid, x, 2, dtype), second, 1e-4 if dtype == mg.float32 else 1e-11)


@pytest.mark.parametrize("f", [mg.sigmoid, mg.tanh])
def test_the_input_may_change_in_place(f):
    """The backward reads the output; of an input that was changed since it reads nothing."""
    x = mg.tensor([0.5, 20.0, -0.3], requires_grad=True)
    h = x * 1
    y = f(h)
    want, = mg.autograd.grad(y.sum(), x, retain_graph=True)
    h.add_(1)
    got, = mg.autograd.grad(y.sum(), x)
    assert want[1] > 0 and got.tolist() == [want[0].item(), 0, want[2].item()]


def test_tails_over_blocks_and_strides():
    """The kernel tests blocks of vectors: an element of the tail anywhere, in rows and in columns."""
    x = np.zeros((40, 57), np.float32)
    x[::7, ::5] = 20
    for transposed in (False, True):
        t = mg.tensor(x, requires_grad=True)
        mg.sigmoid(t.T if transposed else t).sum().backward()
        np.testing.assert_allclose(t.grad.numpy(), np.where(x == 20, 2.0611537e-9, 0.25), 1e-5)


def test_derivatives_that_outlive_their_function():
    np.testing.assert_allclose(derivative(mg.exp2, [1023.0, 1024.0]), [2.0 ** 1023 * math.log(2), 2.0 ** 1023 * (2 * math.log(2))])
    assert derivative(mg.exp2, [128.0], 1, mg.float32).item() == pytest.approx(2.358658e38)
    np.testing.assert_allclose(derivative(mg.lgamma, [-1e-20, 1e-20, -1e-3, -2.5]), [1e20, -1e20, 999.4207, 1.1031566], 1e-5)
    assert mg.polygamma(1, mg.tensor([-1e-20], dtype=mg.float64)).item() == pytest.approx(1e40)
    assert derivative(mg.logit, [0.0, 1.0]).tolist() == [INF, INF]
    assert np.isnan(derivative(mg.logit, [-1.0, 2.0, 0.5])).tolist() == [True, True, False]                 # as the values are


LIMITS = {"gelu": (F.gelu, 0, 0, INF, 1), "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), 0, 0, INF, 1), "silu": (F.silu, 0, 0, INF, 1),
          "mish": (F.mish, 0, 0, INF, 1), "hardswish": (F.hardswish, 0, 0, INF, 1), "softsign": (F.softsign, -1, 0, 1, 0)}


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("name", LIMITS)
def test_limits_at_infinity(name, path):
    f, low, low_slope, high, high_slope = LIMITS[name]
    with set_fused(path):
        assert f(mg.tensor([-INF, INF])).tolist() == [low, high]
        assert derivative(f, [-INF, INF], 1, mg.float32).tolist() == [low_slope, high_slope]
        assert f(mg.tensor([NAN])).isnan().all()


def test_gelu_error_is_about_a_rounding_of_x():
    x = np.linspace(-4, 4, 8001, dtype=np.float32)
    exact = np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(float)])
    assert (np.abs(F.gelu(mg.tensor(x)).numpy() - exact) <= 1.5 * np.finfo(np.float32).eps * np.abs(x)).all()
    x = np.linspace(-12.5, -3, 8001, dtype=np.float32)      # where it is nearly 0, relative to itself
    exact = np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(float)])
    np.testing.assert_allclose(F.gelu(mg.tensor(x)).numpy(), exact, 110 * np.finfo(np.float32).eps)


def test_reflected_operators_take_tensors():
    a, b = mg.tensor([[1.0], [2.0]]), mg.tensor([3.0, 5.0])
    assert a.__rsub__(b).tolist() == (b - a).tolist()
    assert a.__rpow__(b).tolist() == (b ** a).tolist()
    assert a.__rtruediv__(b).tolist() == (b / a).tolist()
    assert b.__rmatmul__(mg.eye(2) * 2).tolist() == [6, 10]
    assert (2 + b).tolist() == b.__radd__(2).tolist() == [5, 7] and (np.float32(2) * b).tolist() == [6, 10]
    for name in ("sub", "truediv", "pow", "and", "or", "xor"):         # those of add and mul are the operators themselves
        for other in (mg.tensor([1, 2]), 3):
            with pytest.raises(TypeError, match=r"\] self must be a Tensor; got int"):
                getattr(mg.Tensor, f"__r{name}__")(2, other)


def test_a_number_that_is_no_int_is_refused_whatever_ran_before():
    x = mg.ones(4, 6, 8)
    for call in (lambda n: mg.polygamma(n, x), lambda n: F.group_norm(x, n), lambda n: mg.cat([x, x], n), lambda n: mg.stack([x, x], n),
                 lambda n: F.avg_pool1d(x, n), lambda n: F.max_pool1d(x, n), lambda n: F.adaptive_avg_pool1d(x, n), lambda n: x.kthvalue(n),
                 lambda n: F.conv1d(x, mg.ones(6, 3, 3), groups=n), lambda n: x.unflatten(0, (n, -1))):
        call(2)
        with pytest.raises((TypeError, RuntimeError)):
            call(2.0)


def test_alpha_of_masks_and_methods_of_functions_that_take_numbers():
    a, b = mg.tensor([True, False]), mg.tensor([False, True])
    for alpha, want in ((0, [True, False]), (1, [True, True]), (True, [True, True]), (2, [True, True])):
        out = mg.add(a, b, alpha=alpha)
        assert out.dtype == mg.bool and out.tolist() == want
    x = mg.tensor([1.0, 2.0], dtype=mg.float64)
    assert mg.equal(x.xlogy(x), mg.xlogy(x, x)) and mg.equal(x.float_power(2), mg.float_power(x, 2))
    y = x.clone()
    assert y.xlogy_(3.0) is y and mg.equal(y, mg.xlogy(x, 3.0)) and mg.equal(y.float_power_(2), mg.xlogy(x, 3.0) ** 2)


def test_the_sign_of_copysign_gets_the_gradient_of_a_step():
    """0, as in PyTorch, which also gives the magnitude 0 at 0."""
    for values in ([-1.0, 0.0, 1.0], [-0.0, mg.nan, -mg.inf]):
        x, y = mg.tensor([0.0, -2.0, 3.0], requires_grad=True), mg.tensor(values, requires_grad=True)
        out = mg.copysign(x, y)
        assert out.tolist() == np.copysign(x.detach().numpy(), y.detach().numpy()).tolist() and np.signbit(mg.copysign(x, y).detach().numpy()).tolist() == np.signbit(values).tolist()
        gx, gy = mg.autograd.grad(out.sum(), (x, y))
        assert gx.tolist()[0] == 0 and gx[1:].abs().tolist() == [1, 1] and gy.tolist() == [0, 0, 0]


def test_what_formulas_refuse_as_pytorch_does():
    ints, floats = mg.tensor([3, 4]), mg.tensor([4.0, 3.0])
    assert mg.hypot(ints, floats).tolist() == [5, 5] and mg.hypot(floats, mg.tensor(3)).dtype == mg.float32
    assert mg.hypot(ints > 3, floats - 4).tolist() == pytest.approx([0, 2 ** 0.5])
    assert mg.rsub(ints, 1, alpha=2).tolist() == [-5, -7] and mg.rsub(floats, ints, alpha=0.5).tolist() == [1, 2.5]
    for call, text in ((lambda: mg.heaviside(floats, ints), "the input's dtype"), (lambda: floats.heaviside_(floats.double()), "the input's dtype"), (lambda: floats.float_power_(2), "float64"),
                       (lambda: mg.rsub(ints, 1, alpha=1.5), "whole number"), (lambda: mg.add(ints > 3, ints > 3, alpha=1.5), "whole number"), (lambda: mg.hypot(ints, ints), "floating-point"),
                       (lambda: mg.zeros(2, out=mg.zeros(2, dtype="float64"), dtype="float32"), "float32 result cannot be written into a float64")):
        with pytest.raises(RuntimeError, match=text):
            call()
    with pytest.raises(TypeError, match="dims is missing"):
        floats.flip()
    assert floats.double().float_power_(ints).tolist() == [64, 81]
