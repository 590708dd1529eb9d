"""Special functions that few programs use: Bessel functions, incomplete gamma functions, orthogonal polynomials.

NumPy computes them in float64, whatever the dtype: integrals by the trapezoidal rule, whose error falls exponentially
with the number of points where the integrand is analytic (Trefethen and Weideman 2014, "The exponentially convergent
trapezoidal rule"), and series. DLMF is the NIST Digital Library of Mathematical Functions. What has no derivatives in
PyTorch (Bessel functions other than i0 to i1e, Airy's, the polynomials) has none here: its result is cut off the graph.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, NoReturn

import numpy as np

from ..core.shape import fail, is_float
from ..core.tensor import Tensor
from ..devices.host import on_host
from .elementwise import Elementwise
from .formula import xlogy
from .math import add, div, erfc, exp, gt, hurwitz, lgamma, mul, neg, rint, sign, square, sub, where

_EULER = 0.5772156649015329


def _function(oracle: Any, domain: tuple, vjps: dict[str, Callable] | None = None,
              **options: Any) -> Callable[..., Elementwise]:
    """Decorates a NumPy function of float64 arrays: makes its op. The oracle of tests is SciPy's function of a name, or
    a function."""
    def truth(*arrays: Any) -> Any:
        import scipy.special
        found = getattr(scipy.special, oracle)(*arrays) if isinstance(oracle, str) else oracle(scipy.special, *arrays)
        return found[0] if isinstance(found, tuple) else found

    def made(function: Callable[..., Any]) -> Elementwise:
        @on_host
        @wraps(function)
        def run(*arrays: Any, out: Any) -> None:
            given = np.broadcast_arrays(*[np.asarray(a, np.float64) for a in arrays])
            with np.errstate(all="ignore"):
                out[...] = function(*given)
        code = function.__code__
        return Elementwise(function.__name__, run, " ".join(code.co_varnames[:code.co_argcount]), vjps, domain=domain,
                           result="float", kernel_kinds="", oracle=truth, doc=function.__doc__, **options)
    return made


def _pieces(x: Any, *pieces: tuple[Any, Callable[..., Any]]) -> Any:
    """An array like `x` with `function(x)` where `condition` is true, for each pair of these; NaN elsewhere."""
    out = np.full(x.shape, math.nan)
    for condition, function in pieces:
        if condition.any():
            out[condition] = function(x[condition])
    return out


# ---- Bessel functions ------------------------------------------------------------------------------------------------

_NEAR = 25.0                                            # from here Hankel's expansions have 16 digits
_ANGLES = (np.arange(32) + 0.5) * (math.pi / 64)        # midpoints of (0, pi / 2)
_ODD = 2 * np.arange(31) + 3


def _far(order: int, x: Any, second: bool = False) -> Any:
    """The expansion of J, or Y for `second`, for large x, DLMF 10.17.3 and 10.17.4."""
    sums, term = [np.ones_like(x), np.zeros_like(x)], np.ones_like(x)
    for k in range(1, 30):
        term = term * (4 * order ** 2 - (2 * k - 1) ** 2) / (8 * k * x)
        sums[k % 2] += -term if k % 4 > 1 else term
    angle = order * math.pi / 2 + math.pi / 4
    cosine = np.cos(x) * math.cos(angle) + np.sin(x) * math.sin(angle)      # of x - angle
    sine = np.sin(x) * math.cos(angle) - np.cos(x) * math.sin(angle)
    p, q = sums
    found = p * sine + q * cosine if second else p * cosine - q * sine
    return np.where(np.isinf(x), 0.0, np.sqrt(2 / (math.pi * x)) * found)


def _mean(x: Any, wave: Callable[[Any], Any], weights: Any) -> Any:
    """The mean over the angles t of weight(t) wave(x sin t)."""
    return sum(w * wave(x * t) for t, w in zip(np.sin(_ANGLES), weights, strict=True)) / len(_ANGLES)


def _j(order: int, x: Any) -> Any:
    size = np.abs(x)
    wave, weights = (np.sin, np.sin(_ANGLES)) if order else (np.cos, np.ones(32))
    found = _pieces(size, (size < _NEAR, lambda x: _mean(x, wave, weights)), (size >= _NEAR, lambda x: _far(order, x)))
    return np.sign(x) * found if order else found


def _y(order: int, x: Any) -> Any:
    """Neumann's series, DLMF 10.23.16 and 10.23.17; its Bessel functions are integrals as in `_j`."""
    k = np.arange(1, 32)[:, None]

    def near(x: Any) -> Any:
        rest = np.log(x / 2) + _EULER
        if order == 0:
            even = ((-1.0) ** k * np.cos(2 * k * _ANGLES) / k).sum(0)
            return 2 / math.pi * (rest * _j(0, x) - 2 * _mean(x, np.cos, even))
        odd = ((-1.0) ** k * (2 * k + 1) / (k * (k + 1)) * np.sin((2 * k + 1) * _ANGLES)).sum(0)
        return 2 / math.pi * ((rest - 1) * _j(1, x) - _mean(x, np.sin, odd) - _j(0, x) / x)
    return _pieces(x, (x == 0, lambda x: -math.inf), ((x > 0) & (x < _NEAR), near),
                   (x >= _NEAR, lambda x: _far(order, x, True)))


def scaled_i(order: int, x: Any) -> Any:
    """e^-|x| I(|x|): DLMF 10.32.3, where opposite angles are added without cancellation; 10.40.1 for large x. Of orders
    above 1, the series 10.25.2 below 1."""
    def series(x: Any) -> Any:
        return np.exp(-x) * sum((x / 2) ** (2 * k + order) / (math.factorial(k) * math.factorial(k + order))
                                for k in range(12))

    def near(x: Any) -> Any:
        total = np.zeros_like(x)
        for t in _ANGLES:
            both = np.expm1(-2 * x * math.cos(t))
            wave = math.cos(order * t) * np.exp(-2 * x * math.sin(t / 2) ** 2)
            total += -wave * both if order % 2 else wave * (2 + both)
        return total / 64

    def far(x: Any) -> Any:
        total, term = np.ones_like(x), np.ones_like(x)
        for k in range(1, 30):
            term = -term * (4 * order ** 2 - (2 * k - 1) ** 2) / (8 * k * x)
            total += term
        return total / np.sqrt(2 * math.pi * x)
    x = np.abs(x)
    tiny = (x < 1) & (order > 1)
    return _pieces(x, (tiny, series), ((x < _NEAR) & ~tiny, near), (x >= _NEAR, far))


def _k(order: int, x: Any) -> Any:
    """e^x K(x): DLMF 10.32.9 with v = sqrt(2 x) sinh(t / 2); the series 10.31.2 and 10.31.1 below 1."""
    def far(x: Any) -> Any:
        total = np.zeros_like(x)
        for v in 0.2 * np.arange(32) + 0.1:
            total += math.exp(-v * v) / np.sqrt(2 * x + v * v) * (1 + order * v * v / x)
        return 0.4 * total

    def near(x: Any) -> Any:
        q, harmonic = x * x / 4, 0.0
        term, i = np.ones_like(x), np.ones_like(x)
        series = np.full_like(x, order * (1 - 2 * _EULER))
        for k in range(1, 14):
            harmonic += 1 / k
            term = term * q / (k * (k + order))
            i += term
            series += term * (2 * harmonic + 1 / (k + 1) - 2 * _EULER if order else harmonic)
        if order:
            return np.exp(x) * (1 / x + np.log(x / 2) * i * x / 2 - x / 4 * series)
        return np.exp(x) * (series - (np.log(x / 2) + _EULER) * i)
    return _pieces(x, (x == 0, lambda x: math.inf), ((x > 0) & (x < 1), near), (x >= 1, far))


def _decayed(x: Any, found: Any) -> Any:
    """e^-x found, 0 for infinite x."""
    return np.where(np.isposinf(x), 0.0, np.exp(-x) * found)


def _grown(x: Any, found: Any) -> Any:
    """e^|x| found, infinite for infinite x; in two steps, as e^|x| may be infinite where the product is not."""
    half = np.exp(np.abs(x) / 2)
    return np.where(np.isinf(x), math.inf, half * found * half)


def _each(order: Any, x: Any, function: Callable[[int, Any], Any]) -> Any:
    """function(n, x) for the whole number n next to |order|, which is one for all x, or another for some."""
    n = np.abs(np.rint(order))
    return _pieces(x, *[(n == k, partial(function, int(k))) for k in np.unique(n)])


def _neighbours(function: Callable[..., Tensor], order: Any, x: Tensor) -> Tensor:
    """The derivative of I of an order: the mean of those of the orders before and after it, DLMF 10.29.1."""
    return mul(add(function(sub(order, 1.0), x), function(add(order, 1.0), x)), 0.5)


@_function(lambda scipy, n, x: scipy.iv(np.rint(n), x), ((0, 4), (-4, 4)), {
    "input": lambda g, order, input: mul(g, _neighbours(_i, order, input))})
def bessel_i(order: Any, input: Any) -> Any:
    """The modified Bessel function of the first kind of a whole order: what the derivatives of i0 and i1 are."""
    return _each(order, input, lambda n, x: np.sign(x) ** n * _grown(x, scaled_i(n, x)))


@_function(lambda scipy, n, x: scipy.ive(np.rint(n), x), ((0, 4), (-30, 30)), {
    "input": lambda g, order, input, out: mul(g, sub(_neighbours(_ie, order, input), mul(sign(input), out)))})
def scaled_bessel_i(order: Any, input: Any) -> Any:
    """e^-|input| bessel_i(order, input)."""
    return _each(order, input, lambda n, x: np.sign(x) ** n * scaled_i(n, x))


def _i(order: Any, x: Tensor) -> Tensor:
    return bessel_i(order, x)


def _ie(order: Any, x: Tensor) -> Tensor:
    return scaled_bessel_i(order, x)


@_function("j0", (-30, 30))
def bessel_j0(input: Any) -> Any:
    """The Bessel function of the first kind of order 0, by the integral DLMF 10.9.1."""
    return _j(0, input)


@_function("j1", (-30, 30))
def bessel_j1(input: Any) -> Any:
    """The Bessel function of the first kind of order 1, by the integral DLMF 10.9.2."""
    return _j(1, input)


@_function("y0", (0, 30))
def bessel_y0(input: Any) -> Any:
    """The Bessel function of the second kind of order 0 (DLMF 10.23.16): -inf at 0, NaN below."""
    return _y(0, input)


@_function("y1", (0.01, 30))
def bessel_y1(input: Any) -> Any:
    """The Bessel function of the second kind of order 1 (DLMF 10.23.17): -inf at 0, NaN below."""
    return _y(1, input)


@_function("i0", (-4, 4), {"input": lambda g, input: mul(g, bessel_i(1.0, input))})
def i0(input: Any) -> Any:
    """The modified Bessel function of the first kind of order 0 (DLMF 10.32.1)."""
    return _grown(input, scaled_i(0, input))


@_function("i0e", (-30, 30), {"input": lambda g, input, out: mul(g, sub(_ie(1.0, input), mul(sign(input), out)))})
def i0e(input: Any) -> Any:
    """e^-|input| i0(input) (DLMF 10.32.1)."""
    return scaled_i(0, input)


@_function("i1", (-4, 4), {"input": lambda g, input: mul(g, mul(add(i0(input), bessel_i(2.0, input)), 0.5))})
def i1(input: Any) -> Any:
    """The modified Bessel function of the first kind of order 1 (DLMF 10.32.3)."""
    return np.sign(input) * _grown(input, scaled_i(1, input))


@_function("i1e", (-30, 30), {"input": lambda g, input, out: mul(g, sub(
    mul(add(i0e(input), scaled_bessel_i(2.0, input)), 0.5), mul(sign(input), out)))})
def i1e(input: Any) -> Any:
    """e^-|input| i1(input) (DLMF 10.32.3)."""
    return np.sign(input) * scaled_i(1, input)


modified_bessel_i0, modified_bessel_i1 = i0, i1


@_function("k0", (0, 30))
def modified_bessel_k0(input: Any) -> Any:
    """The modified Bessel function of the second kind of order 0 (DLMF 10.32.9): inf at 0, NaN below."""
    return _decayed(input, _k(0, input))


@_function("k1", (0.01, 30))
def modified_bessel_k1(input: Any) -> Any:
    """The modified Bessel function of the second kind of order 1 (DLMF 10.32.9): inf at 0, NaN below."""
    return _decayed(input, _k(1, input))


@_function("k0e", (0, 30))
def scaled_modified_bessel_k0(input: Any) -> Any:
    """e^input modified_bessel_k0(input) (DLMF 10.32.9)."""
    return _k(0, input)


@_function("k1e", (0.01, 30))
def scaled_modified_bessel_k1(input: Any) -> Any:
    """e^input modified_bessel_k1(input) (DLMF 10.32.9)."""
    return _k(1, input)


@_function(lambda scipy, x: scipy.spherical_jn(0, x), (-9, 9))
def spherical_bessel_j0(input: Any) -> Any:
    """sin(input) / input, 1 at 0."""
    return np.where(np.isinf(input), 0.0, np.sinc(input / math.pi))


@_function("airy", (-20, 9))
def airy_ai(input: Any) -> Any:
    """The Airy function Ai: 1 / pi times the integral over t > 0 of cos(t^3 / 3 + input t).

    The path of integration is moved up by s, so that the integrand falls as e^(-s t^2) (s = sqrt(input) goes through
    the saddle point, DLMF 9.5.4); for large negative arguments DLMF 9.7.9.
    """
    def integral(x: Any, s: Any, width: Any) -> Any:
        total = np.zeros_like(x)
        for p in 0.08 * np.arange(110) + 0.04:
            t = p * width
            total += np.exp(-s * t * t) * np.cos(t ** 3 / 3 + (x - s * s) * t)
        return 0.08 / math.pi * width * np.exp(s ** 3 / 3 - x * s) * total

    def far(x: Any) -> Any:
        zeta, term = 2 / 3 * (-x) ** 1.5, np.ones_like(x)
        sums = [np.ones_like(x), np.zeros_like(x)]
        for k in range(1, 30):
            term = term * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1)) / zeta
            sums[k % 2] += -term if k % 4 > 1 else term
        angle = zeta - math.pi / 4
        return (np.cos(angle) * sums[0] + np.sin(angle) * sums[1]) / np.sqrt(math.pi * np.sqrt(-x))
    return _pieces(input, (input < -9, far), ((input >= -9) & (input < 1), lambda x: integral(
        x, np.where(x > -1, 1.0, 0.5), 1.0)), (input >= 1, lambda x: integral(x, np.sqrt(x), x ** -0.25)))


# ---- normal distribution, zeta and gamma functions -------------------------------------------------------------------

def _erfcx(x: Any) -> Any:
    """e^(x^2) erfc(x): Matta and Reichel 1971, "Uniform computation of the error function", with step 1/2."""
    y = np.abs(x)
    total = sum(math.exp(-t * t) / (t * t + y * y) for t in 0.5 * np.arange(13) + 0.25) * y / math.pi
    total = total + np.where(y < 2 * math.pi, 2 * np.exp(y * y) / (1 + np.exp(4 * math.pi * y)), 0)
    total = np.where(np.isinf(y), 0, total)
    return np.where(x < 0, 2 * np.exp(x * x) - total, total)


_ROOT_2, _SLOPE = math.sqrt(2), math.sqrt(2 / math.pi)


def _repeated(n: int, x: Any) -> Any:
    """e^(x^2) times the n-th integral of erfc: the recurrence DLMF 7.18.7, up from erfcx, or (for x above 1, where that
    cancels) down, as a continued fraction of the ratios of neighbours."""
    def up(x: Any) -> Any:
        before, found = np.full_like(x, 2 / math.sqrt(math.pi)), _erfcx(x)
        for k in range(1, n + 1):
            before, found = found, (before - 2 * x * found) / (2 * k)
        return found

    def down(x: Any) -> Any:
        ratio, found = np.zeros_like(x), _erfcx(x)
        for k in range(n + 200, 1, -1):
            ratio = 1 / (2 * x + 2 * k * ratio)
            found = found * ratio if k <= n + 1 else found
        return found
    return _pieces(x, (x < 1, up), (x >= 1, down))


def _integral_truth(scipy: Any, n: Any, x: Any) -> Any:
    n = np.rint(n)                                      # a parabolic cylinder function, DLMF 12.7.7
    return np.exp(x * x / 2) / np.sqrt(2 ** (n - 1) * math.pi) * scipy.pbdv(-n - 1, x * _ROOT_2)[0]


@_function(_integral_truth, ((0, 4), (-3, 20)), {
    "input": lambda g, order, input: mul(g, _integral_slope(add(rint(order), 1.0), input))})
def erfc_integral(order: Any, input: Any) -> Any:
    """e^(input^2) times the integral of erfc that is repeated `order` times: what the derivatives of erfcx are."""
    return _each(order, input, _repeated)


def _integral_slope(following: Tensor, x: Tensor) -> Tensor:
    return mul(mul(following, erfc_integral(following, x)), -2.0)


def _tail_slope(x: Tensor) -> Tensor:
    """The derivative of `log_ndtr`: the normal density over the distribution function, on either side of 0."""
    above = gt(x, 0.0)
    high, low = where(above, where(gt(x, 1e4), 1e4, x), 0.0), where(above, 0.0, x)
    falling = div(mul(exp(mul(square(high), -0.5)), _SLOPE), erfc(mul(high, -1 / _ROOT_2)))
    return where(above, falling, div(_SLOPE, erfcx(mul(low, -1 / _ROOT_2))))


@_function("erfcx", (-3, 30), {"input": lambda g, input: mul(g, mul(erfc_integral(1.0, input), -2.0))})
def erfcx(input: Any) -> Any:
    """The scaled complementary error function e^(input^2) erfc(input)."""
    return _erfcx(input)


@_function("log_ndtr", (-30, 5), {"input": lambda g, input: mul(g, _tail_slope(input))})
def log_ndtr(input: Any) -> Any:
    """The logarithm of the distribution function of the standard normal distribution, accurate where that is tiny."""
    tail = _erfcx(np.abs(input) / _ROOT_2) / 2
    half = input * input / 2
    return np.where(input < 0, np.log(tail) - half, np.log1p(-tail * np.exp(-half)))


@_function("ndtri", (0.001, 0.999), {"input": lambda g, out: mul(g, mul(exp(mul(square(out), 0.5)), 1 / (
    _SLOPE / 2)))})
def ndtri(input: Any) -> Any:
    """The inverse of `ndtr`: -inf at 0, inf at 1, NaN outside [0, 1]. Abramowitz and Stegun 26.2.23, and three steps of
    Halley's method on it."""
    p = np.minimum(input, 1 - input)
    t = np.sqrt(-2 * np.log(p))
    y = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    for _ in range(3):                                  # ndtr(-y) = p, for y > 0: d = (ndtr(-y) - p) / its slope
        d = _erfcx(y / _ROOT_2) / _SLOPE - p * np.exp(y * y / 2) * (2 / _SLOPE)
        y = y + d / (1 + y * d / 2)
    y = np.where(p == 0.5, 0.0, np.where(p == 0, math.inf, y))
    return np.where(input > 0.5, y, -y)


def _refused(name: str) -> Callable[[Tensor], NoReturn]:
    """What stands in the place of a derivative that has no closed form, as in PyTorch."""
    def refused(g: Tensor) -> NoReturn:
        fail(name, "has no derivative in its first argument", g.array.layout, "detach it", NotImplementedError)
    return refused


def _zeta(input: Tensor, other: Tensor) -> Tensor:
    return zeta(input, other)


@_function("zeta", ((1.5, 9), (0.1, 9)), {
    "input": _refused("zeta"),
    "other": lambda g, input, other: neg(mul(g, mul(input, _zeta(add(input, 1.0), other))))})
def zeta(input: Any, other: Any) -> Any:
    """The Hurwitz zeta function: the sum over k >= 0 of (other + k)^-input. Differentiable in `other`.

    inf for input = 1 and where other is 0, -1, ...; NaN for input < 1, and for other < 0 unless input is whole.
    """
    s, q = input, other
    found = hurwitz(s, np.where(q > 0, q, 1), 12)
    low = (q < 0) & (s == np.floor(s))
    if low.any():                                       # the terms below 0 are a sum of positive ones, but for a sign
        part = q - np.floor(q)
        below = hurwitz(s, 1 - part, 12) - hurwitz(s, 1 - q, 12)
        found = np.where(low, hurwitz(s, part, 12) + np.where(s % 2, -1, 1) * below, found)
    found = np.where((q < 0) & ~low | (s < 1), math.nan, found)
    return np.where((s == 1) | (q <= 0) & (q == np.floor(q)) & (s > 1), math.inf, found)


def _density(a: Any, x: Any) -> Any:
    """x^a e^-x / gamma(a + 1); for large a by Stirling's series, DLMF 5.11.1."""
    small = np.frompyfunc(lambda v: math.lgamma(v + 1), 1, 1)(np.where(a < 20, a, 0)).astype(np.float64)
    far = (x - a) / a
    rest = sum(b * a ** -k for k, b in ((1, 1 / 12), (3, -1 / 360), (5, 1 / 1260), (7, -1 / 1680), (9, 1 / 1188)))
    large = -a * (far - np.log1p(far)) - rest - np.log(2 * math.pi * a) / 2
    return np.exp(np.where(a < 20, a * np.log(x) - x - small, large))


def _small_upper(a: Any, x: Any) -> Any:
    """Q for a < 1, x < a + 1, accurate where it is tiny: the series DLMF 8.7.3, and 5.7.3 for lgamma(1 + a)."""
    k = np.arange(2.0, 60)
    rest = np.polynomial.polynomial.polyval(a, [0, 1 - _EULER, *(-1) ** k * hurwitz(k, np.full(58, 2.0), 12) / k])
    front, term, total = a * np.log(x) + np.log1p(a) - rest, np.ones_like(x), np.zeros_like(x)
    for i in range(1, 30):
        term = term * -x / i
        total += term / (a + i)
    return -np.expm1(front) - np.exp(front) * a * total


def _incomplete(a: Any, x: Any, upper: bool) -> Any:
    """P(a, x), or Q = 1 - P: the series DLMF 8.11.4 below a + 1, the continued fraction 8.9.2 above."""
    below, front = x < a + 1, _density(a, x)
    total = term = np.ones_like(a)
    k, going = 0, below
    while going.any():
        k += 1
        term = np.where(going, term * x / (a + k), 0)
        total = total + term
        going = term > 1e-17 * total
    lower = front * total
    b = x + 1 - a                                       # Lentz's algorithm in Thompson and Barnett's form, 1986
    c, d = np.full_like(b, 1e300), 1 / b
    h, k, going = d, 0, ~below
    while going.any() and k < 100000:
        k += 1
        b = b + 2
        d, c = 1 / (b - k * (k - a) * d), b - k * (k - a) / c
        h, going = np.where(going, h * c * d, h), going & (np.abs(c * d - 1) > 1e-16)
    above = front * a * h
    if upper:
        found, small = np.where(below, 1 - lower, above), below & (a < 1) & (lower > 0.5)
        found[small] = _small_upper(a[small], x[small])
        return found
    return np.where(below, lower, 1 - above)


def _near_normal(a: Any, x: Any, upper: bool) -> Any:
    """The uniform expansion for large a, DLMF 8.12.3 and 8.12.4, with the first terms of its coefficients at eta = 0
    (8.12.12): to 1e-14 for a above 1e7."""
    far = (x - a) / a
    eta = np.sign(far) * np.sqrt(2 * (far - np.log1p(far)))
    y = np.abs(eta) * np.sqrt(a / 2)
    tail = np.where(y > 27, 0, _erfcx(y) / 2 * np.exp(-y * y))
    series = -1 / 3 + eta * (1 / 12 + eta * (-2 / 135 + eta / 864)) - (1 / 540 + eta / 288) / a
    rest = np.exp(-y * y) / np.sqrt(2 * math.pi * a) * np.where(y > 27, 0, series)
    rest = np.where(np.isnan(rest), 0, rest)
    return np.where((eta > 0) == upper, tail, 1 - tail) + (rest if upper else -rest)


def _gamma(a: Any, x: Any, upper: bool) -> Any:
    inside = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    out = np.where((a == 0) & (x > 0) | np.isfinite(a) & np.isposinf(x), 1.0, 0.0)
    for part, function in ((inside & (a <= 1e7), _incomplete), (inside & (a > 1e7), _near_normal)):
        if part.any():
            out[part] = function(a[part], x[part], upper)
    wrong = ~((a >= 0) & (x >= 0)) | (a == 0) & (x == 0) | np.isinf(a) & np.isinf(x)
    return np.where(wrong, math.nan, np.where(inside, out, 1 - out if upper else out))


def _gamma_slope(g: Tensor, input: Tensor, other: Tensor) -> Tensor:
    """g times the density of the gamma distribution: e^((input - 1) log(other) - other - lgamma(input))."""
    return mul(g, exp(sub(sub(xlogy(sub(input, 1.0), other), other), lgamma(input))))


def _with_float(op: Elementwise, inputs: tuple, dtype: np.dtype) -> np.dtype:
    """One of the tensors must be of floats, as PyTorch has it."""
    if not any(is_float(t.dtype) for t in inputs if isinstance(t, Tensor)):
        fail(op.name, "needs a floating-point tensor", [t.layout for t in inputs if isinstance(t, Tensor)],
             "convert with .float()", NotImplementedError)
    return dtype


_GAMMA = (0.2, 30), (0.2, 30)


@_function("gammainc", _GAMMA, {"input": _refused("igamma"), "other": _gamma_slope}, dtypes=_with_float, tensors=2)
def igamma(input: Any, other: Any) -> Any:
    """The regularized lower incomplete gamma function P: the integral of t^(input - 1) e^-t from 0 to `other`, over
    gamma(input). Differentiable in `other`. NaN for negative arguments."""
    return _gamma(input, other, False)


@_function("gammaincc", _GAMMA, {
    "input": _refused("igammac"), "other": lambda g, input, other: neg(_gamma_slope(g, input, other))},
    dtypes=_with_float, tensors=2)
def igammac(input: Any, other: Any) -> Any:
    """The regularized upper incomplete gamma function Q = 1 - P, accurate where it is tiny: see `igamma`."""
    return _gamma(input, other, True)


def _whole_samples(make: Any) -> Iterator[tuple]:
    """Whole numbers as the first argument, which has no derivative."""
    yield make.ints(3, 5, low=2, high=9), make(3, 5, low=0.2, high=15)
    yield make.ints(4, 1, low=2, high=9), make(33, low=0.2, high=15)


for _op in (zeta, igamma, igammac):
    _op.samples(_whole_samples)


# ---- orthogonal polynomials ------------------------------------------------------------------------------------------

_DEGREE = 100_000


def _polynomial(name: str, oracle: Any, second: Callable[[Any], Any], step: Callable[..., Any], doc: str,
                argument: Callable[[Any], Any] = lambda x: x) -> Elementwise:
    """The op of polynomials p_0 = 1, p_1 = second(x), p_{k+1} = step(k, x, p_k, p_{k-1}), DLMF 18.9.1."""
    def values(input: Any, n: Any) -> Any:
        x, n = argument(input), np.trunc(n)
        most = np.fmax.reduce(n, None, initial=0)
        if most > _DEGREE:
            fail(name, f"n must be at most {_DEGREE}: each degree is a step", most)
        before, now = np.zeros_like(x), np.ones_like(x)
        out = np.where(n == 0, 1.0, np.where(np.isnan(n), math.nan, 0.0))
        for k in range(int(most)):
            before, now = now, step(k, x, now, before) if k else second(x)
            out = np.where(n == k + 1, now, out)
        return out
    values.__name__, values.__doc__ = name, (
        f"{doc}, at `input`; 0 for n < 0. n counts as a whole number, and RuntimeError above {_DEGREE:,}.")
    return _function(lambda scipy, x, n: oracle(scipy, argument(x), np.trunc(n)), ((-1, 2), (-1, 9)))(values)


def _of(name: str) -> Callable[..., Any]:
    return lambda scipy, x, n: np.where(n < 0, 0, getattr(scipy, f"eval_{name}")(np.maximum(n, 0).astype(int), x))


def _of_second(sign: int) -> Callable[..., Any]:
    """V_n = U_n - U_{n-1}, W_n = U_n + U_{n-1}."""
    return lambda scipy, x, n: _of("chebyu")(scipy, x, n) + sign * _of("chebyu")(scipy, x, n - 1)


def _chebyshev(letter: str, oracle: Any, second: Callable[[Any], Any], rule: str) -> tuple[Elementwise, Elementwise]:
    """The polynomials of one kind, and those shifted to [0, 1]."""
    name, doc = f"chebyshev_polynomial_{letter}", f"The Chebyshev polynomial of degree n that is {rule}"
    return (_polynomial(name, oracle, second, lambda k, x, p, q: 2 * x * p - q, f"{doc} at cos(t)"),
            _polynomial("shifted_" + name, oracle, second, lambda k, x, p, q: 2 * x * p - q,
                        f"{doc} at 2 x - 1 = cos(t)", lambda x: 2 * x - 1))


chebyshev_polynomial_t, shifted_chebyshev_polynomial_t = _chebyshev("t", _of("chebyt"), lambda x: x, "cos(n t)")
chebyshev_polynomial_u, shifted_chebyshev_polynomial_u = _chebyshev(
    "u", _of("chebyu"), lambda x: 2 * x, "sin((n + 1) t) / sin(t)")
chebyshev_polynomial_v, shifted_chebyshev_polynomial_v = _chebyshev(
    "v", _of_second(-1), lambda x: 2 * x - 1, "cos((n + 1/2) t) / cos(t/2)")
chebyshev_polynomial_w, shifted_chebyshev_polynomial_w = _chebyshev(
    "w", _of_second(1), lambda x: 2 * x + 1, "sin((n + 1/2) t) / sin(t/2)")
hermite_polynomial_h = _polynomial(
    "hermite_polynomial_h", _of("hermite"), lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - 2 * k * q,
    "The physicist's Hermite polynomial of degree n")
hermite_polynomial_he = _polynomial(
    "hermite_polynomial_he", _of("hermitenorm"), lambda x: x, lambda k, x, p, q: x * p - k * q,
    "The probabilist's Hermite polynomial of degree n")
laguerre_polynomial_l = _polynomial(
    "laguerre_polynomial_l", _of("laguerre"), lambda x: 1 - x,
    lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1), "The Laguerre polynomial of degree n")
legendre_polynomial_p = _polynomial(
    "legendre_polynomial_p", _of("legendre"), lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1),
    "The Legendre polynomial of degree n")
