"""Softmax, log-softmax and log-sum-exp (native/softmax.c, and softmax.cu beside this file).

All three subtract the maximum first, so that no power overflows: e^x / sum(e^x) = e^(x - m) / sum(e^(x - m)).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core.half import autocast_to_float32_on_gpu
from ..core.op import op
from ..core.out import writes
from ..core.shape import axes_of, axis_of, default_float, fail, is_float
from ..core.tensor import Tensor
from ..devices.base import Kernel, KernelTable, NoKernel
from ..devices.launch import Launch, launch, over, per_row
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import is_half
from ..devices.work import work
from .arguments import respelled
from .convert import cast
from .math import add, div, eq, exp, isinf, log, sub, where
from .reduce import amax, reduced_shape, sum
from .view import permute, reshape

__all__ = ["softmax", "log_softmax", "logsumexp"]


def outer_n_inner(x: Layout, axis: int) -> tuple[int, int, int]:
    """The number of elements before, along and after the axis, as the kernels take them."""
    if not x.size:
        raise NoKernel("there are no elements")
    outer = inner = 1
    for n in x.shape[:axis]:
        outer *= n
    for n in x.shape[axis + 1:]:
        inner *= n
    return outer, x.shape[axis] if x.ndim else 1, inner


def _highest(x: Tensor, axis: int) -> Tensor:
    """The maximum along the axis, detached: it only keeps e^x in range, the result does not depend on it."""
    if x.ndim and not x.shape[axis]:                # without elements there is no maximum; the sum is 0
        return sum(x.detach(), axis, True)
    return amax(x.detach(), axis, keepdim=True)


@autocast_to_float32_on_gpu
@op(short=True)
def _softmax(x: Tensor, *, axis: int) -> Tensor:
    """y = e^x / sum(e^x) along `axis`. Shapes: x any, floating point -> y like x."""
    power = exp(sub(x, _highest(x, axis)))
    return div(power, sum(power, axis, True))


@_softmax.check
def _softmax_rule(x: Layout, *, axis: int) -> None:
    if not is_float(x.dtype):
        fail("softmax", "x must be floating point", x, "convert with .float(), or pass dtype=")


@_softmax.fused
def _softmax_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    return _along_axis(kernels.softmax_forward[x.dtype], kernels.softmax_backward[x.dtype], x, axis)


def _along_axis(forward: Kernel, backward: Kernel, x: Layout, axis: int) -> Any:
    """Forward and backward with the kernels (y, x, sizes) and (gx, gy, y, sizes). In half precision y is rounded, so
    that the backward kernel takes x in its place."""
    outer, n, inner = outer_n_inner(x, axis)
    rounds = is_half(x.dtype)

    def run_forward(xa: Array) -> Any:
        y = alloc(x)
        forward.call(y.ptr, xa.ptr, outer, n, inner)
        return y, xa if rounds else y

    def run_backward(y: Array, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, y.ptr, outer, n, inner)
        return [gx]
    return run_forward, run_backward


@_softmax.reference
def _softmax_oracle(x: Any, *, axis: int) -> Any:
    from scipy.special import softmax as oracle
    return oracle(x, axis=axis)


def _axis_samples(make: Any) -> Any:
    for shape, axis in (((4, 33), 1), ((3, 5, 31), 1), ((5, 2), 0), ((7,), 0), ((2, 1), 1), ((0, 3), 1), ((3, 100), 1)):
        yield make(*shape), {"axis": axis}
    yield make(4, 8, low=900, high=1000), {"axis": 1}
    yield make(4, 8, low=-300, high=300), {"axis": 1}           # most are 0


_softmax.samples(_axis_samples)


@autocast_to_float32_on_gpu
@op(short=True)
def _log_softmax(x: Tensor, *, axis: int) -> Tensor:
    """y = x - log(sum(e^x)) along `axis`. Shapes: x any, floating point -> y like x."""
    shifted = sub(x, _highest(x, axis))
    return sub(shifted, log(sum(exp(shifted), axis, True)))


_log_softmax.check(_softmax_rule)


@_log_softmax.fused
def _log_softmax_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    return _along_axis(kernels.log_softmax_forward[x.dtype], kernels.log_softmax_backward[x.dtype], x, axis)


@_log_softmax.reference
def _log_softmax_oracle(x: Any, *, axis: int) -> Any:
    from scipy.special import log_softmax as oracle
    return oracle(x, axis=axis)


_log_softmax.samples(_axis_samples)


@op(short=True)
def _logsumexp(x: Tensor, *, axis: int) -> Tensor:
    """y = log(sum(e^x)) along `axis`. Shapes: x any, floating point -> y without `axis`.

    Beside an infinite maximum nothing else counts: the elements equal to it share the gradient.
    """
    top = _highest(x, axis)
    infinite, equal = isinf(top), eq(x, top)
    mean = div(sum(where(equal, x, 0.0), axis, True), sum(cast(equal, x.dtype), axis, True))
    top = where(infinite, 0.0, top)
    total = add(log(sum(exp(sub(where(infinite, 0.0, x), top)), axis, True)), top)
    return reshape(where(infinite, mean, total), reduced_shape(tuple(x.shape), (axis,), False))


_logsumexp.check(_softmax_rule)


@_logsumexp.fused
def _logsumexp_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    forward, backward = kernels.logsumexp_forward[x.dtype], kernels.logsumexp_backward[x.dtype]
    outer, n, inner = outer_n_inner(x, axis)
    out = layout(x.device, x.dtype, reduced_shape(x.shape, (axis,), False))

    def run_forward(xa: Array) -> Any:
        y = alloc(out)
        forward.call(y.ptr, xa.ptr, outer, n, inner)
        return y, xa

    def run_backward(xa: Array, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, xa.ptr, outer, n, inner)
        return [gx]
    return run_forward, run_backward


@_logsumexp.reference
def _logsumexp_oracle(x: Any, *, axis: int) -> Any:
    from scipy.special import logsumexp as oracle
    return oracle(x, axis=axis)


_logsumexp.samples(_axis_samples)


def _axis(x: Tensor, dim: Any, name: str) -> int:
    return axis_of(0 if dim is None and not x.ndim else dim, x.ndim, name)


def softmax(input: Tensor, dim: Any = None, dtype: Any = None, **numpy: Any) -> Tensor:
    """e^x / sum(e^x) along `dim`; `dtype` converts first. A row with only -inf gives NaN, as in PyTorch.

    Shapes: input any, floating point -> like input. `axis=` is another name of `dim=`.
    """
    if numpy:
        return respelled(softmax, numpy, input, dim=dim, dtype=dtype)
    x = input if dtype is None else cast(input, dtype)
    axis = _axis(x, dim, "softmax")
    return _softmax(x, axis=axis) if x.ndim else exp(sub(x, x))


def log_softmax(input: Tensor, dim: Any = None, dtype: Any = None, **numpy: Any) -> Tensor:
    """x - log(sum(e^x)) along `dim`; `dtype` converts first.

    Shapes: input any, floating point -> like input. `axis=` is another name of `dim=`.
    """
    if numpy:
        return respelled(log_softmax, numpy, input, dim=dim, dtype=dtype)
    x = input if dtype is None else cast(input, dtype)
    axis = _axis(x, dim, "log_softmax")
    return _log_softmax(x, axis=axis) if x.ndim else sub(x, x)


@writes("cast")
def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """log(sum(e^x)) over `dim`, one axis or several, without overflow.

    Shapes: input any -> without the axes in `dim`, or with size 1 there if `keepdim`. Integers are converted to the
    default float dtype first.
    """
    x = input if is_float(input.dtype) else cast(input, default_float())
    axes = axes_of(dim, x.ndim, "logsumexp")
    if not x.ndim:
        return add(x, 0.0)
    shape = reduced_shape(tuple(x.shape), axes, keepdim)
    if len(axes) > 1:                   # join the axes to one, the last
        keep = tuple(i for i in range(x.ndim) if i not in axes)
        count = math.prod([x.shape[i] for i in axes])
        x = reshape(permute(x, keep + axes), (*[x.shape[i] for i in keep], count))
        axes = (x.ndim - 1,)
    return reshape(_logsumexp(x, axis=axes[0]), shape)


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _lines_rule(k: Any, host: Any) -> Sequence[Launch]:
    return [per_row(k.outer, k.n) if k.inner == 1 else over(k.outer * k.inner)]


launch("ops/softmax.cu", "softmax_forward softmax_backward log_softmax_forward log_softmax_backward logsumexp_forward "
       "logsumexp_backward", _lines_rule, shared=512, half=True)
work("softmax_forward log_softmax_forward", lambda k: 5 * k.outer * k.n * k.inner)      # maximum, x - maximum, exp, sum
work("logsumexp_forward softmax_backward log_softmax_backward", lambda k: 4 * k.outer * k.n * k.inner)
work("logsumexp_backward", lambda k: 3 * k.outer * k.n * k.inner)
