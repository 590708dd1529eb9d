"""Further names of PyTorch: views as copies, greatest common divisors, neighbours of floats, the multivariate gamma
function and other functions of one number; and names without a calculation, such as `real` and `conj`."""
from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from ..core.op import Primitive, same_device
from ..core.out import into
from ..core.shape import BOOL, fail, is_float
from ..core.shape import broadcast_shapes as broadcast
from ..core.tensor import Size, Tensor
from ..devices.host import on_host, on_host_if_bfloat16
from ..devices.memory import Layout, layout
from ..devices.plan import Plan, host_plan, is_half
from .arrange import pad, unfold
from .convert import cast
from .creation import as_tensor, clone
from .dispatch import constant
from .elementwise import Elementwise
from .formula import as_float, float_pair, promoting
from .join import chunk, split, split_with_sizes, unbind
from .math import (
    add,
    eq,
    erfc,
    isnan,
    le,
    lgamma,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    lt,
    mul,
    ne,
    neg,
    pow,
    sqrt,
    sub,
    where,
    zeros_of,
)
from .through import through
from .view import (
    as_expanded,
    diagonal,
    expand,
    narrow,
    permute,
    select,
    squeeze,
    t,
    transpose,
    unsqueeze,
    view,
    zeros_on,
)

# ---- views as copies -------------------------------------------------------------------------------------------------

def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that copies what a view gives."""
    @wraps(function)
    def copied(input: Tensor, *args: Any, out: Any = None, **options: Any) -> Any:
        found = function(input, *args, **options)
        found = tuple([clone(piece) for piece in found]) if isinstance(found, tuple) else clone(found)
        return found if out is None else into(copied, out, found)
    copied.__name__ = copied.__qualname__ = f"{function.__name__}_copy"
    copied.__module__ = __name__
    copied.__doc__ = f"`{function.__name__}`, as a copy: not a view."
    return copied


diagonal_copy, expand_copy, narrow_copy, permute_copy = [_copied(f) for f in (diagonal, expand, narrow, permute)]
select_copy, squeeze_copy, t_copy, transpose_copy = [_copied(f) for f in (select, squeeze, t, transpose)]
unbind_copy, unfold_copy, unsqueeze_copy, view_copy = [_copied(f) for f in (unbind, unfold, unsqueeze, view)]
split_copy, split_with_sizes_copy = [_copied(f) for f in (split, split_with_sizes)]


def alias_copy(input: Tensor) -> Tensor:
    """A copy: `clone`."""
    return clone(input)


def detach_copy(input: Tensor) -> Tensor:
    """A copy that is cut off from the graph."""
    return clone(input.detach())


def unsafe_split(tensor: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into parts of which each may be changed in place in the graph: they are copies."""
    return split_copy(tensor, split_size, dim)


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`chunk` into parts of which each may be changed in place in the graph: they are copies."""
    return _copied(chunk)(input, chunks, dim)


def constant_pad_nd(input: Tensor, pad: Any, value: Any = 0) -> Tensor:
    """`nn.functional.pad` with a constant."""
    return _pad(input, pad, "constant", value)


_pad = pad


# ---- names without a calculation -------------------------------------------------------------------------------------

def real(input: Tensor) -> Tensor:
    """The tensor itself: there are no complex numbers."""
    return input


conj = resolve_conj = resolve_neg = real


def conj_physical(input: Tensor) -> Tensor:
    """A copy: there are no complex numbers."""
    return clone(input)


def isreal(input: Tensor) -> Tensor:
    """Is each element a real number? True: there are no complex ones. A bool tensor."""
    return logical_not(zeros_on(input.array.layout.shape, layout(input.array.layout.device, BOOL, ())))


def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A number as a 0-d tensor, of the default float dtype unless `dtype` is given."""
    made = as_tensor(float(s) if dtype is None else s, dtype, device)
    return made.requires_grad_() if requires_grad else made


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape to which tensors of these shapes broadcast; each is a tuple of sizes, or one size.

    >>> broadcast_shapes((2, 1), (3,))
    Size([2, 3])
    """
    given = [tuple([operator.index(n) for n in (s if isinstance(s, (tuple, list)) else (s,))]) for s in shapes]
    if any([n < 0 for s in given for n in s]):
        fail("broadcast_shapes", "sizes must not be negative", [list(s) for s in given])
    return Size(broadcast("broadcast_shapes", *given))


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like `input` with one value, a number or a 0-d tensor, which may have a gradient."""
    have = input.array.layout
    if isinstance(value, Tensor):
        if value.array.layout.ndim:
            fail("fill", "value must be a number or a 0-d tensor", value.array.layout)
        return clone(through(as_expanded, cast(value, have.dtype), have.shape))
    return clone(through(as_expanded, constant(value, have.dtype, have.device, "fill"), have.shape))


# ---- elementwise -----------------------------------------------------------------------------------------------------

gcd = Elementwise("gcd", np.gcd, "input other", kinds="i", kernel_kinds="", tensors=2, oracle=np.gcd,
                  doc="The greatest common divisor of integers, not negative.")
lcm = Elementwise("lcm", np.lcm, "input other", kinds="i", kernel_kinds="", tensors=2, oracle=np.lcm,
                  doc="The least common multiple of integers, not negative.")
nextafter = Elementwise(
    "nextafter", np.nextafter, "input other",
    {"input": lambda g, input, other: where(ne(input, other), g, 0.0), "other": lambda g: zeros_of(g)}, kinds="f",
    kernel_kinds="", tensors=2, oracle=np.nextafter,
    doc="The next floating-point number after `input` in the direction of `other`: a step beside `input`.")


def _prepare_next(*layouts: Layout) -> Plan:
    """In half precision a step of the type itself: one of float32 is lost when it is rounded."""
    dtype = layouts[0].dtype
    if not is_half(dtype):
        return nextafter.prepare_plan(*layouts)
    same_device("nextafter", layouts)

    @on_host
    def step(a: Any, b: Any, out: Any) -> None:
        np.nextafter(a, b.astype(dtype), out=out)
    out = layout(layouts[0].device, dtype, broadcast("nextafter", *[x.shape for x in layouts]))
    return host_plan(out, step, "nextafter: NumPy", layouts, moves=True)


nextafter.prepare = _prepare_next


class Frexp(NamedTuple):
    """What `frexp` returns."""

    mantissa: Tensor
    exponent: Tensor


def _prepare_exponent(x: Layout) -> Plan:
    """The exponent e, int32, of x = m 2^e with 0.5 <= |m| < 1."""
    out = layout(x.device, np.dtype("int32"), x.shape)

    def exponent(v: Any, out: Any) -> None:
        out[...] = np.frexp(v)[1]
    return host_plan(out, on_host_if_bfloat16(exponent, x), "frexp: NumPy", (x,), moves=True)


_exponent = Primitive("frexp_exponent", _prepare_exponent)


@_exponent.samples
def _exponent_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5, low=-99, high=99),


_exponent.reference(lambda x: np.frexp(x)[1])


def frexp(input: Tensor) -> Frexp:
    """(mantissa, exponent) with input = mantissa * 2^exponent and 0.5 <= |mantissa| < 1; the exponent is int32."""
    have = input.array.layout
    if not is_float(have.dtype):
        fail("frexp", "needs a floating-point tensor", have, "convert with .float()")
    power = _exponent(input.detach())
    half = power.div(2, rounding_mode="floor")                  # in two steps: 2^-exponent may not be a number
    scale = [cast(pow(2.0, neg(cast(e, np.float64))), have.dtype) for e in (half, sub(power, half))]
    return Frexp(mul(mul(input, scale[0]), scale[1]), power)


@promoting
def angle(input: Tensor) -> Tensor:
    """The angle of each number in the complex plane: 0, and pi for a negative one. Integers and bools give the default
    float; the gradient is 0."""
    x = as_float(input)
    return where(isnan(x), x, mul(cast(lt(x, 0), x.array.layout.dtype), math.pi))


@promoting
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p (Muirhead 1982, theorem 2.1.12):

        p (p - 1) / 4 log(pi) + sum over i < p of lgamma(input - i / 2)

    RuntimeError unless p is from 1 to 4,096: each dimension is an op of its own.
    """
    p = operator.index(p)
    if not 1 <= p <= 4096:
        fail("mvlgamma", "p must be positive, and at most 4096", p)
    x, total = as_float(input), None
    for i in range(p):
        part = lgamma(sub(x, i / 2))
        total = part if total is None else add(total, part)
    return add(total, p * (p - 1) / 4 * math.log(math.pi))


multigammaln = mvlgamma


@promoting
def entr(input: Tensor) -> Tensor:
    """-input log(input), 0 at 0 and -inf below: the terms of an entropy. Integers and bools give the default float."""
    x = as_float(input)
    inside, empty = logical_not(le(x, 0)), eq(x, 0)
    # At 0 as the root, whose value is 0 and whose slope is infinite too, also at -0.0.
    found = where(empty, sqrt(where(empty, add(x, 0.0), 1.0)), neg(mul(x, log(where(inside, x, 1.0)))))
    return where(lt(x, 0), -math.inf, found)


@promoting
def ndtr(input: Tensor) -> Tensor:
    """The distribution function of the standard normal distribution, erfc(-input / sqrt(2)) / 2."""
    return mul(erfc(mul(as_float(input), -math.sqrt(0.5))), 0.5)


@promoting
def xlog1py(input: Any, other: Any) -> Tensor:
    """input * log(1 + other), and 0 where input is 0 (unless other is NaN). One of the two may be a number."""
    x, y = float_pair(input, other)
    no_log = logical_and(eq(x, 0), logical_or(le(y, -1), eq(y, math.inf)))
    return mul(x, log1p(where(no_log, 0.0, y)))


# ---- samples ---------------------------------------------------------------------------------------------------------

@mvlgamma.samples
def _mvlgamma_samples(make: Any) -> Iterator[tuple]:
    for p in (1, 3):
        yield make(3, 5, low=2, high=5), p


@mvlgamma.errors
def _mvlgamma_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), 0, {}), RuntimeError, "positive"


@mvlgamma.reference
def _mvlgamma_reference(x: Any, p: int) -> Any:
    import scipy.special
    return np.vectorize(lambda v: scipy.special.multigammaln(v, p))(x)


def _reference(name: str) -> Callable[..., Any]:
    def reference(*arrays: Any) -> Any:
        import scipy.special
        return getattr(scipy.special, name)(*arrays)
    return reference


@angle.samples
def _angle_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5),


@entr.samples
def _entr_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5, low=0.1),
    yield make(33, low=0.5),


@ndtr.samples
def _ndtr_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5, low=-5, high=5),


@xlog1py.samples
def _xlog1py_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(5, low=-0.5)
    yield make(4), 0.5


angle.reference(lambda x: np.angle(x))
for _op in (entr, ndtr, xlog1py):
    _op.reference(_reference(_op.__name__))
