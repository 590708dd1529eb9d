"""Elementwise functions that are composed of the primitives of `math.py`.

Most are a `formula`: an op without kernels of its own. Its text is what runs and what is differentiated. Read `math.py`
first.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import numpy as np

from ..core.half import finfo, half_result, in_float32
from ..core.messages import taken
from ..core.op import Op, op, public
from ..core.out import writes
from ..core.shape import BOOL, broadcast_shapes, default_float, fail, is_float
from ..core.shape import result_type as promoted
from ..core.tensor import Tensor
from ..devices.base import KernelTable
from ..devices.memory import Array, Layout, alloc
from ..devices.plan import elementwise_plan, remember
from .arguments import is_number
from .convert import cast, result_type
from .dispatch import constant
from .math import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    copy,
    div,
    eq,
    exp,
    expm1,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    log,
    log1p,
    logical_and,
    logical_or,
    lt,
    maximum,
    mul,
    ne,
    neg,
    pow,
    reciprocal,
    rint,
    sign,
    sin,
    sqrt,
    square,
    sub,
    trunc,
    where,
)

__all__ = ["absolute", "addcdiv", "addcmul", "allclose", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
           "arctan2", "arctanh", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "deg2rad", "divide",
           "equal", "fix", "float_power", "fmax", "fmin", "frac", "greater", "greater_equal", "heaviside",
           "hypot", "is_nonzero", "isclose", "isneginf", "isposinf", "ldexp", "lerp", "less", "less_equal",
           "logaddexp", "logaddexp2", "logit", "masked_fill", "multiply", "nan_to_num", "negative",
           "not_equal", "positive", "rad2deg", "round", "rsub", "sgn", "signbit", "sinc", "subtract",
           "true_divide", "xlogy"]


def _not_tensors(make: Any) -> Iterator[tuple]:
    yield ("two", "three", {}), TypeError, "must be a tensor"


def formula(definition: Callable, selects: bool = False) -> Any:
    """Makes an op without kernels of a definition: calling it runs the definition.

    Arguments that are not annotated `Tensor` may be numbers; at least one argument must be a tensor. `selects`: it
    computes nothing, so that half precision needs no float32.
    """
    op = Op(definition)
    known: dict[tuple, Callable] = {}               # what runs, by the layouts of tensors and the types of the rest
    op.error_function = _not_tensors
    kinds = definition.__annotations__
    tensors = tuple([(n, kinds[n] == "Tensor") for n in op.inputs])
    names = (*op.inputs, *op.attributes)

    def choose(inputs: tuple, attrs: dict) -> Callable:
        if len(taken(op.name, attrs, names)) < len(attrs):
            return lambda *inputs, **attrs: call(*inputs, **taken(op.name, attrs, names))
        for (name, needed), t in zip(tensors, inputs, strict=False):
            if needed and is_number(t):
                raise TypeError(f"[{op.name}] {name} must be a tensor; got {type(t).__name__}")
        if not any([isinstance(t, Tensor) for t in (*inputs, *attrs.values())]):
            got = ", ".join([type(t).__name__ for t in inputs])
            raise TypeError(f"[{op.name}] at least one argument must be a tensor; got {got}")
        dtype = half_result((*inputs, *attrs.values()))
        return definition if selects or dtype is None else partial(in_float32, definition, dtype)

    @wraps(definition)
    def call(*inputs: Any, **attrs: Any) -> Any:
        key = (*[t.array.layout if isinstance(t, Tensor) else type(t) for t in (*inputs, *attrs.values())], *attrs)
        run = known.get(key)
        if run is None:
            run = remember(known, key, choose(inputs, attrs))
        return run(*inputs, **attrs)
    return public(op, call)


selection = partial(formula, selects=True)


def promoting(definition: Callable) -> Any:
    """A formula that promotes its operands, as PyTorch has it."""
    return writes("cast")(formula(definition))


def _floats(name: str, *inputs: Any) -> None:
    """Refuses integers and bools, unless a float beside them makes the result one."""
    layouts = [t.array.layout for t in inputs if isinstance(t, Tensor)]
    if layouts and not is_float(promoted(*layouts)):
        fail(name, "is defined for floating-point tensors only", layouts, "convert with .float()", NotImplementedError)


def _float_among(name: str, *inputs: Tensor) -> None:
    if not any([is_float(t.array.layout.dtype) for t in inputs]):
        _floats(name, *inputs)


def as_float(t: Any) -> Any:
    return cast(t, default_float()) if isinstance(t, Tensor) and not is_float(t.array.layout.dtype) else t


def float_pair(a: Any, b: Any) -> list[Tensor]:
    """Both (one may be a number) as tensors of their result's dtype, if that is a float, else of the default float: a
    function of one of them alone must not be computed in a narrower dtype."""
    dtype = result_type(a, b)
    dtype = dtype if is_float(dtype) else default_float()
    device = (a if isinstance(a, Tensor) else b).array.layout.device
    return [cast(t, dtype) if isinstance(t, Tensor) else constant(t, dtype, device) for t in (a, b)]


# ---- parts and rounding ----------------------------------------------------------------------------------------------

@formula
def frac(input: Tensor) -> Tensor:
    """input - trunc(input): the part after the point, with the sign of `input`. NotImplementedError for integers."""
    _floats("frac", input)
    return sub(input, trunc(input))


@formula
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with `decimals` decimals (negative: tens, hundreds, ...); halves go to the even digit.

    Integers stay as they are; with `decimals` other than 0 they raise NotImplementedError. The gradient is 0.
    """
    if decimals == 0:
        return rint(input)
    _floats("round", input)
    power = 10.0 ** (decimals if decimals > 0 else -decimals)
    return div(rint(mul(input, power)), power) if decimals > 0 else mul(rint(div(input, power)), power)


@formula
def signbit(input: Tensor) -> Tensor:
    """Is the sign bit set? True for negative numbers and -0.0, false for NaN. A bool tensor."""
    if not is_float(input.array.layout.dtype):
        return lt(input, 0)
    return lt(where(eq(input, 0), reciprocal(input), input), 0)


@promoting
def copysign(input: Tensor, other: Any) -> Tensor:
    """The magnitude of `input` with the sign of `other`, a tensor or a number.

    Integers and bools give the default float.
    """
    negative = signbit(other) if isinstance(other, Tensor) else math.copysign(1, other) < 0
    size = abs(as_float(cast(input, result_type(input, other))))
    if isinstance(other, Tensor) and other.requires_grad:       # it gets the gradient of a step: 0
        size = add(size, mul(sign(where(isnan(other), 0.0, other)), 0.0))
    return where(negative, neg(size), size) if isinstance(negative, Tensor) else neg(size) if negative else size


@formula
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """The step function: 0 where input < 0, 1 where input > 0, `values` where input is 0. The two tensors broadcast;
    RuntimeError if their dtypes differ."""
    if isinstance(values, Tensor) and values.dtype != input.dtype:
        fail("heaviside", "values must have the input's dtype", [input.layout, values.layout], "convert with .to()")
    return where(eq(input, 0), values, cast(gt(input, 0), input.array.layout.dtype))


@formula
def isposinf(input: Tensor) -> Tensor:
    """Is the element +inf? A bool tensor."""
    return eq(input, math.inf)


@formula
def isneginf(input: Tensor) -> Tensor:
    """Is the element -inf? A bool tensor."""
    return eq(input, -math.inf)


@selection
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN, inf and -inf replaced by numbers: `nan` (default 0), `posinf` and `neginf`.

    The defaults of the last two are the largest and the smallest finite number of the dtype. Integers are copied.
    """
    dtype = input.array.layout.dtype
    if not is_float(dtype):
        return copy(input)
    wide = finfo(dtype)
    out = where(isnan(input), 0.0 if nan is None else nan, input)
    out = where(isposinf(input), float(wide.max) if posinf is None else posinf, out)
    return where(isneginf(input), float(wide.min) if neginf is None else neginf, out)


# ---- choosing --------------------------------------------------------------------------------------------------------

@promoting
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two tensors, elementwise, with broadcasting; where one is NaN, the other."""
    return where(logical_or(ge(input, other), isnan(other)), input, other)


@promoting
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two tensors, elementwise, with broadcasting; where one is NaN, the other."""
    return where(logical_or(le(input, other), isnan(other)), input, other)


@op
def clamp_between(input: Tensor, *, low: float, high: float) -> Tensor:
    """min(max(input, low), high) for two numbers; the gradient passes at the bounds too."""
    low = low if low < high else high
    return where(lt(input, low), low, where(gt(input, high), high, input))


@clamp_between.fused
def _clamp_kernels(kernels: KernelTable, x: Layout, *, low: float, high: float) -> Any:
    forward, backward = kernels.hardtanh[x.dtype], kernels.hardtanh_backward[x.dtype]
    plan, back = elementwise_plan(x, x), elementwise_plan(x, x, x)
    kind = x.dtype.type         # hardtanh's gradient is 0 at its bounds: they move to the next numbers outside
    with np.errstate(over="ignore"):            # the next number may be inf
        under, over = float(np.nextafter(kind(low), kind(-math.inf))), float(np.nextafter(kind(high), kind(math.inf)))

    def run_forward(xa: Array) -> Any:
        y = alloc(x)
        forward.call(y.ptr, xa.ptr, plan.ptr, low, high)
        return y, xa

    def run_backward(xa: Array, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, xa.ptr, back.ptr, under, over)
        return [gx]
    return run_forward, run_backward


@writes("cast")
@selection
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """min(max(input, min), max). Where min > max, the result is max.

    Each bound is a number, a tensor that broadcasts, or None; RuntimeError if both are None. A float bound gives a
    float. The gradient passes where `input` is the result, at the bounds too.
    """
    if min is None and max is None:
        fail("clamp", "at least one of min and max must be given", "None and None")
    numbers = is_number(min) and is_number(max) and min == min and max == max       # no NaN
    if numbers and is_float(input.array.layout.dtype):
        return clamp_between(input, low=float(min), high=float(max))
    # one promotion for all three: step by step, a 0-d bound would count as much as one with dimensions
    dtype = where.common_dtype(tuple([t for t in (input, min, max) if t is not None]))
    bounds = [t.array.layout.shape for t in (min, max) if isinstance(t, Tensor)]
    if bounds:
        broadcast_shapes("clamp", input.array.layout.shape, *bounds)
    input = cast(input, dtype)
    for bound, outside in ((min, lt), (max, gt)):
        if is_number(bound):
            fitting = constant(bound, dtype, input.array.layout.device, "clamp")
            bound = fitting if bound != bound else bound
        if isinstance(bound, Tensor) and is_float(bound.array.layout.dtype):
            input = where(logical_or(outside(input, bound), isnan(bound)), bound, input)    # a bound of NaN gives NaN
        elif bound is not None:
            input = where(outside(input, bound), bound, input)
    return input


@writes("cast")
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """max(input, min): `clamp` with a lower bound only."""
    return clamp(input, min)


@writes("cast")
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """min(input, max): `clamp` with an upper bound only."""
    return clamp(input, None, max)


@selection
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` where the bool tensor `mask` (which broadcasts) is true, else `input`; the dtype is that of `input`.

    `value` is a number or a 0-d tensor. RuntimeError for a mask that is not bool.
    """
    source = input.array.layout
    if not isinstance(mask, Tensor) or mask.array.layout.dtype != BOOL:
        got = mask.array.layout if isinstance(mask, Tensor) else type(mask).__name__
        fail("masked_fill", "mask must be a bool tensor", got, "compare first")
    if not isinstance(value, Tensor):
        return where(mask, constant(value, source.dtype, source.device, "masked_fill"), input)
    if value.array.layout.ndim:
        fail("masked_fill", "value must be a number or a 0-d tensor", value.array.layout,
             "use where(mask, value, input)")
    return where(mask, cast(value, source.dtype), input)


# ---- arithmetic ------------------------------------------------------------------------------------------------------

@promoting
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input), exact at weight 0 and 1; `weight` is a number or a tensor.

    NotImplementedError for integers and bools.
    """
    _floats("lerp", input, end)
    way = sub(end, input)
    rest = sub(1.0, weight) if isinstance(weight, Tensor) else 1.0 - weight
    near, far = add(input, mul(way, weight)), sub(end, mul(way, rest))
    if isinstance(weight, Tensor):
        return where(lt(abs(weight), 0.5), near, far)
    return near if -0.5 < weight < 0.5 else far


@promoting
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2, with broadcasting, in the promoted dtype."""
    dtype = promoted(*[t.array.layout for t in (input, tensor1, tensor2)])
    if tensor1.array.layout.dtype != dtype and tensor2.array.layout.dtype != dtype:
        tensor1 = cast(tensor1, dtype)                  # the product of two narrow ones would overflow
    return add(input, mul(tensor1 if type(value) is int and value == 1 else mul(tensor1, value), tensor2))


@promoting
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2, with broadcasting. RuntimeError if neither divided tensor is a float."""
    if not any([is_float(t.array.layout.dtype) for t in (tensor1, tensor2)]):
        fail("addcdiv", "integers are not divided here", [tensor1.array.layout, tensor2.array.layout],
             "convert with .float()")
    quotient = div(tensor1, tensor2)
    return add(input, quotient if type(value) is int and value == 1 else mul(quotient, value))


@promoting
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input^2 + other^2); the squares do not overflow. NotImplementedError if both are integers or
    bools."""
    _float_among("hypot", input, other)
    input, other = [cast(t, result_type(input, other)) for t in (input, other)]         # a bool has no abs
    # the value does not depend on the scale, so neither do the derivatives: it is a constant
    size = maximum(abs(input.detach()), abs(other.detach()))
    scale = where(logical_and(gt(size, 0), lt(size, math.inf)), size, 1.0)
    length = mul(sqrt(add(square(div(input, scale)), square(div(other, scale)))), scale)
    return where(logical_or(isinf(input), isinf(other)), math.inf, length)


@promoting
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(e^input + e^other), computed without overflow. NotImplementedError if both are integers or bools."""
    _float_among("logaddexp", input, other)
    first = ge(input, other)
    high, low = where(first, input, other), where(first, other, input)
    done = logical_and(isinf(high), eq(low, low))       # an infinity is the result, and its gradient that of `high`
    top, a, b = where(done, 0.0, high.detach()), where(done, 0.0, high), where(done, 0.0, low)
    # the value does not depend on `top`, so neither do the derivatives: it is a constant
    return where(done, high, add(log1p(add(expm1(sub(a, top)), exp(sub(b, top)))), top))


@promoting
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2^input + 2^other), computed without overflow. Integers and bools give the default float."""
    a, b = [mul(t, math.log(2)) for t in float_pair(input, other)]
    return mul(logaddexp(a, b), 1 / math.log(2))


@promoting
def xlogy(input: Tensor | float, other: Any) -> Tensor:
    """input * log(other), and 0 where input is 0 (unless other is NaN). One of the two may be a number.

    Integers and bools give the default float.
    """
    x, y = float_pair(input, other)
    no_log = logical_and(eq(x, 0), logical_or(le(y, 0), eq(y, math.inf)))
    return mul(x, log(where(no_log, 1.0, y)))


@promoting
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), the inverse of `sigmoid`; with `eps`, input is clamped to [eps, 1 - eps] first.

    Integers and bools give the default float.
    """
    input = as_float(input)
    if eps is not None:
        input = clamp(input, eps, 1 - eps)
    else:           # the difference of logarithms would have a derivative outside [0, 1], too
        input = add(input, where(logical_or(lt(input, 0), gt(input, 1)), math.nan, 0.0))
    # log(p / (1 - p)), of which the derivatives would be 0 * inf at 0 and 1
    return sub(log(input), log1p(neg(input)))


@promoting
def sinc(input: Tensor) -> Tensor:
    """sin(pi * input) / (pi * input), and 1 where input is 0. Integers and bools give the default float."""
    x = mul(as_float(input), math.pi)
    near = lt(abs(x), 1.0)                              # the derivatives of the quotient cancel there: a series instead
    t = square(where(near, x, 0.0))
    series = mul(t, _SINC_SERIES[0])
    for coefficient in _SINC_SERIES[1:]:
        series = mul(add(series, coefficient), t)
    x = where(near, 1.0, x)
    return where(near, add(series, 1.0), div(sin(x), x))


# (-1)^k / (2k + 1)! for k = 9, ..., 1: with the square t below 1, enough for three derivatives in float64
_SINC_SERIES = tuple([(-1) ** k / math.factorial(2 * k + 1) for k in range(9, 0, -1)])


def float_power(input: Tensor | float, exponent: Any) -> Tensor:
    """input^exponent, computed in float64; each is a tensor or a number. In place (`float_power_`) of float64 only:
    RuntimeError."""
    return pow(*[cast(t, np.float64) if isinstance(t, Tensor) else float(t) for t in (input, exponent)])


def float_power_(input: Tensor, exponent: Any) -> Tensor:
    """`float_power`, written into the tensor itself, which must be float64: RuntimeError."""
    if input.dtype != np.float64:
        fail("float_power_", "the result is float64, and so must be the tensor", input.layout, "use float_power()")
    return input.pow_(cast(exponent, np.float64) if isinstance(exponent, Tensor) else float(exponent))


@promoting
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2^other. Integers and bools give the default float."""
    x, power = float_pair(input, other)
    return mul(x, pow(2.0, power))


@formula
def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input: `sub` with its operands exchanged."""
    return sub(other, input, alpha=alpha)


@promoting
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians: input * pi / 180. Integers and bools give the default float."""
    return mul(as_float(input), math.pi / 180)


@promoting
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees: input * 180 / pi. Integers and bools give the default float."""
    return mul(as_float(input), 180 / math.pi)


def positive(input: Tensor) -> Tensor:
    """The tensor itself, for `+x`. RuntimeError for bools."""
    if input.array.layout.dtype == BOOL:
        fail("positive", "is not defined for bool tensors", input.array.layout, "convert first")
    return input


# ---- comparing -------------------------------------------------------------------------------------------------------

@formula
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Is |input - other| <= atol + rtol * |other|, elementwise? A bool tensor.

    Equal infinities are close; NaNs are with `equal_nan`. RuntimeError for tensors of different dtypes.
    """
    if input.array.layout.dtype != other.array.layout.dtype:
        fail("isclose", "the tensors must have one dtype", [input.array.layout, other.array.layout],
             "convert one of them")
    if rtol < 0 or atol < 0:
        fail("isclose", "rtol and atol must not be negative", [rtol, atol])
    close = eq(input, other)
    if equal_nan:
        close = logical_or(close, logical_and(isnan(input), isnan(other)))
    if input.array.layout.dtype == BOOL or rtol == 0 and atol == 0:
        return close
    distance = as_float(abs(sub(input, other)))
    return logical_or(close, logical_and(isfinite(distance), le(distance, add(abs(mul(other, rtol)), atol))))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Are all elements close, in the sense of `isclose`? A Python bool."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Do both tensors have the same shape and the same values? A Python bool."""
    return input.array.layout.shape == other.array.layout.shape and bool(eq(input, other).all())


def is_nonzero(input: Tensor) -> bool:
    """Is the one element of the tensor not 0? A Python bool; RuntimeError for other numbers of elements."""
    return bool(input)


absolute, negative, subtract, multiply, divide, true_divide = abs, neg, sub, mul, div, div
arccos, arcsin, arctan, arctan2, arccosh, arcsinh, arctanh = acos, asin, atan, atan2, acosh, asinh, atanh
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge
fix, clip, sgn = trunc, clamp, sign

INPLACE = frozenset(("absolute", "addcdiv", "addcmul", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
                     "arctanh", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "deg2rad", "divide", "fix",
                     "frac", "greater", "greater_equal", "heaviside", "hypot", "ldexp", "lerp", "less",
                     "less_equal", "logit", "masked_fill", "multiply", "nan_to_num", "negative", "not_equal", "rad2deg",
                     "round", "sgn", "sinc", "subtract", "true_divide", "xlogy"))
METHODS = {"float_power_": float_power_}


# ---- samples ---------------------------------------------------------------------------------------------------------

def _sampled(formula: Op, samples: Callable, reference: Callable, errors: Callable | None = None) -> None:
    formula.samples(samples)
    formula.reference(reference)
    if errors is not None:
        formula.errors(errors)


def _one(low: float = -2.0, high: float = 2.0, **attrs: Any) -> Callable:
    def samples(make: Any) -> Iterator[tuple]:
        for shape in ((3, 5), (31,), (33,), (1,), (), (0, 4)):
            yield (make(*shape, low=low, high=high), attrs) if attrs else (make(*shape, low=low, high=high),)
    return samples


def _two(low: float = -2.0, high: float = 2.0) -> Callable:
    def samples(make: Any) -> Iterator[tuple]:
        for a, b in (((3, 5), (3, 5)), ((4, 1), (33,)), ((31,), ()), ((), ()), ((0, 4), (1, 4))):
            yield make(*a, low=low, high=high), make(*b, low=low, high=high)
    return samples


def _two_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 4, low=0.1), make(5, low=0.1), {}), RuntimeError, "broadcast"


def _special(name: str) -> Callable:
    def reference(*arrays: Any) -> Any:
        import scipy.special
        return getattr(scipy.special, name)(*arrays)
    return reference


_sampled(frac, _one(-4, 4), lambda a: a - np.trunc(a),
         lambda make: iter([((make.ints(3), {}), RuntimeError, "floating-point")]))
_sampled(signbit, _one(), np.signbit)
_sampled(copysign, _two(), np.copysign, _two_errors)
_sampled(heaviside, _two(), np.heaviside, _two_errors)
_sampled(isposinf, _one(), np.isposinf)
_sampled(isneginf, _one(), np.isneginf)
_sampled(fmax, _two(), np.fmax, _two_errors)
_sampled(fmin, _two(), np.fmin, _two_errors)
_sampled(hypot, _two(), np.hypot, _two_errors)
_sampled(logaddexp, _two(-20, 20), np.logaddexp, _two_errors)
_sampled(logaddexp2, _two(-20, 20), np.logaddexp2, _two_errors)
_sampled(xlogy, _two(0.1, 3), _special("xlogy"), _two_errors)
_sampled(logit, _one(0.05, 0.95),
         lambda a, eps=None: _special("logit")(a if eps is None else np.clip(a, eps, 1 - eps)))
_sampled(sinc, _one(), np.sinc)
_sampled(ldexp, _two(), lambda a, b: a * 2.0 ** b, _two_errors)
_sampled(rsub, _two(), lambda a, b, alpha=1: b - alpha * a, _two_errors)
_sampled(deg2rad, _one(-180, 180), np.deg2rad)
_sampled(rad2deg, _one(-3, 3), np.rad2deg)
_sampled(isclose, _two(), np.isclose, lambda make: iter([((make(3), make.ints(3), {}), RuntimeError, "one dtype")]))


@round.samples
def _round_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5, low=-99, high=99),
    for decimals in (1, 3, -1):
        yield make(33, low=-99, high=99), {"decimals": decimals}


round.reference(lambda a, decimals=0: np.round(a, decimals))


@nan_to_num.samples
def _nan_to_num_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5),
    yield div(make(4, low=1), 0.0), 1.0, 2.0, 3.0
    yield make(0, 2), 1.0


nan_to_num.reference(lambda a, nan=None, posinf=None, neginf=None:
                     np.nan_to_num(a, nan=nan or 0.0, posinf=posinf, neginf=neginf))


@clamp_between.samples
def _clamp_between_samples(make: Any) -> Iterator[tuple]:
    for shape in ((3, 5), (31,), (33,), (), (0, 4)):
        yield make(*shape), {"low": -0.5, "high": 1.0}
    yield make(9), {"low": -math.inf, "high": 0.25}
    yield make(9), {"low": 1.0, "high": -1.0}


clamp_between.called = "clamp"
clamp_between.reference(lambda a, *, low, high: np.minimum(np.maximum(a, low), high))


@clamp.samples
def _clamp_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), -1.0, 1.0
    yield make(33), None, 0.5
    yield make(33), 0.5
    yield make(3, 5), make(5, low=-2, high=-0.5), make(3, 1, low=0.5, high=2)
    yield make(0, 4), make(4)


@clamp.errors
def _clamp_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), {}), RuntimeError, "at least one"
    yield (make(3), make(4), {}), RuntimeError, "broadcast"


@clamp.reference
def _clamp_oracle(a: Any, min: Any = None, max: Any = None) -> Any:
    a = a if min is None else np.maximum(a, min)
    return a if max is None else np.minimum(a, max)


@masked_fill.samples
def _masked_fill_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make.bools(3, 5), 2.5
    yield make(4, 33), make.bools(33), -1.0
    yield make(5), make.bools(3, 5), make()
    yield make(0, 3), make.bools(3), 0.0


@masked_fill.errors
def _masked_fill_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(3), 1.0, {}), RuntimeError, "bool"
    yield (make(3), make.bools(3), make(2), {}), RuntimeError, "0-d"
    yield (make(3), make.bools(4), 1.0, {}), RuntimeError, "broadcast"


masked_fill.reference(lambda a, mask, value: np.where(mask, value, a))


@lerp.samples
def _lerp_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(3, 5), 0.25
    yield make(33), make(4, 33), 0.75
    yield make(3, 5), make(3, 5), make(5, low=0, high=1)
    yield make(0, 4), make(4), 1.0


lerp.reference(lambda a, b, w: a + w * (b - a))


def _three(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(3, 5), make(3, 5, low=0.5)
    yield make(33), make(4, 33), make(4, 1, low=0.5), {"value": 0.5}
    yield make(0, 4), make(4), make(1, low=0.5), {"value": -2.0}


def _three_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 4), make(5), make(4, low=0.5), {}), RuntimeError, "broadcast"


_sampled(addcmul, _three, lambda a, b, c, *, value=1: a + value * b * c, _three_errors)
_sampled(addcdiv, _three, lambda a, b, c, *, value=1: a + value * b / c, _three_errors)
