"""Special functions: over their whole range against SciPy, at the ends of the ranges of their formulas, and what samples do not say."""
from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

import minigrad as mg
from minigrad import special

RNG = np.random.default_rng(0)
WIDE = np.concatenate([RNG.uniform(-40, 40, 300), RNG.uniform(-2, 2, 100), RNG.standard_normal(40) * 1e-3, [1.0, -1.0, 25.0, -25.0, -9.0, 6.2832, -1.0001, 0.9999]])
CASES = {"bessel_j0": "j0", "bessel_j1": "j1", "bessel_y0": "y0", "bessel_y1": "y1", "i0": "i0", "i1": "i1", "i0e": "i0e", "i1e": "i1e",
         "modified_bessel_k0": "k0", "modified_bessel_k1": "k1", "scaled_modified_bessel_k0": "k0e", "scaled_modified_bessel_k1": "k1e",
         "erfcx": "erfcx", "log_ndtr": "log_ndtr"}


def near(got, want, tolerance):
    """Each element to `tolerance` of its size, or of 1 where that is less."""
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    assert (np.abs(got[finite] - want[finite]) <= tolerance * np.maximum(np.abs(want[finite]), 1e-3)).all()


@pytest.mark.parametrize("name", CASES)
def test_functions_of_one_number(name):
    near(getattr(special, name)(mg.tensor(WIDE)).numpy(), getattr(scipy.special, CASES[name])(WIDE), 3e-12)
    narrow = getattr(special, name)(mg.tensor(WIDE[:40].astype("f4")))
    assert narrow.dtype == mg.float32
    with np.errstate(over="ignore"):
        want = getattr(scipy.special, CASES[name])(WIDE[:40].astype("f4").astype("f8")).astype("f4")
    near(narrow.numpy(), want, 1e-6)


def test_airy_and_spherical():
    near(special.airy_ai(mg.tensor(WIDE)).numpy(), scipy.special.airy(WIDE)[0], 1e-11)
    near(special.spherical_bessel_j0(mg.tensor(WIDE)).numpy(), np.sinc(WIDE / math.pi), 1e-14)
    assert special.airy_ai(mg.tensor([0.0])).item() == pytest.approx(0.3550280538878172, rel=1e-6)


def test_ends():
    ends = mg.tensor([0.0, math.inf, -math.inf, math.nan, -1.0], dtype=mg.float64)
    for f, want in ((special.i0, [1, math.inf, math.inf]), (special.i1, [0, math.inf, -math.inf]), (special.i0e, [1, 0, 0]), (special.bessel_y0, [-math.inf, 0, math.nan]),
                    (special.modified_bessel_k1, [math.inf, 0, math.nan]), (special.erfcx, [1, 0, math.inf]), (special.ndtri, [-math.inf, math.nan, math.nan]),
                    (special.log_ndtr, [math.log(0.5), 0, -math.inf])):
        np.testing.assert_allclose(f(ends).numpy()[:4], [*want, math.nan], rtol=1e-15, err_msg=f.name)
    assert special.ndtri(mg.tensor([0.5, 1.0])).tolist() == [0.0, math.inf]


def test_ndtri_is_accurate_at_both_ends():
    p = np.concatenate([10.0 ** RNG.uniform(-300, 0, 300), 1 - 10.0 ** RNG.uniform(-15, 0, 100), RNG.uniform(0, 1, 100)])
    near(special.ndtri(mg.tensor(p)).numpy(), scipy.special.ndtri(p), 1e-13)


def test_incomplete_gamma_over_many_scales():
    a = 10.0 ** RNG.uniform(-3, 4, 400)
    x = np.concatenate([a[:200] * 10.0 ** RNG.uniform(-1, 1, 200), np.abs(a[200:] + RNG.standard_normal(200) * np.sqrt(a[200:]) * 3)])
    near(special.gammainc(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammainc(a, x), 1e-11)
    near(special.gammaincc(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammaincc(a, x), 1e-11)
    a = 10.0 ** RNG.uniform(6.8, 7.2, 40)                                   # both sides of the change of the formula
    x = a + RNG.uniform(-3, 3, 40) * np.sqrt(a)
    near(mg.igamma(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammainc(a, x), 1e-9)
    near(mg.igammac(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammaincc(a, x), 1e-9)
    ends = np.array([0.0, 0.5, 1.0, -1.0, math.inf, math.nan])
    a, x = (v.ravel() for v in np.meshgrid(ends, ends))
    np.testing.assert_allclose(special.gammainc(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammainc(a, x), rtol=1e-14)
    np.testing.assert_allclose(special.gammaincc(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammaincc(a, x), rtol=1e-13)


def test_upper_incomplete_gamma_where_it_is_tiny():
    a = np.concatenate([10.0 ** RNG.uniform(-20, 0, 400), [1e-15, 1e-300, 0.999, 0.999]])
    x = np.concatenate([(a[:400] + 1) * RNG.uniform(0, 1, 400) * 10.0 ** RNG.uniform(-3, 0, 400), [0.3, 0.9, 1.99, 1e-200]])
    np.testing.assert_allclose(special.gammaincc(mg.tensor(a), mg.tensor(x)).numpy(), scipy.special.gammaincc(a, x), rtol=1e-12)


def test_density_at_zero():
    for f, want in ((mg.igamma, [math.inf, 1, 0]), (mg.igammac, [-math.inf, -1, 0])):
        x = mg.zeros(3, requires_grad=True)
        f(mg.tensor([0.5, 1.0, 2.0]), x).sum().backward()
        assert x.grad.tolist() == want
    v = mg.tensor([0.0], requires_grad=True)
    mg.distributions.Gamma(1.0, 2.0).cdf(v).sum().backward()
    assert v.grad.tolist() == [2.0]


def test_first_arguments_without_a_derivative_say_so():
    for f in (mg.igamma, mg.igammac, special.zeta):
        a, x = mg.tensor([2.5], requires_grad=True), mg.tensor([1.5], requires_grad=True)
        with pytest.raises(NotImplementedError, match=rf"^\[{f.name}\] has no derivative in its first argument"):
            f(a, x).sum().backward()
        f(a.detach(), x).sum().backward()
        assert x.grad.item() != 0
    with pytest.raises(NotImplementedError, match="floating-point"):
        mg.igamma(mg.tensor([1, 2]), mg.tensor([2]))
    with pytest.raises(TypeError, match=r"other must be a tensor; got float; use tensor\(2.0\)"):
        mg.igamma(mg.tensor([1.0]), 2.0)
    assert mg.igamma(mg.tensor([1.0]), mg.tensor(2.0)).item() == pytest.approx(1 - math.exp(-2)) == mg.tensor([1.0]).igamma_(mg.tensor([2.0])).item()


def test_zeta_below_zero():
    s, q = RNG.integers(2, 12, 200).astype("f8"), -RNG.uniform(0, 50, 200)
    near(special.zeta(mg.tensor(s), mg.tensor(q)).numpy(), scipy.special.zeta(s, q), 1e-12)
    got = special.zeta(mg.tensor([1.0, 0.5, 2.0, 2.5, 2.0]), mg.tensor([3.0, 3.0, -2.0, -0.5, 0.0])).tolist()
    np.testing.assert_equal(got, [math.inf, math.nan, math.inf, math.nan, math.inf])


def test_polynomials():
    x = mg.tensor([0.3, -1.5, 2.0], dtype=mg.float64)
    assert special.legendre_polynomial_p(x, 2).tolist() == pytest.approx([(3 * v * v - 1) / 2 for v in x.tolist()])
    assert special.chebyshev_polynomial_v(x, 1).tolist() == pytest.approx([2 * v - 1 for v in x.tolist()])
    assert special.hermite_polynomial_h(x, mg.tensor([-1, 0, 1])).tolist() == [0.0, 1.0, 4.0]
    np.testing.assert_array_equal(special.laguerre_polynomial_l(mg.ones(2), mg.tensor([float("nan"), 1.0])).numpy(), [np.nan, 0.0])
    angle, n = 0.7, 5
    for letter, want in (("t", math.cos(n * angle)), ("u", math.sin((n + 1) * angle) / math.sin(angle)), ("v", math.cos((n + 0.5) * angle) / math.cos(angle / 2)),
                         ("w", math.sin((n + 0.5) * angle) / math.sin(angle / 2))):
        at = mg.tensor(math.cos(angle), dtype=mg.float64)
        assert getattr(special, f"chebyshev_polynomial_{letter}")(at, n).item() == pytest.approx(want, rel=1e-12)
        assert getattr(special, f"shifted_chebyshev_polynomial_{letter}")((at + 1) / 2, n).item() == pytest.approx(want, rel=1e-12)
    with pytest.raises(RuntimeError, match="at most 100000"):
        special.laguerre_polynomial_l(x, 1e9)


def nth(function, x, order, dtype=mg.float64):
    """The derivative of an order by nested backwards."""
    at = mg.tensor(x, dtype=dtype, requires_grad=True)
    y = function(at)
    for _ in range(order):
        y, = mg.autograd.grad(y, at, create_graph=True)
    return y.item()


@pytest.mark.parametrize("dtype, tolerance", [(mg.float64, 1e-12), (mg.float32, 2e-6)])
@pytest.mark.parametrize("x", [0.0, 1e-20, 1e-10, 1e-8, -1e-5, 1e-3, 0.9, -1.1, 3.0, 24.0, 26.0])
def test_derivatives_of_bessel_functions_near_0_and_beyond(x, dtype, tolerance):
    """As sums of those of other orders; i0 - i1 / x loses all digits near 0."""
    x = float(np.array(x, dtype))
    def i(n):
        return scipy.special.iv(n, x)
    for function, order, want in ((special.i0, 2, (i(0) + i(2)) / 2), (special.i0, 3, (3 * i(1) + i(3)) / 4), (special.i1, 1, (i(0) + i(2)) / 2),
                                  (special.i1, 2, (3 * i(1) + i(3)) / 4), (special.i1, 3, (3 * i(0) + 4 * i(2) + i(4)) / 8)):
        assert nth(function, x, order, dtype) == pytest.approx(want, rel=tolerance, abs=1e-30)
    if x > 0 and dtype == mg.float64:
        scaled = [scipy.special.ive(n, x) for n in range(5)]
        first = (scaled[0] + scaled[2]) / 2 - scaled[1]
        assert nth(special.i1e, x, 1) == pytest.approx(first, rel=1e-11)
        third = (3 * scaled[1] + scaled[3]) / 4 - 3 * (scaled[0] + scaled[2]) / 2 + 3 * scaled[1] - scaled[0]
        assert nth(special.i0e, x, 3) == pytest.approx(third, rel=1e-8)


def test_derivatives_of_erfcx_do_not_cancel():
    """erfcx ~ 1 / (x sqrt(pi)); -2 x erfcx + 2 / sqrt(pi) has no digits left from 1e8 on."""
    for x in (1e4, 1e8, 1e12):
        for order, factor in ((1, -1), (2, 2), (3, -6)):
            assert nth(special.erfcx, x, order) == pytest.approx(factor * x ** -(order + 1) / math.sqrt(math.pi), rel=1e-7)
    assert nth(special.erfcx, 200.0, 1, mg.float32) == pytest.approx(2 * 200 * scipy.special.erfcx(200.0) - 2 / math.sqrt(math.pi), rel=1e-6)
    for x in (-2.0, 0.0, 0.7, 0.999, 1.0, 1.5, 6.0):
        e = scipy.special.erfcx(x)
        assert nth(special.erfcx, x, 2) == pytest.approx((2 + 4 * x * x) * e - 4 * x / math.sqrt(math.pi), rel=1e-10)


@pytest.mark.parametrize("dtype", [mg.float32, mg.float64])
def test_derivatives_of_log_ndtr_in_both_tails(dtype):
    """-h (x + h) with h = density / distribution function: 0 far above, -1 far below; it was inf / inf above 17 in float32."""
    for x in (17.0, 20.0, 40.0, 1e3, 1e30, math.inf):
        assert abs(nth(special.log_ndtr, x, 1, dtype)) < 1e-60 and abs(nth(special.log_ndtr, x, 2, dtype)) < 1e-60
    for x in (-12.0, -100.0, -1e4):
        assert nth(special.log_ndtr, x, 2, dtype) == pytest.approx(-1 + 1 / x ** 2, rel=1e-3)
    assert nth(special.log_ndtr, -30.0, 3, dtype) == pytest.approx(2 / 30.0 ** 3 * (1 - 12 / 900), rel=1e-3)
    for x in (-3.0, -0.5, 0.0, 0.5, 3.0):
        h = scipy.special.erfcx(-x / math.sqrt(2)) ** -1 * math.sqrt(2 / math.pi)
        assert nth(special.log_ndtr, x, 2, dtype) == pytest.approx(-h * (x + h), rel=1e-5)
