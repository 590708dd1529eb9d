"""The elementwise primitives: a table with one entry for each.

An entry has NumPy's function for dtypes without a kernel, the VJPs, and the docstring that users read. Read
`elementwise.py` first: it says what the options of an entry mean. `formula.py` has the functions that are composed of
these primitives.
"""
from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..core.arrays import copy_array
from ..core.op import Primitive
from ..core.out import writes
from ..core.shape import BOOL, FLOAT32, INT64, default_float, fail, is_float
from ..core.tensor import Tensor, new_tensor
from ..devices.memory import Array, Buffer, Layout, alloc, layout
from ..devices.plan import Plan, host_plan, not_half
from ..devices.work import follows
from .arguments import is_number
from .convert import cast
from .dispatch import binary, constant
from .elementwise import Elementwise

__all__ = ["abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
           "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil",
           "cos", "cosh", "digamma", "div", "eq", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor",
           "floor_divide", "fmod", "ge", "gt", "isfinite", "isinf", "isnan", "le", "lgamma", "log", "log10",
           "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum",
           "minimum", "mul", "ne", "neg", "polygamma", "pow", "reciprocal", "remainder", "rsqrt", "sign",
           "sin", "sinh", "sqrt", "square", "sub", "tan", "trunc"]


def accumulate(target: Tensor, more: Tensor) -> None:
    """target += more in place, not recorded. The engine uses it for its own buffers and for `.grad`."""
    x, y = target.array, more.array
    key = x.layout, y.layout
    plan = add.plans.get(key)
    if plan is None:
        plan = add.plan(key, {})
    if plan.kernel is None or plan.layout is not x.layout:
        add.into(target, target, more)
    else:
        plan.kernel.call(x.ptr, x.ptr, y.ptr, plan.walk)
        (x if type(x) is Buffer else x.storage).version += 1      # type: ignore[misc]


def _whole(function: Callable) -> Callable:
    """A NumPy division that raises RuntimeError for integer divisors of 0."""
    def run(a: Any, b: Any, out: Any) -> None:
        if out.size and b.dtype.kind in "iu" and (b == 0).any():
            fail(function.__name__, "ZeroDivisionError: an integer was divided by zero", "", "use floats, or where()")
        function(a, b, out=out)
    return run


def _keeps_integers(function: Callable) -> Callable:
    """A rounding function that copies integers."""
    def run(a: Any, out: Any) -> None:
        np.copyto(out, a) if a.dtype.kind in "iub" else function(a, out=out)
    return run


def _integer_power(a: Any, b: Any, out: Any) -> None:
    """`np.power`; negative powers of integers are 0, except those of 1 and -1."""
    if a.dtype.kind not in "iu":
        np.power(a, b, out=out)
        return
    negative = b < 0
    sign = np.where((a == -1) & (b % 2 != 0), -1, np.where(np.abs(a) == 1, 1, 0))
    np.copyto(out, np.where(negative, sign, np.power(a, np.where(negative, 0, b))), casting="unsafe")


def _scipy(name: str) -> Callable:
    """SciPy's function of that name, as the oracle of tests: imported when a test calls it."""
    def oracle(*arrays: Any) -> Any:
        import scipy.special
        return getattr(scipy.special, name)(*arrays)
    return oracle


# ---- the primitives: gradients are those of the formula; at kinks, PyTorch's choice ----------------------------------

def zeros_of(g: Tensor) -> Tensor:
    """Zeros like `g`: the gradient of a function that is constant between its jumps."""
    to = g.array.layout
    out = alloc(layout(to.device, to.dtype, to.shape))
    copy_array(out, constant(0, to.dtype, to.device).array)
    return new_tensor(out, None)


def _half_where_equal(g: Tensor, a: Tensor, b: Tensor, below: Callable) -> Tensor:
    """The gradient of maximum or minimum in `a`: 0 where `b` is the result, half where both are equal."""
    return where(below(a, b), 0.0, where(eq(a, b), mul(g, 0.5), g))


def _power_rule(g: Tensor, input: Tensor, exponent: Tensor) -> Tensor:
    # input^0 is constant, also where the formula is 0 inf. Elsewhere that stays: its derivative in `exponent` is not 0.
    flat = logical_and(eq(exponent, 0), logical_not(isfinite(div(g.detach(), input.detach()))))
    return where(flat, 0.0, mul(g, mul(exponent, pow(where(flat, 1.0, input), sub(exponent, 1)))))


def _exponent_rule(g: Tensor, input: Tensor, exponent: Tensor, out: Tensor) -> Tensor:
    flat = logical_and(eq(input, 0), ge(exponent, 0))           # 0^b is constant in b; its formula has 0 log 0, a NaN
    return where(flat, 0.0, mul(g, mul(out, log(where(flat, 1.0, input)))))


def _atan2_rule(g: Tensor, numerator: Tensor, input: Tensor, other: Tensor) -> Tensor:
    size = maximum(abs(input.detach()), abs(other.detach()))            # a constant: the result does not depend on it
    size = where(logical_or(eq(size, 0), isinf(size)), 1.0, size)
    norm = add(square(div(input, size)), square(div(other, size)))      # the squares stay in range; 0 at the origin
    return div(mul(g, div(div(numerator, size), where(eq(norm, 0), 1.0, norm))), size)


_POSITIVE, _WHOLE, _INSIDE = (0.1, 4.0), (0.2, 3.0), (-0.9, 0.9)
_LN2, _LN10, _2_SQRTPI = math.log(2), math.log(10), 2 / math.sqrt(math.pi)


def _scaled(name: str) -> Callable[..., tuple]:
    """The option `alpha` of `add` and `sub`: `other` is multiplied by it first."""
    def options(input: Any, other: Any, *, alpha: Any = 1) -> tuple:
        if type(alpha) is int and alpha == 1:
            return input, other
        real = any([is_float(t.dtype) if isinstance(t, Tensor) else isinstance(t, float) for t in (input, other)])
        if isinstance(alpha, float) and not real:
            fail(name, "alpha must be a whole number for integer tensors", alpha, "convert the tensors with .float()")
        if all([t.dtype == BOOL if isinstance(t, Tensor) else isinstance(t, bool) for t in (input, other)]):
            alpha = bool(alpha)
        return input, mul(other, alpha) if isinstance(other, Tensor) else other * alpha
    return options


def _cut_off(input: Any, other: Any) -> Tensor:
    """trunc(input / other). Its slope is 0, for a divisor of 0 too, where 0 times the slope of the quotient is NaN: so
    the quotient is that of detached tensors, and the choice between them and the given ones gives those 0."""
    return trunc(div(*[where(constant(True, BOOL, t.device), t.detach(), t)
                       if isinstance(t, Tensor) and t.requires_grad else t for t in (input, other)]))


def _rounded(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """The option `rounding_mode` of `div`: "floor" and "trunc" round, keep integers integers, and have gradient 0."""
    if rounding_mode is None:
        return input, other
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        fail("div", "rounding_mode must be None, 'trunc' or 'floor'", repr(rounding_mode))
    if any([is_float(t.dtype) if isinstance(t, Tensor) else isinstance(t, float) for t in (input, other)]):
        return _cut_off(input, other)
    return floor_divide(sub(input, fmod.call(input, other)), other)


def _no_masks(op: Elementwise, inputs: tuple, dtype: np.dtype) -> np.dtype:
    """The dtype rule of `sub`: no operand may be a bool, whatever the other one is."""
    for t in inputs:
        mask = isinstance(t, (bool, np.bool_))
        op.allow(t.array.layout.dtype if isinstance(t, Tensor) else BOOL if mask else FLOAT32)
    return dtype


def _truth(op: Elementwise, inputs: tuple, dtype: np.dtype) -> np.dtype:
    """The dtype rule of logical ops: operands are converted to bool (true where they are not 0)."""
    return BOOL


def _masks_count(op: Elementwise, inputs: tuple, dtype: np.dtype) -> np.dtype:
    """The dtype rule of `square`: bools give int64."""
    return INT64 if dtype == BOOL else dtype


add = Elementwise("add", np.add, "input other", {"input": lambda g: g, "other": lambda g: g}, options=_scaled("add"),
                  once="always", commutes=True, numbers=True,
                  doc="input + alpha * other, in the promoted dtype.\n\n"
                      "Tensors or numbers, which broadcast; of bools, their logical or. RuntimeError for a float\n"
                      "`alpha` with integer tensors.")
sub = Elementwise("sub", np.subtract, "input other", {"input": lambda g: g, "other": lambda g: neg(g)}, kinds="if",
                  dtypes=_no_masks, options=_scaled("sub"), once="always", numbers=True,
                  doc="input - alpha * other, in the promoted dtype.\n\n"
                      "Tensors or numbers, which broadcast. NotImplementedError for a bool operand.")
mul: Elementwise = Elementwise(
    "mul", np.multiply, "input other",
    {"input": lambda g, other: mul.call(g, other), "other": lambda g, input: mul.call(g, input)},
    once="alike", commutes=True, numbers=True,
    doc="input * other, in the promoted dtype. Tensors or numbers, which broadcast; of bools, their logical and.")
div: Elementwise = Elementwise(
    "div", np.true_divide, "input other",       # no rule keeps the quotient: programs go on to change it in place
    {"input": lambda g, other: div(g, other),
     "other": lambda g, input, other: neg(div(mul(g, div(input, other)), other))},
    result="float", domain=((-2.0, 2.0), _POSITIVE), options=_rounded, once="number", numbers=True,
    doc="input / other; integers and bools give the default float.\n\n"
        "With `rounding_mode` \"floor\" or \"trunc\" the quotient is rounded down or towards 0: integers then stay\n"
        "integers, and the gradient is 0.")
neg: Elementwise = Elementwise("neg", np.negative, "input", {"input": lambda g: neg(g)}, kinds="if",
                               once="always", writes=(),
                               doc="-input. NotImplementedError for bools.")
abs = Elementwise("abs", np.absolute, "input", {"input": lambda g, input: mul(g, sign(input))}, kinds="if",
                  once="always", writes=(),
                  doc="|input|; the gradient at 0 is 0. NotImplementedError for bools.")
sign: Elementwise = Elementwise(
    "sign", lambda a, out: np.copyto(out, a) if a.dtype == BOOL else np.sign(a, out=out), "input",
    {"input": lambda g: zeros_of(g)}, oracle=lambda a: np.where(np.isnan(a), 0, np.sign(a)), writes=(),
    doc="-1, 0 or 1 where `input` is negative, zero or positive, in its dtype; 0 for NaN. The gradient is 0.")
square = Elementwise("square", np.square, "input", {"input": lambda g, input: mul(g, mul(input, 2.0))}, kinds="if",
                     dtypes=_masks_count, doc="input^2; bools give int64.")
reciprocal = Elementwise("reciprocal", np.reciprocal, "input",
                         {"input": lambda g, input: neg(div(div(g, input), input))}, result="float", domain=_POSITIVE,
                         doc="1 / input. Integers and bools give the default float.")
maximum = Elementwise(
    "maximum", np.maximum, "input other",
    {"input": lambda g, input, other: _half_where_equal(g, input, other, lt),
     "other": lambda g, input, other: _half_where_equal(g, other, input, lt)}, tensors=2, picks=True,
    doc="The larger of two tensors, elementwise, with broadcasting; NaN if one is NaN (`fmax` ignores NaN).\n\n"
        "Where they are equal, each gets half of the gradient.")
minimum = Elementwise(
    "minimum", np.minimum, "input other",
    {"input": lambda g, input, other: _half_where_equal(g, input, other, gt),
     "other": lambda g, input, other: _half_where_equal(g, other, input, gt)}, tensors=2, picks=True,
    doc="The smaller of two tensors, elementwise, with broadcasting; NaN if one is NaN (`fmin` ignores NaN).\n\n"
        "Where they are equal, each gets half of the gradient.")
floor_divide = Elementwise(
    "floor_divide", _whole(np.floor_divide), "input other",
    {"input": lambda g: zeros_of(g), "other": lambda g: zeros_of(g)}, kinds="if", kernel_kinds="f",
    domain=((-9.0, 9.0), _WHOLE), oracle=np.floor_divide, numbers=True,
    doc="floor(input / other), in the promoted dtype. The gradient is 0. RuntimeError for an integer divisor of 0.")
remainder = Elementwise(
    "remainder", _whole(np.remainder), "input other",
    {"input": lambda g: g, "other": lambda g, input, other: neg(mul(g, floor_divide(input, other)))},
    kinds="if", kernel_kinds="f", domain=((-9.0, 9.0), _WHOLE), oracle=np.remainder,
    doc="input - floor(input / other) * other: it has the sign of `other`. RuntimeError for an integer divisor of 0.")
fmod = Elementwise(
    "fmod", _whole(np.fmod), "input other",
    {"input": lambda g: g, "other": lambda g, input, other: neg(mul(g, _cut_off(input, other)))},
    kinds="if", kernel_kinds="f", domain=((-9.0, 9.0), _WHOLE), oracle=np.fmod, tensors=1,
    doc="input - trunc(input / other) * other: it has the sign of `input`. RuntimeError for an integer divisor of 0.")
pow = Elementwise(
    "pow", _integer_power, "input exponent", {"input": _power_rule, "exponent": _exponent_rule}, kinds="if",
    domain=(_POSITIVE, (-2.0, 2.0)), oracle=np.power, power=True,
    doc="input^exponent, in the promoted dtype; both may be tensors or numbers.\n\n"
        "An integer tensor to a negative whole number raises RuntimeError; to a tensor of negative integers it is\n"
        "0, except for 1 and -1.")
atan2 = Elementwise(
    "atan2", np.arctan2, "input other",
    {"input": lambda g, input, other: _atan2_rule(g, other, input, other),
     "other": lambda g, input, other: neg(_atan2_rule(g, input, input, other))}, result="float", tensors=2,
    doc="The angle of the point with x = other and y = input, in [-pi, pi]; the gradient at the origin is 0.\n\n"
        "Integers and bools give the default float.")


def _real(name: str, function: Callable | None, vjp: Callable, domain: tuple, oracle: Callable | None, doc: str,
          stack: int = 0) -> Elementwise:
    """A function of one real number. `stack`: bytes of local memory that the CUDA kernel may use."""
    return Elementwise(name, function, "input", {"input": vjp}, result="float", domain=domain, oracle=oracle,
                       stack=stack, doc=f"{doc} Integers and bools give the default float.")


exp = _real("exp", np.exp, lambda g, out: mul.call(g, out), (-2, 2), None, "e^input.")
exp2: Elementwise = _real("exp2", np.exp2, lambda g, input: mul(g, mul(exp2(sub(input, 1.0)), 2 * _LN2)), (-2, 2), None,
                          "2^input.")      # the derivative 2^input ln 2 is finite somewhat longer than 2^input
expm1 = _real("expm1", np.expm1, lambda g, input: mul(g, exp(input)), (-2, 2), None,
              "e^input - 1, accurate for small inputs.")
log = _real("log", np.log, lambda g, input: div(g, input), _POSITIVE, None,
            "The natural logarithm: -inf at 0, NaN below.")
log2 = _real("log2", np.log2, lambda g, input: div(g, mul(input, _LN2)), _POSITIVE, None,
             "The logarithm to base 2: -inf at 0, NaN below.")
log10 = _real("log10", np.log10, lambda g, input: div(g, mul(input, _LN10)), _POSITIVE, None,
              "The logarithm to base 10: -inf at 0, NaN below.")
log1p = _real("log1p", np.log1p, lambda g, input: div(g, add(input, 1.0)), (-0.9, 4), None,
              "log(1 + input), accurate for small inputs.")
sqrt = _real("sqrt", np.sqrt, lambda g, out: div(mul(g, 0.5), out), _POSITIVE, None,
             "The square root; NaN below 0.")
rsqrt = _real("rsqrt", None, lambda g, out: mul(mul(g, -0.5), mul(out, square(out))), _POSITIVE,
              lambda a: 1 / np.sqrt(a), "1 / sqrt(input).")
# the CUDA functions of sin, cos and tan put a table on the stack to reduce huge angles
sin = _real("sin", np.sin, lambda g, input: mul(g, cos(input)), (-4, 4), None, "The sine of an angle in radians.",
            stack=40)
cos: Elementwise = _real("cos", np.cos, lambda g, input: neg(mul(g, sin(input))), (-4, 4), None,
                         "The cosine of an angle in radians.", stack=40)
tan = _real("tan", np.tan, lambda g, out: mul(g, add(square(out), 1.0)), (-1.4, 1.4), None,
            "The tangent of an angle in radians.", stack=40)
asin = _real("asin", np.arcsin, lambda g, input: mul(g, rsqrt(sub(1.0, square(input)))), _INSIDE, None,
             "The inverse sine, in [-pi/2, pi/2]; NaN outside [-1, 1].")
acos = _real("acos", np.arccos, lambda g, input: neg(mul(g, rsqrt(sub(1.0, square(input))))), _INSIDE, None,
             "The inverse cosine, in [0, pi]; NaN outside [-1, 1].")
atan = _real("atan", np.arctan, lambda g, input: div(g, add(square(input), 1.0)), (-4, 4), None,
             "The inverse tangent, in [-pi/2, pi/2].")
sinh = _real("sinh", np.sinh, lambda g, input: mul(g, cosh(input)), (-2, 2), None,
             "The hyperbolic sine: (e^input - e^-input) / 2.")
cosh: Elementwise = _real("cosh", np.cosh, lambda g, input: mul(g, sinh(input)), (-2, 2), None,
                          "The hyperbolic cosine: (e^input + e^-input) / 2.")
tanh = _real("tanh", np.tanh, lambda g, input: mul(g, mul(_sigmoid_slope(mul(input, 2.0)), 4.0)), (-2, 2), None,
             "The hyperbolic tangent: sinh(input) / cosh(input).")
asinh = _real("asinh", np.arcsinh, lambda g, input: mul(g, rsqrt(add(square(input), 1.0))), (-4, 4), None,
              "The inverse hyperbolic sine.")
acosh = _real("acosh", np.arccosh, lambda g, input: mul(g, rsqrt(sub(square(input), 1.0))), (1.1, 4), None,
              "The inverse hyperbolic cosine; NaN below 1.")
atanh = _real("atanh", np.arctanh, lambda g, input: div(g, sub(1.0, square(input))), _INSIDE, None,
              "The inverse hyperbolic tangent; NaN outside [-1, 1].")
sigmoid: Elementwise = _real("sigmoid", None, lambda g, input: mul(g, _sigmoid_slope(input)), (-4, 4), _scipy("expit"),
                             "1 / (1 + e^-input).")


def _sigmoid_slope(x: Tensor) -> Tensor:
    """The derivative of sigmoid (and, of 2x, a quarter of that of tanh), without the difference from 1, which loses its
    digits where the result is nearly 1."""
    return mul(sigmoid(x), sigmoid(neg(x)))


erf = _real("erf", None, lambda g, input: mul(g, mul(exp(neg(square(input))), _2_SQRTPI)), (-2, 2), _scipy("erf"),
            "The error function: 2 / sqrt(pi) * the integral of e^(-t^2) from 0 to input.")
erfc = _real("erfc", None, lambda g, input: mul(g, mul(exp(neg(square(input))), -_2_SQRTPI)), (-2, 2),
             _scipy("erfc"), "1 - erf(input), accurate for large inputs.")
erfinv = _real("erfinv", None, lambda g, out: mul(g, mul(exp(square(out)), 1 / _2_SQRTPI)), _INSIDE,
               _scipy("erfinv"), "The inverse of erf; NaN outside [-1, 1].")
lgamma = _real("lgamma", None, lambda g, input: mul(g, digamma(input)), _POSITIVE, _scipy("gammaln"),
               "log |gamma(input)|.")
digamma: Elementwise = _real("digamma", None, lambda g, input: mul(g, _polygamma(input, n=1)), _POSITIVE,
                             _scipy("digamma"), "The derivative of lgamma.")


def _steps(name: str, function: Callable, doc: str) -> Elementwise:
    """A function that is constant between its jumps."""
    return Elementwise(name, _keeps_integers(function), "input", {"input": lambda g: zeros_of(g)}, kinds="if",
                       domain=(-4, 4), oracle=function, writes=(),
                       doc=f"{doc} Integers stay as they are, bools raise NotImplementedError, the gradient is 0.")


floor = _steps("floor", np.floor, "The largest whole number that is not above `input`.")
ceil = _steps("ceil", np.ceil, "The smallest whole number that is not below `input`.")
trunc: Elementwise = _steps("trunc", np.trunc, "The whole number next to `input` in the direction of 0.")
rint = _steps("round", np.rint, "The nearest whole number; of two equally near, the even one.")


def _comparison(name: str, function: Callable, sign: str) -> Elementwise:
    """A comparison of two operands, the second a tensor or a number."""
    return Elementwise(name, function, "input other", result="bool", tensors=1,
                       doc=f"input {sign} other, elementwise: a bool tensor of the broadcast shape. `other` may be a "
                           "number.")


eq = _comparison("eq", np.equal, "==")
ne = _comparison("ne", np.not_equal, "!=")
lt: Elementwise = _comparison("lt", np.less, "<")
le = _comparison("le", np.less_equal, "<=")
gt: Elementwise = _comparison("gt", np.greater, ">")
ge = _comparison("ge", np.greater_equal, ">=")
isnan = Elementwise("isnan", np.isnan, "input", result="bool", doc="Is the element NaN? A bool tensor.")
isinf = Elementwise("isinf", np.isinf, "input", result="bool", doc="Is the element inf or -inf? A bool tensor.")
isfinite = Elementwise("isfinite", np.isfinite, "input", result="bool",
                       doc="Is the element neither infinite nor NaN? A bool tensor.")
logical_and = Elementwise("logical_and", np.logical_and, "input other", result="bool", dtypes=_truth, tensors=2,
                          doc="Are both elements nonzero? A bool tensor of the broadcast shape of two tensors.")
logical_or = Elementwise("logical_or", np.logical_or, "input other", result="bool", dtypes=_truth, tensors=2,
                         doc="Is at least one element nonzero? A bool tensor of the broadcast shape of two tensors.")
logical_xor = Elementwise("logical_xor", np.logical_xor, "input other", result="bool", dtypes=_truth, tensors=2,
                          doc="Is exactly one element nonzero? A bool tensor of the broadcast shape of two tensors.")
logical_not = Elementwise("logical_not", np.logical_not, "input", result="bool", dtypes=_truth,
                          doc="Is the element 0? A bool tensor.")
_BITS = "Integers and bools; NotImplementedError for floats."
bitwise_and = Elementwise("bitwise_and", np.bitwise_and, "input other", kinds="bi", kernel="logical_and",
                          kernel_kinds="b", doc=f"input & other, bit by bit. {_BITS}")
bitwise_or = Elementwise("bitwise_or", np.bitwise_or, "input other", kinds="bi", kernel="logical_or",
                         kernel_kinds="b", doc=f"input | other, bit by bit. {_BITS}")
bitwise_xor = Elementwise("bitwise_xor", np.bitwise_xor, "input other", kinds="bi", kernel="logical_xor",
                          kernel_kinds="b", doc=f"input ^ other, bit by bit. {_BITS}")
bitwise_not = Elementwise("bitwise_not", np.invert, "input", kinds="bi", kernel="logical_not", kernel_kinds="b",
                          writes=(),
                          doc="~input: all bits of integers inverted, bools negated. NotImplementedError for floats.")
bitwise_left_shift = Elementwise("bitwise_left_shift", np.left_shift, "input other", kinds="i", kernel_kinds="",
                                 doc="input << other: integers times 2^other. NotImplementedError for other dtypes.")
bitwise_right_shift = Elementwise("bitwise_right_shift", np.right_shift, "input other", kinds="i", kernel_kinds="",
                                  doc="input >> other: floor(input / 2^other) of integers. NotImplementedError for "
                                      "other dtypes.")
where: Elementwise = Elementwise(
    "where", lambda c, a, b, out: np.copyto(out, np.where(c, a, b)), "condition input other",
    {"input": lambda g, condition: where(condition, g, 0.0), "other": lambda g, condition: where(condition, 0.0, g)},
    oracle=np.where, kernel_kinds="size", selects=True, writes=(),
    doc="`input` where the bool tensor `condition` is true, else `other`, in their promoted dtype.\n\n"
        "All three broadcast; `input` and `other` may be numbers. RuntimeError for a condition of another dtype.")
copy = Elementwise("copy", lambda a, out: np.copyto(out, a), "input", {"input": lambda g: g}, oracle=np.array,
                   kernel_kinds="size", doc="A contiguous copy of `input`.")
copy.called = "clone"
follows("add sub mul div neg abs square reciprocal maximum minimum sqrt", light=True)
follows("exp log tanh sigmoid")


@where.samples
def _where_samples(make: Any) -> Iterator[tuple]:
    yield make.bools(3, 5), make(3, 5), make(3, 5)
    yield make.bools(33), make(4, 33), make(4, 1)
    yield make.bools(3, 1), make(1), make(5)
    yield make.bools(0, 2), make(2), make()


@where.errors
def _where_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(3), make(3), {}), RuntimeError, "condition must be bool"
    yield (make.bools(3), make(4), make(3), {}), RuntimeError, "broadcast"


def _with_integers(division: Elementwise) -> None:
    """Samples and error samples of a division: whole numbers too, and a zero divisor."""
    @division.samples
    def _samples(make: Any) -> Iterator[tuple]:
        yield from division.plain_samples(make)
        yield make.ints(3, 5) - 5, make.ints(5) + 1

    @division.errors
    def _errors(make: Any) -> Iterator[tuple]:
        yield from division.plain_errors(make)
        yield (make.ints(3), 0, {}), RuntimeError, "ZeroDivisionError"


for _division in (floor_divide, remainder, fmod):
    _with_integers(_division)


# ---- powers by a number, and the derivatives of digamma --------------------------------------------------------------

def _prepare_power(input: Layout, *, exponent: float) -> Plan:
    """input^exponent for a number as exponent. Cubes and inverse squares are computed as products, which are faster.

    Roots have the kernels of `sqrt` and `rsqrt`, but the derivative keeps their operand: they may be changed in place.
    """
    value = constant(exponent, input.dtype, input.device).array
    not_half(f"no power kernel for {input.dtype}", input)
    plan = pow.plan((input, value.layout), {})
    out = plan.layout
    root = {0.5: sqrt, -0.5: rsqrt}.get(exponent)
    rooted = None if root is None else root.plan((input,), {})
    squares = square.plan((input,), {})
    after = mul.plan((out, input), {}) if exponent == 3 else reciprocal.plan((out,), {})

    def run(x: Array) -> Array:
        y = alloc(out)
        if root is not None and rooted is not None:
            root.launch(rooted, y, [x])
        elif exponent == 3 or exponent == -2:
            square.launch(squares, y, [x])
            (mul if exponent == 3 else reciprocal).launch(after, y, [y, x] if exponent == 3 else [y])
        else:
            pow.launch(plan, y, [x, value])
        return y
    return Plan(run, out, plan.why)


def _whole_power(input: Tensor, exponent: Any) -> None:
    if not isinstance(exponent, float) and exponent < 0 and not is_float(input.array.layout.dtype):
        fail("pow", "Integers to negative integer powers are not allowed", [input.array.layout, exponent],
             "convert with .float()")


def _power_into(target: Tensor, *inputs: Any, **options: Any) -> Tensor:
    exponent = options.get("exponent", inputs[-1])
    if isinstance(inputs[0], Tensor) and is_number(exponent):
        _whole_power(inputs[0], exponent)
    return Elementwise.into(pow, target, *inputs, **options)


def _power_by_number(input: Any, exponent: Any) -> Any:
    """`pow` with a number as exponent: the shortest of the primitives that computes it."""
    if not isinstance(input, Tensor):
        return NotImplemented
    if not is_float(input.array.layout.dtype):
        if not isinstance(exponent, float):
            _whole_power(input, exponent)
            return pow.apply(input, exponent)
        input = cast(input, default_float())
    short = _SHORT_POWERS.get(exponent)
    return short(input) if short is not None else _power(input, exponent=float(exponent))


def _number_power_rule(g: Tensor, input: Tensor, exponent: float) -> Tensor:
    return mul(g, mul(_power_by_number(input, exponent - 1), exponent)) if exponent else zeros_of(g)


_power = Primitive("power", _prepare_power, {"input": _number_power_rule})
_power.called = "pow"
_SHORT_POWERS: dict[float, Callable] = {1: copy, 2: square, -1: reciprocal}
pow.by_number = _power_by_number
pow.into = _power_into              # type: ignore[method-assign]
pow.call = binary(pow)


@_power.samples
def _power_samples(make: Any) -> Iterator[tuple]:
    for exponent in (0.0, 1.5, 3.0, 4.0, -2.0, -3.0):
        yield make(3, 5, low=0.1, high=3), {"exponent": exponent}
    yield make(33), {"exponent": 5.0}
    yield make(0, 4), {"exponent": 2.5}


_power.reference(lambda a, *, exponent: a ** exponent)


def hurwitz(s: Any, a: Any, terms: int) -> Any:
    """The sum over k >= 0 of (a + k)^-s, for s > 1 and a > 0: the first terms, and the Euler-Maclaurin formula for the
    rest."""
    total = np.zeros_like(a)
    for _ in range(terms):
        total += a ** -s
        a = a + 1
    total += a ** (1 - s) / (s - 1) + 0.5 * a ** -s
    factor = s * a ** (-s - 1)
    for j, b in enumerate((1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)):
        total += b * factor
        factor = factor * (s + 2 * j + 1) * (s + 2 * j + 2) * a ** -2.0
    return total


def _polygamma_host(n: int, x: Any, out: Any) -> None:
    """psi_n(x) = (-1)^(n+1) n! sum_k (x + k)^-(n+1).

    Below 1/2 the reflection psi_n(1 - x) (-1)^n - psi_n(x) = d^n/dx^n pi cot(pi x) is used; it is a polynomial in cot.
    """
    x = x.astype(np.float64)
    low, s = x < 0.5, n + 1
    total = hurwitz(s, np.where(low, 1 - x, x), 12 + n)
    value = (-1) ** s * math.factorial(n) * total
    pole = low & (x == np.floor(x))
    polynomial = np.polynomial.Polynomial([0, math.pi])
    for _ in range(n):
        polynomial = polynomial.deriv() * np.polynomial.Polynomial([-math.pi, 0, -math.pi])
    cotangent = 1 / np.tan(math.pi * (x - np.rint(x)))
    slope = np.zeros_like(x)
    for c in reversed(polynomial.coef.tolist()):
        slope = slope * cotangent + c
    value = np.where(low, (-1) ** n * value - slope, value)
    np.copyto(out, np.where(pole, (-1) ** s * math.inf, value), casting="same_kind")


def _prepare_polygamma(input: Layout, *, n: int) -> Plan:
    """The nth derivative of digamma, computed by NumPy."""
    return host_plan(layout(input.device, input.dtype, input.shape), partial(_polygamma_host, n), "NumPy",
                     (input,))


_polygamma: Primitive = Primitive("polygamma", _prepare_polygamma,
                                  {"input": lambda g, input, n: mul(g, _polygamma(input, n=n + 1))})


@writes("cast")
def polygamma(n: int, input: Tensor) -> Tensor:
    """The nth derivative of digamma (n = 0: digamma itself). Integers and bools give the default float.

    RuntimeError unless 0 <= n <= 170: the factorial of a larger one does not fit float64.
    """
    n = operator.index(n)
    if not 0 <= n <= 170:
        fail("polygamma", "n must not be negative, and at most 170", n)
    if not is_float(input.array.layout.dtype):
        input = cast(input, default_float())
    return _polygamma(input, n=n) if n else digamma(input)


@_polygamma.samples
def _polygamma_samples(make: Any) -> Iterator[tuple]:
    for n in (1, 2, 3):
        yield make(3, 5, low=0.1, high=4), {"n": n}
    yield make(0, 4), {"n": 1}


_polygamma.reference(lambda a, *, n: _scipy("polygamma")(n, a))


def _root_vjp(g: Tensor, out: Tensor) -> Tensor:
    """g / (2 root), and 0 where the root is 0 (PyTorch's choice for norms and deviations)."""
    zero = eq(out, 0)
    return div(where(zero, 0, mul(g, 0.5)), where(zero, 1, out))


root = Elementwise("root", np.sqrt, "a", {"a": _root_vjp}, result="float", domain=(0.1, 4.0), kernel="sqrt",
                   doc="The square root, with gradient 0 at 0.")


# ---- methods ---------------------------------------------------------------------------------------------------------

INPLACE = frozenset(__all__) - {"polygamma", "isnan", "isinf", "isfinite", "maximum", "minimum"}


def _where_method(input: Tensor, condition: Tensor, other: Tensor | float) -> Tensor:
    """`input` where the condition is true, else `other`, broadcast to one shape."""
    return where(condition, input, other)


def _polygamma_method(input: Tensor, n: int) -> Tensor:
    """The nth derivative of digamma, elementwise: a tensor of the shape of `input`."""
    return polygamma(n, input)


METHODS = {"where": _where_method, "polygamma": _polygamma_method}
