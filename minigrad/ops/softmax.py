"""Softmax, log-softmax and log-sum-exp along one axis, and cross-entropy, which is made of them."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..device import KernelTable, NoKernel
from ..memory import Array, Layout, alloc, layout
from ..op import op
from ..shape import INT64, axis_of, elementwise_plan, fail, is_float
from ..tensor import Tensor
from . import elementwise as e
from .norm import address
from .reduce import amax, mean, reduced_shape, sum
from .shape_ops import reshape, respelled

__all__ = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "nll_loss"]


def _outer_n_inner(x: Layout, axis: int) -> tuple[int, int, int]:
    """The sizes before, along and behind the axis; the kernels walk lines of at least one element."""
    if not x.size:
        raise NoKernel("there are no elements")
    outer = inner = 1
    for n in x.shape[:axis]:
        outer *= n
    for n in x.shape[axis + 1:]:
        inner *= n
    return outer, x.shape[axis] if x.ndim else 1, inner


def _highest(x: Tensor, axis: int) -> Tensor:
    """The maximum along the axis, as data. Detached: the result does not depend on it, it only keeps e^x in range."""
    if x.ndim and not x.shape[axis]:                # no elements have no maximum, and no power to keep in range
        return sum(x.detach(), axis, True)
    return amax(x.detach(), axis, keepdim=True)


@op
def _softmax(x: Tensor, *, axis: int) -> Tensor:
    """y = e^x / sum(e^x) along `axis`. Shapes: x any -> y like x."""
    power = e.exp(e.sub(x, _highest(x, axis)))
    return e.div(power, sum(power, axis, True))


@_softmax.check
def _softmax_rule(x: Layout, *, axis: int) -> None:
    if not is_float(x.dtype):
        fail("softmax", "x must be floating point", x, "convert with .float(), or pass dtype=")


@_softmax.fused
def _softmax_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    return _along_axis(kernels.softmax_forward[x.dtype], kernels.softmax_backward[x.dtype], x, axis)


def _along_axis(forward: Any, backward: Any, x: Layout, axis: int) -> Any:
    """Closures over kernels (y, x, sizes) and (gx, gy, y, sizes)."""
    outer, n, inner = _outer_n_inner(x, axis)

    def run_forward(xa: Array) -> Any:
        y = alloc(x)
        forward.call(y.ptr, xa.ptr, outer, n, inner)
        return y, y

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


_softmax.samples(_axis_samples)


@op
def _log_softmax(x: Tensor, *, axis: int) -> Tensor:
    """y = x - log(sum(e^x)) along `axis`. Shapes: x any -> y like x."""
    shifted = e.sub(x, _highest(x, axis))
    return e.sub(shifted, e.log(sum(e.exp(shifted), axis, True)))


_log_softmax.check(_softmax_rule)


@_log_softmax.fused
def _log_softmax_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    return _along_axis(kernels.log_softmax_forward[x.dtype], kernels.log_softmax_backward[x.dtype], x, axis)


@_log_softmax.reference
def _log_softmax_oracle(x: Any, *, axis: int) -> Any:
    from scipy.special import log_softmax as oracle
    return oracle(x, axis=axis)


_log_softmax.samples(_axis_samples)


@op
def _logsumexp(x: Tensor, *, axis: int) -> Tensor:
    """log(sum(e^x)) along `axis`, which is dropped."""
    top = _highest(x, axis)
    top = e.where(e.isinf(top), 0.0, top)       # an infinite maximum is the result itself
    total = e.add(e.log(sum(e.exp(e.sub(x, top)), axis, True)), top)
    return reshape(total, reduced_shape(tuple(x.shape), (axis,), False))


_logsumexp.check(_softmax_rule)


@_logsumexp.fused
def _logsumexp_kernels(kernels: KernelTable, x: Layout, *, axis: int) -> Any:
    forward, softmax_of, product = kernels.logsumexp_forward[x.dtype], kernels.softmax_forward[x.dtype], kernels.mul[x.dtype]
    outer, n, inner = _outer_n_inner(x, axis)
    out = layout(x.device, x.dtype, reduced_shape(x.shape, (axis,), False))
    spread = elementwise_plan(x, x, layout(x.device, x.dtype, reduced_shape(x.shape, (axis,), True)))

    def run_forward(xa: Array) -> Any:
        y = alloc(out)
        forward.call(y.ptr, xa.ptr, outer, n, inner)
        return y, xa

    def run_backward(xa: Array, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)           # g softmax(x): from x, since e^(x - y) loses the digits that y has before the point
        softmax_of.call(gx.ptr, xa.ptr, outer, n, inner)
        product.call(gx.ptr, gx.ptr, g.ptr, spread.ptr)
        return [gx]
    return run_forward, run_backward


@_logsumexp.reference
def _logsumexp_oracle(x: Any, *, axis: int) -> Any:
    from scipy.special import logsumexp as oracle
    return oracle(x, axis=axis)


_logsumexp.samples(_axis_samples)


def softmax(input: Tensor, dim: Any = None, dtype: Any = None, **numpy: Any) -> Tensor:
    """e^x / sum(e^x) along `dim`; `dtype` converts first. Rows of -inf only give nan, as in PyTorch."""
    if numpy:
        return softmax(input, dtype=dtype, **respelled("softmax", numpy, dim=dim))
    x = input if dtype is None else e.cast(input, dtype)
    return _softmax(x, axis=axis_of(dim, x.ndim, "softmax")) if x.ndim else e.exp(e.sub(x, x))


def log_softmax(input: Tensor, dim: Any = None, dtype: Any = None, **numpy: Any) -> Tensor:
    """x - log(sum(e^x)) along `dim`; `dtype` converts first."""
    if numpy:
        return log_softmax(input, dtype=dtype, **respelled("log_softmax", numpy, dim=dim))
    x = input if dtype is None else e.cast(input, dtype)
    return _log_softmax(x, axis=axis_of(dim, x.ndim, "log_softmax")) if x.ndim else e.sub(x, x)


def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """log(sum(e^x)) over `dim` (one axis or several), without overflow. Integers are converted first."""
    from ..shape import axes_of, default_float
    from .shape_ops import permute
    x = input if is_float(input.dtype) else e.cast(input, default_float())
    axes = axes_of(dim, x.ndim, "logsumexp")
    if not x.ndim:
        return e.add(x, 0.0)
    shape = reduced_shape(tuple(x.shape), axes, keepdim)
    if len(axes) > 1:                   # several axes are made one, the last
        keep = tuple(i for i in range(x.ndim) if i not in axes)
        x = reshape(permute(x, keep + axes), (*[x.shape[i] for i in keep], -1))
        axes = (x.ndim - 1,)
    return reshape(_logsumexp(x, axis=axes[0]), shape)


# ---- cross-entropy ------------------------------------------------------------------------------------------------------

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _class_axis(x: Tensor | Layout) -> int:
    return 0 if x.ndim == 1 else 1


def reduced(losses: Tensor, reduction: str, divisor: Tensor | float | None = None) -> Tensor:
    """Losses by `reduction`; "mean" divides by `divisor` (default: their number)."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return sum(losses)
    return mean(losses) if divisor is None else e.div(sum(losses), divisor)


def _picked(log_p: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-weight[t] log_p[t] and weight[t], both 0 where the target is ignored."""
    from .index import gather, index_select
    axis = _class_axis(log_p)
    ignored = e.eq(target, ignore_index)
    safe = e.where(ignored, 0, target)
    shape = tuple(target.shape)
    chosen = reshape(gather(log_p, axis, reshape(safe, (*shape[:axis], 1, *shape[axis:]))), shape)
    scale = e.where(ignored, 0.0, e.cast(e.add(e.mul(safe, 0), 1), log_p.dtype)) if weight is None else \
        e.where(ignored, 0.0, reshape(index_select(weight, 0, reshape(safe, (-1,))), shape))
    return e.neg(e.where(ignored, 0.0, e.mul(chosen, scale))), scale


@op
def _cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, *, ignore_index: int, reduction: str,
                   label_smoothing: float) -> Tensor:
    """-sum_c q_c w_c log(softmax(x)_c), q the target distribution, mixed with the uniform one by `label_smoothing`
    (Szegedy et al. 2016, section 7).

    Shapes: x (N, C, *) or (C,), target the labels (N, *) int64 or the distribution, like x; weight (C,) or None.
    "mean" divides by the weights of the labels counted, or by the number of distributions.
    """
    axis = _class_axis(x)
    log_p = _log_softmax(x, axis=axis)
    classes = x.shape[axis]
    broadcast = (classes, *(1,) * (x.ndim - axis - 1))
    weighted = log_p if weight is None else e.mul(log_p, reshape(weight, broadcast))
    if is_float(target.dtype):
        q = target if label_smoothing == 0 else e.add(e.mul(target, 1 - label_smoothing), label_smoothing / classes)
        losses = e.neg(sum(e.mul(weighted, q), axis))
        return reduced(losses, reduction)
    losses, scale = _picked(log_p, target, weight, ignore_index)
    if label_smoothing:
        uniform = e.where(e.eq(target, ignore_index), 0.0, e.neg(sum(weighted, axis)))
        losses = e.add(e.mul(losses, 1 - label_smoothing), e.mul(uniform, label_smoothing / classes))
    return reduced(losses, reduction, sum(scale) if reduction == "mean" else None)


@_cross_entropy.check
def _cross_entropy_rule(x: Layout, target: Layout, weight: Layout | None, *, ignore_index: int, reduction: str,
                        label_smoothing: float) -> None:
    _labels_rule("cross_entropy", x, target, weight)
    if not 0.0 <= label_smoothing <= 1.0:
        fail("cross_entropy", "label_smoothing must be between 0 and 1", label_smoothing)
    if is_float(target.dtype) and ignore_index >= 0:
        fail("cross_entropy", "ignore_index is not supported for floating point target", ignore_index, "leave it at its default, -100")


def _labels_rule(op: str, x: Layout, target: Layout, weight: Layout | None) -> None:
    if not is_float(x.dtype):
        fail(op, "the input must be floating point", x, "convert with .float()")
    if x.ndim == 0:
        fail(op, "the input must have a class dimension", x, kind=ValueError)
    axis = 0 if x.ndim == 1 else 1
    labels = x.shape[:axis] + x.shape[axis + 1:]
    if is_float(target.dtype) and op == "cross_entropy":
        if target.shape != x.shape:
            fail(op, "a target of class probabilities must have the input's shape", [x, target])
    elif target.dtype != INT64:
        fail(op, "labels must be int64", target, "convert with .long()")
    elif target.shape != labels:
        fail(op, "labels must have the input's shape without the class dimension", [x, target],
             "the classes are dimension 1 of the input (0 if it has one dimension)", ValueError)
    if weight is not None and weight.shape != (x.shape[axis],):
        fail(op, "weight must have one value per class", [x, weight])


@_cross_entropy.fused
def _cross_entropy_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None, *, ignore_index: int,
                           reduction: str, label_smoothing: float) -> Any:
    forward, backward = kernels.cross_entropy_forward[x.dtype], kernels.cross_entropy_backward[x.dtype]
    if target.dtype != INT64:
        raise NoKernel("class probabilities go by the definition")
    if weight is not None and weight.dtype != x.dtype:
        raise NoKernel("weight has another dtype")
    outer, classes, inner = _outer_n_inner(x, _class_axis(x))
    code = REDUCTIONS[reduction]
    one = layout(x.device, x.dtype, ())
    items = layout(x.device, x.dtype, target.shape)
    stats = layout(x.device, x.dtype, (2 * outer * inner,))

    def run_forward(xa: Array, ta: Array, wa: Array | None) -> Any:
        each, kept = alloc(items), alloc(stats)
        loss, divisor = (alloc(one), alloc(one)) if code else (None, None)
        forward.call(address(loss), address(divisor), each.ptr, kept.ptr, xa.ptr, ta.ptr, address(wa), outer, classes, inner,
                     ignore_index, code, label_smoothing)
        return loss if code else each, (xa, ta, wa, divisor, kept)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None] | None:
        if len(needs) > 2 and needs[2]:
            return None
        xa, ta, wa, divisor, kept = saved
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, address(divisor), kept.ptr, xa.ptr, ta.ptr, address(wa), outer, classes, inner,
                      ignore_index, code, label_smoothing)
        return [gx, None, None]
    return run_forward, run_backward


@_cross_entropy.reference
def _cross_entropy_oracle(x: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str, label_smoothing: float) -> Any:
    from scipy.special import log_softmax as oracle
    axis = 0 if x.ndim == 1 else 1
    log_p = np.moveaxis(oracle(x, axis=axis), axis, -1)
    classes = log_p.shape[-1]
    w = np.ones(classes, x.dtype) if weight is None else weight
    if target.dtype.kind == "f":
        q, scale = np.moveaxis(target, axis, -1), None
    else:
        q = np.eye(classes, dtype=x.dtype)[np.where(target == ignore_index, 0, target)] * (target != ignore_index)[..., None]
        scale = w[np.where(target == ignore_index, 0, target)] * (target != ignore_index)
    smooth = (1 - label_smoothing) * q + label_smoothing / classes * (1 if scale is None else (target != ignore_index)[..., None])
    losses = -(smooth * w * log_p).sum(-1)
    total = losses.sum()
    if reduction == "none":
        return losses
    return total if reduction == "sum" else total / (losses.size if scale is None else scale.sum())


@_cross_entropy.samples
def _cross_entropy_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        for smoothing in (0.0, 0.3):
            options = {"ignore_index": 2, "reduction": reduction, "label_smoothing": smoothing}
            yield make(5, 7), make.ints(5, high=7), None, options
            yield make(3, 4, 5), make.ints(3, 5, high=4), make(4, low=0.5, high=2), options
            yield make(3, 33), make(3, 33, low=0.1, high=1), make(33, low=0.5, high=2), {**options, "ignore_index": -100}
        yield make(6), make.ints(high=6), None, {"ignore_index": -100, "reduction": reduction, "label_smoothing": 0.0}
        yield make(31, 10), make.ints(31, high=10), None, {"ignore_index": -100, "reduction": reduction, "label_smoothing": 0.0}


@_cross_entropy.errors
def _cross_entropy_errors(make: Any) -> Any:
    options = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    yield (make(3, 4), make.ints(2, high=4), None, options), ValueError, r"without the class dimension.*\[3, 4\].*\[2\]"
    yield (make(3, 4), make.ints(3, high=4), make(3), options), RuntimeError, "one value per class"
    yield (make(3, 4), make.ints(3, high=4), None, {**options, "label_smoothing": 2.0}), RuntimeError, "between 0 and 1"
    yield (make(3, 4), make(3, 4), None, {**options, "ignore_index": 1}), RuntimeError, "not supported for floating point"


def check_labels(op: str, target: Tensor, classes: int, ignore_index: int) -> None:
    """Refuses labels outside [0, classes) that are not `ignore_index`. On a GPU that would mean to wait for it: there the kernel
    reads nothing for such a label and makes its loss NaN."""
    from .index import check_index, guard

    def verify() -> None:
        bad = check_index(target, 0, classes, ignore_index)
        if bad is not None:
            raise IndexError(f"[{op}] labels must lie in [0, {classes}) or be ignore_index {ignore_index}; got {bad}; "
                             "the classes are dimension 1 of the input")
    if not is_float(target.dtype) and target.device.type == "cpu":
        guard(verify)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """See `nn.functional.cross_entropy`."""
    if target.dtype == INT64 and input.ndim:
        check_labels("cross_entropy", target, input.shape[_class_axis(input)], ignore_index)
    return _cross_entropy(input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=float(label_smoothing))


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t]. Shapes: x (N, C, *) or (C,) log-probabilities, target (N, *) int64, weight (C,) or None."""
    _labels_rule("nll_loss", input.layout, target.layout, None if weight is None else weight.layout)
    check_labels("nll_loss", target, input.shape[_class_axis(input)], ignore_index)
    losses, scale = _picked(input, target, weight, ignore_index)
    return reduced(losses, reduction, sum(scale) if reduction == "mean" else None)
