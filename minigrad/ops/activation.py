"""Activation functions: composites of the primitives of `math.py`, most with fused kernels.

Read `core/op.py` and `math.py` first. The kernels are in native/activation.c and ops/activation.cu. The formulas in the
docstrings call the input x. The result has the shape of the input; "floats only" means that integers and bools raise
RuntimeError.

A definition with two branches replaces the input of the branch that is not taken, not only its result: else a gradient
0 * inf = NaN would come from that branch.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.arrays import dense
from ..core.modes import mode
from ..core.op import Op, public
from ..core.out import writes
from ..core.shape import BOOL, axis_of, fail, is_float
from ..core.tape import edge_of, recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.launch import KERNELS, by_plan, launch
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import FusedPlan, elementwise_plan, is_half, not_half
from ..devices.work import each, follows, work
from . import dispatch
from .again import Again
from .arguments import must_fit
from .formula import formula
from .math import abs as absolute
from .math import (
    add,
    div,
    eq,
    erfc,
    exp,
    expm1,
    ge,
    gt,
    le,
    log1p,
    logical_and,
    lt,
    mul,
    neg,
    sign,
    square,
    sub,
    where,
    zeros_of,
)
from .math import sigmoid as _sigmoid
from .math import tanh as _tanh
from .view import narrow, reshape

__all__ = ["celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
           "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
           "threshold"]


def activation(saves: str = "input", floats_only: bool = True, kernel: str = "",
               flat: bool = False, light: str = "") -> Callable[[Callable], Any]:
    """Makes an activation function of a definition with one tensor and perhaps some numbers.

    It becomes an op with the kernels `kernel` (default: the definition's name) and `kernel_backward`. Plans walk them:
    any layout is taken, and nothing is copied. `saves`: "input" or "output", what the backward kernel reads, or "both":
    beside the output it reads the input where the output is nearly constant, unless that was changed since. `flat`: it
    has parts of slope 0. `light`: which of its kernels wait for memory in a captured step, "forward" or "both".
    """
    def make(definition: Callable) -> Any:
        name = kernel or definition.__name__
        op = Op(definition, any_layout=True, short=not light)  # parts of lines (light): their slope has a slope, 0
        op.flat = flat                                          # type: ignore[attr-defined]
        op.fused(by_formula(op, name, saves))
        if light == "both":                                     # a change of slope is no slope: curvature 0
            _curved(op, saves)
        if floats_only:
            op.check(_floats_only(op.name))
        op.errors(_float_errors if floats_only else _errors)
        launch("ops/activation.cu", f"{name}_backward", by_plan, half=True)
        work(name, each(1))
        work(f"{name}_backward", each(2))                       # the derivative, and its product with the gradient
        follows(f"{name}_backward", light == "both", in_place=saves != dispatch.BOTH)
        if name not in KERNELS:                                 # those of sigmoid and tanh are elementwise primitives
            launch("ops/activation.cu", name, by_plan, half=True)
            follows(name, light != "")
        call = dispatch.activation_with_numbers if op.attributes else dispatch.activation
        return public(op, call(op, saves))
    return make


def by_formula(op: Op, name: str, saves: str) -> Callable[..., FusedPlan]:
    """The launches of an activation: `kernel.call(out, input, walk, *numbers)`, and the backward by what was saved."""
    def prepare(kernels: KernelTable, x: Layout, **attrs: Any) -> FusedPlan:
        if saves == dispatch.OUTPUT and not op.flat:            # type: ignore[attr-defined]
            not_half("the derivative is that of the output in float32", x)
        kernel, back_kernel = getattr(kernels, name)[x.dtype], getattr(kernels, f"{name}_backward")[x.dtype]
        out = layout(x.device, x.dtype, x.shape)
        table = elementwise_plan(out, x)
        if saves == dispatch.BOTH:
            both, alone = elementwise_plan(out, out, out, x), elementwise_plan(out, out, out, out)
        else:
            back = elementwise_plan(out, out, x if saves == dispatch.INPUT else out)
        numbers = tuple([attrs[n] for n in op.attributes])
        if any([n != n for n in numbers]):
            raise NoKernel("a number is NaN")

        def forward(xa: Array) -> tuple[Array, Any]:
            y = alloc(out)
            kernel.call(y.ptr, xa.ptr, table.ptr, *numbers)
            return y, xa if saves == dispatch.INPUT else y if saves == dispatch.OUTPUT else (y, [xa, xa.version])

        def backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
            gx = alloc(out)
            if saves != dispatch.BOTH:
                back_kernel.call(gx.ptr, g.ptr, saved.ptr, back.ptr, *numbers)
                return [gx]
            y, (xa, version) = saved
            if xa.version == version:
                back_kernel.call(gx.ptr, g.ptr, y.ptr, xa.ptr, both.ptr, 1)
            else:
                back_kernel.call(gx.ptr, g.ptr, y.ptr, y.ptr, alone.ptr, 0)
            return [gx]
        return FusedPlan(forward, backward, layout=out, kernel=kernel, table=table, attrs=attrs)
    return prepare


class _Slope(Again):
    """g f'(x), of a function whose curvature is f''(x) = f'(x) bend(f(x)): the derivative in x is a slope, too. Without
    `bend` the function has straight parts, and the curvature is 0."""

    def __init__(self, of: Op, saves: str, bend: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__(of)
        self.saves, self.bend = saves, bend

    def at(self, plan: Any, x: Tensor, g: Tensor, y: Tensor) -> Tensor:
        """g f'(x), where y = f(x)."""
        return self.noted(plan.backward(self._saved(x, y), dense(g.array), [True])[0], plan, x, g, y)

    def _saved(self, x: Tensor, y: Tensor) -> Any:
        both = y.array, (x.array, x.array.version)
        return both if self.saves == dispatch.BOTH else x.array if self.saves == dispatch.INPUT else y.array

    def _value(self, plan: Any, x: Tensor, y: Tensor) -> Tensor:
        """f(x), with a node of its own: the program's may be freed, or have hooks on its gradient."""
        if not (mode.grad and x._requires_grad):
            return y
        saved = plan, (x,), self._saved(x, y)
        return new_tensor(y.array, recorded(self.of, (edge_of(x),), plan.layout, saved, x.array.version, None,
                                            plan.attrs))

    def backward(self, node: Any, g: Tensor, needs: list[bool]) -> list[Tensor | None]:
        plan, (x, first, y) = self.kept(node)
        by_x = by_g = None
        if needs[0]:
            by_x = zeros_of(g) if self.bend is None else self.at(
                plan, x, mul(mul(g, first), self.bend(self._value(plan, x, y))), y)
        if needs[1]:
            by_g = self.at(plan, x, g, y)
        return [by_x, by_g]


def _curved(op: Op, saves: str, bend: Callable[[Tensor], Tensor] | None = None) -> None:
    """Says how the derivative of an activation is differentiated. Half precision derives it in float32."""
    slope = _Slope(op, saves, bend)

    def vjp(node: Any, g: Tensor, needs: list[bool]) -> list[Tensor | None] | None:
        plan, (x,), saved = node.saved
        if is_half(x.array.layout.dtype):
            return None
        y = x if saves == dispatch.INPUT else new_tensor(saved if saves == dispatch.OUTPUT else saved[0], None)
        return [slope.at(plan, x, g, y)]
    op.vjp = vjp


def _floats_only(name: str) -> Callable[..., None]:
    def rule(x: Layout, **attrs: Any) -> None:
        if not is_float(x.dtype):
            fail(name, "is defined for floating-point tensors only", x, "convert with .float()")
    return rule


def _errors(make: Any) -> Iterator[tuple]:
    yield (2.0, {}), TypeError, "must be a Tensor"


def _float_errors(make: Any) -> Iterator[tuple]:
    yield (make.ints(3), {}), RuntimeError, "floating-point"
    yield (2.0, {}), TypeError, "must be a Tensor"


def log1pexp(z: Tensor) -> Tensor:
    """log(1 + e^z) without overflow; smooth, so that every derivative is right."""
    up = gt(z, 0)
    rest = log1p(exp(where(up, neg(z), z)))
    return where(up, add(z, rest), rest)


def _from_below(x: Tensor) -> Tensor:
    """x, but at least -1000, where each function f(x) = x * s(x) of this file that falls to 0 is 0: not -inf * 0."""
    return where(lt(x, -1000.0), -1000.0, x)


def _bounded(x: Tensor) -> Tensor:
    """The argument of s(x), beyond which it is 0 or 1 in any dtype: its derivative at inf is 0, not inf * 0."""
    return where(gt(x, 1000.0), 1000.0, _from_below(x))


# ---- the backward reads the output -----------------------------------------------------------------------------------

@writes("cast")
@activation(saves="both", floats_only=False)
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x). Integers and bools give the default float."""
    return _sigmoid(input)


@writes("cast")
@activation(saves="both", floats_only=False)
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent: (e^x - e^-x) / (e^x + e^-x). Integers and bools give the default float."""
    return _tanh(input)


_curved(sigmoid.op, dispatch.BOTH, lambda y: sub(1.0, mul(y, 2.0)))
_curved(tanh.op, dispatch.BOTH, lambda y: mul(y, -2.0))


# ---- piecewise linear ------------------------------------------------------------------------------------------------

@activation(saves="output", floats_only=False, flat=True, light="both")
def relu(input: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0 (Nair and Hinton 2010). RuntimeError for bools."""
    return where(le(input, 0), 0 if not is_float(input.dtype) else 0.0, input)


@relu.check
def _relu_rule(input: Layout) -> None:
    if input.dtype == BOOL:
        fail("relu", "Boolean inputs not supported for relu", input, "convert first")


@activation(light="both")
def leaky_relu(input: Tensor, *, negative_slope: float = 0.01) -> Tensor:
    """max(x, 0) + negative_slope * min(x, 0) (Maas et al. 2013). Floats only."""
    return where(gt(input, 0), input, mul(input, negative_slope))


@activation(floats_only=False, flat=True, light="both")
def hardtanh(input: Tensor, *, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val); the gradient at the bounds is 0. RuntimeError for bools."""
    if min_val != min_val or max_val != max_val:
        return add(mul(input, 0.0), math.nan)
    if not is_float(input.dtype):
        min_val, max_val = int(min_val), int(max_val)
    return where(ge(input, max_val), max_val, where(le(input, min_val), min_val, input))


@activation(floats_only=False, flat=True, light="both")
def relu6(input: Tensor) -> Tensor:
    """min(max(x, 0), 6); the gradient at 0 and at 6 is 0 (Krizhevsky 2010). RuntimeError for bools."""
    return where(ge(input, 6), 6, where(le(input, 0), 0, input))


def _hardtanh_rule(input: Layout, **bounds: float) -> None:
    if input.dtype == BOOL:
        fail("hardtanh", "Bool inputs not supported for hardtanh", input, "convert first")
    for bound in bounds.values() if not is_float(input.dtype) else ():
        must_fit("hardtanh", bound, input.dtype)


hardtanh.check(_hardtanh_rule)
relu6.check(_hardtanh_rule)


@activation(flat=True, light="forward")
def hardsigmoid(input: Tensor) -> Tensor:
    """relu6(x + 3) / 6, which is sigmoid by straight lines (Howard et al. 2019). Floats only."""
    return where(ge(input, 3), 1.0, where(le(input, -3), 0.0, div(add(input, 3.0), 6.0)))


@activation(flat=True, light="forward")
def hardswish(input: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6, which is silu by straight lines (Howard et al. 2019). Floats only."""
    between = logical_and(gt(input, -3), lt(input, 3))
    x = where(between, input, 0.0)
    return where(between, div(mul(x, add(x, 3.0)), 6.0), where(le(input, -3), 0.0, input))


@formula
def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """x where x > threshold, else value; `threshold` and `value` are numbers."""
    dtype = where.common_dtype((value, input))
    if not is_float(dtype):
        must_fit("threshold", value, dtype)
    return where(le(input, threshold), value, input)


@formula
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """max(x, 0) + weight * min(x, 0) with a learned weight (He et al. 2015).

    Shapes: input (N, C, *) or any; weight (1,), (C,) or () -> like input. RuntimeError for a weight of another size.
    """
    source, slope = input.array.layout, weight.array.layout
    channels = source.shape[1] if source.ndim > 1 else 1
    if slope.ndim > 1 or slope.size not in (1, channels):
        fail("prelu", "weight must hold one number, or one for each channel of the input (dimension 1)",
             [source, slope])
    if slope.ndim == 1:
        weight = reshape(weight, (slope.size,) + (1,) * (source.ndim - 2) if slope.size > 1 else ())
    return where(gt(input, 0), input, mul(weight, input))


# ---- smooth ----------------------------------------------------------------------------------------------------------

@activation()
def elu(input: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(alpha * (e^x - 1), 0) (Clevert et al. 2016). Floats only."""
    up = gt(input, 0)
    return where(up, input, mul(expm1(where(up, 0.0, input)), alpha))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@activation()
def selu(input: Tensor) -> Tensor:
    """scale * elu(x, alpha) with scale = 1.0507010 and alpha = 1.6732632 (Klambauer et al. 2017). Floats only."""
    up = gt(input, 0)
    return where(up, mul(input, _SELU_SCALE), mul(expm1(where(up, 0.0, input)), _SELU_SCALE * _SELU_ALPHA))


@activation()
def celu(input: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(alpha * (e^(x / alpha) - 1), 0) (Barron 2017). Floats only; RuntimeError for alpha = 0."""
    up = gt(input, 0)
    return where(up, input, mul(expm1(div(where(up, 0.0, input), alpha)), alpha))


@celu.check
def _celu_rule(x: Layout, *, alpha: float) -> None:
    _floats_only("celu")(x)
    if alpha == 0:
        fail("celu", "alpha must not be 0", alpha)


@activation(kernel="gelu")
def gelu_erf(input: Tensor) -> Tensor:
    """x * P(X <= x) with X standard normal (Hendrycks and Gimpel 2016), by the error function."""
    return mul(_from_below(input), mul(erfc(mul(_bounded(input), -math.sqrt(0.5))), 0.5))


@activation()
def gelu_tanh(input: Tensor) -> Tensor:
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel 2016)."""
    x = _bounded(input)
    inner = mul(mul(x, add(mul(square(x), 0.044715), 1.0)), 2 * math.sqrt(2 / math.pi))
    return mul(_from_below(input), _sigmoid(inner))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * P(X <= x) with X standard normal (Hendrycks and Gimpel 2016).

    With `approximate="tanh"`: x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2. Floats only.
    """
    if approximate not in ("none", "tanh"):
        fail("gelu", "approximate must be 'none' or 'tanh'", repr(approximate))
    return gelu_erf(input) if approximate == "none" else gelu_tanh(input)


@activation()
def silu(input: Tensor) -> Tensor:
    """x * sigmoid(x), also called swish (Hendrycks and Gimpel 2016; Ramachandran et al. 2017). Floats only."""
    return mul(_from_below(input), _sigmoid(_bounded(input)))


@activation()
def mish(input: Tensor) -> Tensor:
    """x * tanh(softplus(x)) (Misra 2019). Floats only."""
    return mul(_from_below(input), _tanh(log1pexp(_bounded(input))))


@activation()
def softplus(input: Tensor, *, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta * x)) / beta, and x itself where beta * x > threshold (Dugas et al. 2001). Floats only."""
    z = mul(input, beta)
    linear = gt(z, threshold)
    return where(linear, input, div(log1pexp(where(linear, 0.0, z)), beta))


@activation()
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)) = -log(1 + e^-x), computed without overflow. Floats only."""
    return neg(log1pexp(neg(input)))


@activation(floats_only=False)
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|). Integers give the default float, bools raise NotImplementedError."""
    size = absolute(input)
    huge = eq(size, math.inf)                           # not inf / inf
    return where(huge, sign(input), div(where(huge, 0, input), add(size, 1.0)))


@formula
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b), where a and b are the two halves of the input along `dim` (Dauphin et al. 2017).

    Shapes: (*, 2n, *) -> (*, n, *). RuntimeError for an odd size along `dim` and for a 0-d input.
    """
    source = input.array.layout
    if source.ndim == 0:
        fail("glu", "does not support scalars because halving size must be even", source)
    axis = axis_of(dim, source.ndim, "glu")
    half, odd = divmod(source.shape[axis], 2)
    if odd:
        fail("glu", f"Halving dimension must be even, but dimension {axis} is size {source.shape[axis]}", source)
    return mul(narrow(input, axis, 0, half), sigmoid(narrow(input, axis, half, half)))


INPLACE = frozenset(("celu", "elu", "hardtanh", "leaky_relu", "relu", "relu6", "selu", "sigmoid", "silu", "tanh",
                     "threshold"))


# ---- samples ---------------------------------------------------------------------------------------------------------

def _samples(*attrs: dict) -> Callable:
    def samples(make: Any) -> Iterator[tuple]:
        for shape in ((3, 5), (31,), (32,), (33,), (1,), (), (0, 4)):
            yield (make(*shape, low=-5, high=5), *attrs[:1])
        for more in attrs[1:]:
            yield make(4, 33, low=-5, high=5), more
    return samples


def _document(op: Any, oracle: Callable, *attrs: dict) -> None:
    op.samples(_samples(*attrs))
    op.reference(oracle)


def _expit(x: Any) -> Any:
    return np.exp(-np.logaddexp(0, -x))


def _elu_oracle(x: Any, alpha: float = 1.0, scale: float = 1.0, slope: float = 1.0) -> Any:
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) * slope))


def _gelu_oracle(x: Any) -> Any:
    import scipy.stats
    return x * scipy.stats.norm.cdf(x)


_document(sigmoid, _expit)
_document(tanh, np.tanh)
_document(relu, lambda x: np.maximum(x, 0))
_document(leaky_relu, lambda x, *, negative_slope: np.where(x > 0, x, negative_slope * x),
          {"negative_slope": 0.01}, {"negative_slope": 0.3})
_document(hardtanh, lambda x, *, min_val, max_val: np.clip(x, min_val, max_val), {"min_val": -1.0, "max_val": 1.0},
          {"min_val": 0.5, "max_val": 3.0})
_document(relu6, lambda x: np.clip(x, 0, 6))
_document(hardsigmoid, lambda x: np.clip(x + 3, 0, 6) / 6)
_document(hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6)
_document(elu, lambda x, *, alpha: _elu_oracle(x, alpha), {"alpha": 1.0}, {"alpha": 0.3}, {"alpha": 2.5})
_document(selu, lambda x: _elu_oracle(x, _SELU_ALPHA, _SELU_SCALE))
_document(celu, lambda x, *, alpha: _elu_oracle(x, alpha, 1.0, 1 / alpha),
          {"alpha": 1.0}, {"alpha": 0.3}, {"alpha": 2.5})
gelu_erf.op.called = gelu_tanh.op.called = "gelu"
_document(gelu_erf, _gelu_oracle)
_document(gelu_tanh, lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) / 2)
_document(silu, lambda x: x * _expit(x))
_document(mish, lambda x: x * np.tanh(np.logaddexp(0, x)))
_document(softplus, lambda x, *, beta, threshold: np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta),
          {"beta": 1.0, "threshold": 20.0}, {"beta": 2.0, "threshold": 4.0}, {"beta": 0.5, "threshold": 20.0})
_document(logsigmoid, lambda x: -np.logaddexp(0, -x))
_document(softsign, lambda x: x / (1 + np.abs(x)))


@threshold.samples
def _threshold_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), 0.5, -1.0
    yield make(33), 0.0, 7.0
    yield make(0, 4), 0.0, 0.0


threshold.reference(lambda x, threshold, value: np.where(x > threshold, x, value))


@prelu.samples
def _prelu_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(1)
    yield make(4, 3, 7), make(3)
    yield make(33), make()
    yield make(2, 3), make(3)
    yield make(0, 3), make(3)


@prelu.errors
def _prelu_errors(make: Any) -> Iterator[tuple]:
    yield (make(4, 3, 7), make(4), {}), RuntimeError, "one for each channel"
    yield (make(3), make(3), {}), RuntimeError, "one for each channel"


@prelu.reference
def _prelu_oracle(x: Any, w: Any) -> Any:
    w = w.reshape((-1,) + (1,) * (x.ndim - 2)) if w.size > 1 else w.reshape(())
    return np.maximum(x, 0) + w * np.minimum(x, 0)


@glu.samples
def _glu_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 6),
    yield make(4, 3), 0
    yield make(2, 6, 5), 1
    yield make(0, 4), -1


@glu.errors
def _glu_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), {}), RuntimeError, "even"
    yield (make(3, 4), 2, {}), IndexError, "dim"
    yield (make(), {}), RuntimeError, "scalars"


@glu.reference
def _glu_oracle(x: Any, dim: int = -1) -> Any:
    a, b = np.split(x, 2, dim)
    return a * _expit(b)
