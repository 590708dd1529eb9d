"""Losses with their reduction: one kernel forward, one backward (native/loss.c and softmax.c, and loss.cu and
softmax.cu beside this file).

`reduction` is "none", "mean" or "sum". Elementwise losses broadcast x and target; their kernels take equal shapes only.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..core.arrays import dense
from ..core.half import autocast_to_float32, rounds_once, unrounded
from ..core.modes import mode
from ..core.op import address, op, same_dtypes
from ..core.shape import BOOL, FLOAT32, INT64, broadcast_shapes, fail, is_float
from ..core.tensor import Tensor, new_tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.launch import THREADS, Launch, launch, over, per_row, threads_for
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.native import loss_chunks
from ..devices.work import work
from .activation import logsigmoid
from .convert import cast
from .creation import number
from .index import gather, index_select
from .math import abs, add, div, eq, exp, le, log, log1p, logical_and, lt, maximum, minimum, mul, ne, neg, sub, where
from .reduce import mean, sum
from .softmax import log_softmax, outer_n_inner
from .take import guard, host_index, in_range
from .view import reshape

UINT8 = np.dtype("uint8")          # labels may have it, as in PyTorch

__all__ = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "kl_div", "cross_entropy", "nll_loss"]


def _pairwise(name: str, kernels: KernelTable, x: Layout, target: Layout, extra: tuple[Layout | None, ...],
              reduction: str, scalars: tuple[float, ...] = ()) -> Any:
    """Forward and backward with the kernels (loss, partial, x, target, extra..., n, reduction, scalars...) and
    (gx, gtarget, gloss, x, target, extra..., n, reduction, scalars...)."""
    forward, backward = getattr(kernels, name + "_forward")[x.dtype], getattr(kernels, name + "_backward")[x.dtype]
    same_dtypes(name, x, target, *extra)
    if any(o is not None and o.shape != x.shape for o in (target, *extra)):
        raise NoKernel("the kernels do not broadcast")
    code, n = REDUCTIONS[reduction], x.size
    out = layout(x.device, x.dtype, () if code else x.shape)
    partial = unrounded(x, (loss_chunks(n),))

    def run_forward(xa: Array, ta: Array, *more: Array | None) -> Any:
        loss, scratch = alloc(out), alloc(partial)
        forward.call(loss.ptr, scratch.ptr, xa.ptr, ta.ptr, *[address(m) for m in more], n, code, *scalars)
        return loss, (xa, ta, more)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None] | None:
        if any(needs[2:]):
            return None         # the definition computes the gradients of the weights
        xa, ta, more = saved
        gx, gt = alloc(x) if needs[0] else None, alloc(x) if needs[1] else None
        backward.call(address(gx), address(gt), g.ptr, xa.ptr, ta.ptr, *[address(m) for m in more], n, code, *scalars)
        return [gx, gt, *[None for _ in more]]
    return run_forward, run_backward


def _reduced_oracle(losses: Any, reduction: str) -> Any:
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _pair_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        yield make(4, 33), make(4, 33), {"reduction": reduction}
        yield make(3, 1), make(1, 5), {"reduction": reduction}
        yield make(), make(), {"reduction": reduction}


def _pair_rule(op_name: str) -> Any:
    def rule(x: Layout, target: Layout, **_: Any) -> None:
        broadcast_shapes(op_name, x.shape, target.shape)
    return rule


def _apart(x: Tensor, target: Tensor) -> Tensor:
    """x - target. A bool among them counts as 0 and 1."""
    a, b = x.array.layout.dtype, target.array.layout.dtype
    return sub(cast(x, b) if a == BOOL else x, cast(target, a) if b == BOOL else target)


@autocast_to_float32
@op(short=True)
def mse_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x - target)^2, reduced. Shapes: x and target broadcast -> their shape for "none", else ()."""
    d = _apart(x, target)
    return reduced(mul(d, d), reduction)


@mse_loss.fused
def _mse_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean") -> Any:
    return _pairwise("mse_loss", kernels, x, target, (), reduction)


mse_loss.check(_pair_rule("mse_loss"))
mse_loss.samples(_pair_samples)
mse_loss.reference(lambda x, target, *, reduction: _reduced_oracle((x - target) ** 2, reduction))


@mse_loss.errors
def _mse_errors(make: Any) -> Any:
    yield (make(3), make(4), {"reduction": "mean"}), RuntimeError, r"broadcast.*\[3\].*\[4\]"


@autocast_to_float32
@op(short=True)
def l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|x - target|, reduced. Shapes: x and target broadcast -> their shape for "none", else ()."""
    return reduced(abs(sub(x, target)), reduction)


@l1_loss.fused
def _l1_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean") -> Any:
    return _pairwise("l1_loss", kernels, x, target, (), reduction)


l1_loss.check(_pair_rule("l1_loss"))
l1_loss.samples(_pair_samples)
l1_loss.reference(lambda x, target, *, reduction: _reduced_oracle(np.abs(x - target), reduction))


@autocast_to_float32
@op(short=True)
def huber_loss(x: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), with d = x - target, reduced (Huber 1964).

    Shapes: x and target broadcast -> their shape for "none", else ().
    """
    d = _apart(x, target)
    size = abs(d)
    return reduced(where(le(size, delta), mul(mul(d, d), 0.5), mul(sub(size, delta / 2), delta)), reduction)


@huber_loss.fused
def _huber_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean",
                   delta: float = 1.0) -> Any:
    return _pairwise("huber_loss", kernels, x, target, (), reduction, (delta, 1.0))


huber_loss.check(_pair_rule("huber_loss"))


@huber_loss.samples
def _huber_samples(make: Any) -> Any:
    for x, target, options in _pair_samples(make):
        yield x, target, {**options, "delta": 0.7}


def _huber(d: Any, delta: float) -> Any:
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


huber_loss.reference(lambda x, target, *, reduction, delta: _reduced_oracle(_huber(x - target, delta), reduction))


@autocast_to_float32
@op(short=True)
def smooth_l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - target and beta > 0, reduced (Girshick 2015,
    eq. 3).

    Shapes: x and target broadcast -> their shape for "none", else ().
    """
    d = _apart(x, target)
    size = abs(d)
    return reduced(where(lt(size, beta), mul(mul(d, d), 0.5 / beta), sub(size, beta / 2)), reduction)


@smooth_l1_loss.fused
def _smooth_l1_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean",
                       beta: float = 1.0) -> Any:
    return _pairwise("huber_loss", kernels, x, target, (), reduction, (beta, 1.0 / beta))


smooth_l1_loss.check(_pair_rule("smooth_l1_loss"))


@smooth_l1_loss.samples
def _smooth_l1_samples(make: Any) -> Any:
    for x, target, options in _pair_samples(make):
        yield x, target, {**options, "beta": 0.7}


@smooth_l1_loss.reference
def _smooth_l1_oracle(x: Any, target: Any, *, reduction: str, beta: float) -> Any:
    return _reduced_oracle(_huber(x - target, beta) / beta, reduction)


# ---- binary cross-entropy --------------------------------------------------------------------------------------------
_LOWEST = math.exp(-100.0)          # its logarithm is the smallest that the loss takes: log(0) counts as -100


def _bce_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        yield make(4, 33, low=0.05, high=0.95), make(4, 33, low=0.1, high=0.9), None, {"reduction": reduction}
        for shape, weight in (((5,), 5), ((3, 2), 2)):
            x, target = make(*shape, low=0.05, high=0.95), make(*shape, low=0.1, high=0.9)
            yield x, target, make(weight, low=0.5, high=2), {"reduction": reduction}


@autocast_to_float32
@op(short=True)
def _binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str) -> Tensor:
    """-weight (t log(x) + (1 - t) log(1 - x)), reduced; a logarithm below -100 counts as -100."""
    log_x = log(maximum.call(x, _LOWEST))
    log_rest = log1p(neg(minimum.call(x, 1 - _LOWEST)))
    losses = neg(add(mul(target, log_x), mul(sub(1.0, target), maximum.call(log_rest, -100.0))))
    return reduced(losses if weight is None else mul(losses, weight), reduction)


@_binary_cross_entropy.fused
def _bce_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None, *, reduction: str) -> Any:
    return _pairwise("bce_loss", kernels, x, target, (weight,), reduction)


_binary_cross_entropy.samples(_bce_samples)


@_binary_cross_entropy.reference
def _bce_oracle(x: Any, target: Any, weight: Any, *, reduction: str) -> Any:
    losses = -(target * np.log(x) + (1 - target) * np.log1p(-x))
    return _reduced_oracle(losses if weight is None else losses * weight, reduction)


_RANGE = "[binary_cross_entropy] all elements of {1} should be between 0 and 1"
_CURE = "pass probabilities (sigmoid gives them), or use binary_cross_entropy_with_logits"


def _check_probabilities(name: str, values: Tensor) -> None:
    """RuntimeError for a value that is not in [0, 1]; on a GPU later (devices/flags.py)."""
    x, known = values.detach(), values.device.kernels.check_range
    x = x if known.get(x.dtype) else cast(x, FLOAT32)
    given = x.array.layout
    if not given.size:
        return
    kernel, on_gpu = known[given.dtype], given.device.flags is not None
    place = layout(given.device, INT64, (loss_chunks(given.size) if on_gpu else 1,))
    if on_gpu:
        found = new_tensor(alloc(place), None)
        kernel.call(found.array.ptr, dense(x.array).ptr, given.size, 0.0, 1.0)
        return in_range(found, -1, 0, RuntimeError, _RANGE + "; got another value at {0}; " + _CURE, name)

    def verify() -> None:
        bad, a = alloc(place), dense(x.array)
        # `call` would put the launch into the recorded program; `guard` repeats the check there
        (kernel.function if mode.recorder else kernel.call)(bad.ptr, a.ptr, given.size, 0.0, 1.0)
        at = host_index(bad).item()
        if at >= 0:
            raise RuntimeError(f"{_RANGE.format(at, name)}; got {a.np.reshape(-1)[at]}; {_CURE}")
    guard(verify)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *,
                         reduction: str = "mean") -> Tensor:
    """-weight (t log(p) + (1 - t) log(1 - p)), p the input, t the target, reduced; no logarithm counts below -100.

    Shapes: all tensors broadcast -> their shape for "none", else (). RuntimeError for values of input or target that
    are not in [0, 1]; on a GPU at the next `item()`, `cpu()`, `tolist()`, `cuda.synchronize()` or replay.
    """
    _check_probabilities("input", input)
    _check_probabilities("target", target)
    return _binary_cross_entropy(input, target, weight, reduction=reduction)


@autocast_to_float32
@op(short=True)
def _binary_cross_entropy_with_logits(x: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *,
                     reduction: str = "mean") -> Tensor:
    """weight ((1 - t) x + (1 + (pos_weight - 1) t) log(1 + e^-x)), reduced; log(1 + e^-x) in a form without overflow.

    It is `binary_cross_entropy` of sigmoid(x). Shapes: all tensors broadcast -> their shape for "none", else ().
    """
    softplus = neg(logsigmoid(x))
    factor = softplus if pos_weight is None else mul(softplus, add(mul(sub(pos_weight, 1.0), target), 1.0))
    losses = add(mul(sub(1.0, target), x), factor)
    return reduced(losses if weight is None else mul(losses, weight), reduction)


@_binary_cross_entropy_with_logits.fused
def _bce_logits_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None,
                        pos_weight: Layout | None, *, reduction: str = "mean") -> Any:
    return _pairwise("bce_logits_loss", kernels, x, target, (weight, pos_weight), reduction)


@_binary_cross_entropy_with_logits.samples
def _bce_logits_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        yield make(4, 33), make(4, 33, low=0.1, high=0.9), None, None, {"reduction": reduction}
        weights = make(5, low=0.5, high=2), make(5, low=0.5, high=2)
        yield make(5), make(5, low=0.1, high=0.9), *weights, {"reduction": reduction}
        yield make(3, 2), make(3, 2, low=0.1, high=0.9), None, make(2, low=0.5, high=2), {"reduction": reduction}


@_binary_cross_entropy_with_logits.reference
def _bce_logits_oracle(x: Any, target: Any, weight: Any, pos_weight: Any, *, reduction: str = "mean") -> Any:
    from scipy.special import log_expit
    losses = -((1 if pos_weight is None else pos_weight) * target * log_expit(x) + (1 - target) * log_expit(-x))
    return _reduced_oracle(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     pos_weight: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), without overflow; `pos_weight` multiplies the term of t.

    Shapes: all tensors broadcast -> their shape for "none", else ().
    """
    return _binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction=reduction)


def _times(q: Tensor, log_p: Tensor) -> Tensor:
    """q log_p, and 0 where it is 0 log 0."""
    return mul(q, where(logical_and(eq(q, 0.0), eq(log_p, -math.inf)), 0.0, log_p))


@autocast_to_float32
@rounds_once
def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """t (log(t) - input), 0 where t is 0, reduced (Kullback and Leibler 1951).

    Shapes: input and target broadcast -> their shape for "none", else (). `input` holds log-probabilities; with
    `log_target`, `target` is log(t).
    """
    if log_target:
        nothing = eq(target, -math.inf)
        target, input = where(nothing, 0.0, target), where(nothing, 0.0, input)
        losses = where(nothing, 0.0, mul(exp(target), sub(target, input)))
    else:
        zero = eq(target, 0.0)
        entropy = where(zero, 0.0, mul(target, log(where(zero, 1.0, target))))
        losses = sub(entropy, _times(target, input))
    return reduced(losses, reduction)


# ---- cross-entropy ---------------------------------------------------------------------------------------------------
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _class_axis(x: Tensor | Layout) -> int:
    return 0 if x.ndim == 1 else 1


def reduced(losses: Tensor, reduction: str, divisor: Tensor | float | None = None) -> Tensor:
    """The losses reduced. "mean" divides the sum by `divisor`, by default the number of losses."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return sum(losses)
    return mean(losses) if divisor is None else div(sum(losses), divisor)


def _picked(log_p: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-weight[t] log_p[t] and weight[t] for the labels t, both 0 where the label is `ignore_index`."""
    axis = _class_axis(log_p)
    ignored = eq(target, ignore_index)
    safe = where(ignored, 0, target)
    shape = tuple(target.shape)
    chosen = reshape(gather(log_p, axis, reshape(safe, (*shape[:axis], 1, *shape[axis:]))), shape)
    if weight is None:
        return where(ignored, 0.0, neg(chosen)), cast(ne(target, ignore_index), log_p.dtype)
    scale = where(ignored, 0.0, reshape(index_select(weight, 0, reshape(safe, (-1,))), shape))
    return where(ignored, 0.0, neg(mul(chosen, scale))), scale


@autocast_to_float32
@op(short=True)
def _cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, *, ignore_index: int, reduction: str,
                   label_smoothing: float) -> Tensor:
    """-sum_c q_c w_c log(softmax(x)_c), where q is the target distribution and w the weight.

    With `label_smoothing` s, q is (1 - s) of the target and s of the uniform distribution (Szegedy et al. 2016,
    section 7). Labels equal to `ignore_index` give 0. "mean" divides by the sum of the weights of all other labels, or
    by the number of distributions.

    Shapes: x (N, C, *) or (C,), target either labels, int64 (N, *) or (), or distributions, like x; weight (C,) or None
    -> (N, *) or () for "none", else ().
    """
    axis = _class_axis(x)
    log_p = log_softmax(x, axis)
    classes = x.shape[axis]
    broadcast = (classes, *(1,) * (x.ndim - axis - 1))
    weighted = log_p if weight is None else mul(log_p, reshape(weight, broadcast))
    if is_float(target.dtype):
        q = target if label_smoothing == 0 else add(mul(target, 1 - label_smoothing), label_smoothing / classes)
        losses = neg(sum(_times(q, weighted), axis))
        return reduced(losses, reduction)
    losses, scale = _picked(log_p, target, weight, ignore_index)
    if label_smoothing:
        uniform = where(eq(target, ignore_index), 0.0, neg(sum(weighted, axis)))
        losses = add(mul(losses, 1 - label_smoothing), mul(uniform, label_smoothing / classes))
    return reduced(losses, reduction, sum(scale) if reduction == "mean" else None)


@_cross_entropy.check
def _cross_entropy_rule(x: Layout, target: Layout, weight: Layout | None, *, ignore_index: int, reduction: str,
                        label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        fail("cross_entropy", "label_smoothing must be between 0 and 1", label_smoothing)
    _labels_rule("cross_entropy", x, target, weight)
    if is_float(target.dtype) and ignore_index >= 0:
        fail("cross_entropy", "ignore_index is not supported for floating point target", ignore_index,
             "leave it at its default, -100")


def _labels_rule(op: str, x: Layout, target: Layout, weight: Layout | None) -> None:
    """x is (N, C, *) or (C,), target and weight fit it."""
    if not is_float(x.dtype):
        fail(op, "the input must be floating point", x, "convert with .float()")
    if x.ndim == 0:
        fail(op, "the input must have a class dimension", x, kind=ValueError)
    axis = 0 if x.ndim == 1 else 1
    labels = x.shape[:axis] + x.shape[axis + 1:]
    if is_float(target.dtype) and op == "cross_entropy" and target.shape == x.shape:
        pass                                                            # class probabilities
    elif target.dtype != INT64 or target.shape != labels:
        _wrong_labels(op, x, target, labels)
    if weight is not None and weight.shape != (x.shape[axis],):
        fail(op, "weight must have one value per class", [x, weight])
    if weight is not None and weight.dtype != x.dtype:
        fail(op, "weight must have the input's dtype", [x, weight], "convert one of them")


def _wrong_labels(op: str, x: Layout, target: Layout, labels: tuple[int, ...]) -> NoReturn:
    """Raises for a target that is neither labels nor (of `cross_entropy`) class probabilities."""
    whole, axis = "" if target.dtype == INT64 else ".long()", 0 if x.ndim == 1 else 1
    got = [f"input {x}", f"target {target}"]
    if target.shape == labels:
        fail(op, "labels must be int64", got, f"use target{whole}")
    fix = "the classes are dimension 1 of the input (0 if it has one dimension)"
    if target.shape == x.shape:
        fix = f"for a one-hot target use target.argmax({axis})"
        fix += ", or target.float() as class probabilities" if op == "cross_entropy" else ""
    elif target.shape == (*labels[:axis], 1, *labels[axis:]):
        fix = f"use target.squeeze({axis}){whole}"
    elif x.ndim > 2 and target.shape == x.shape[:-1]:
        fix += "; where they are the last, use input.movedim(-1, 1), or input.flatten(0, -2) and target.flatten()"
    fail(op, f"the target must hold labels of shape {list(labels)}, which is the input's without the classes"
         + (", or class probabilities of the input's shape" if op == "cross_entropy" else ""),
         got, fix, ValueError if target.ndim == len(labels) else RuntimeError)


@_cross_entropy.fused
def _cross_entropy_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None, *, ignore_index: int,
                           reduction: str, label_smoothing: float) -> Any:
    forward, backward = kernels.cross_entropy_forward[x.dtype], kernels.cross_entropy_backward[x.dtype]
    if target.dtype != INT64:
        raise NoKernel("the kernels take labels, not class probabilities")
    outer, classes, inner = outer_n_inner(x, _class_axis(x))
    code = REDUCTIONS[reduction]
    out = layout(x.device, x.dtype, () if code else target.shape)
    items, one, stats = unrounded(x, target.shape), unrounded(x, ()), unrounded(x, (2 * outer * inner,))
    narrow = out.dtype != items.dtype       # half precision, which is written to `loss` even if it is not reduced

    def run_forward(xa: Array, ta: Array, wa: Array | None) -> Any:
        loss, kept, divisor = alloc(out), alloc(stats), alloc(one) if code else None
        each = alloc(items) if code else None if narrow else loss
        forward.call(loss.ptr if code or narrow else 0, address(divisor), address(each), kept.ptr, xa.ptr, ta.ptr,
                     address(wa), outer, classes, inner, ignore_index, code, label_smoothing)
        return loss, (xa, ta, wa, divisor, kept)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None] | None:
        if len(needs) > 2 and needs[2]:
            return None         # the definition computes the gradient of the weight
        xa, ta, wa, divisor, kept = saved
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, address(divisor), kept.ptr, xa.ptr, ta.ptr, address(wa), outer, classes, inner,
                      ignore_index, code, label_smoothing)
        return [gx, None, None]
    return run_forward, run_backward


@_cross_entropy.reference
def _cross_entropy_oracle(x: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str,
                          label_smoothing: float) -> Any:
    from scipy.special import log_softmax as oracle
    axis = 0 if x.ndim == 1 else 1
    log_p = np.moveaxis(oracle(x, axis=axis), axis, -1)
    classes = log_p.shape[-1]
    w = np.ones(classes, x.dtype) if weight is None else weight
    if target.dtype.kind == "f":
        q, scale = np.moveaxis(target, axis, -1), None
    else:
        counted = target != ignore_index
        safe = np.where(counted, target, 0)
        q, scale = np.eye(classes, dtype=x.dtype)[safe] * counted[..., None], w[safe] * counted
    smooth = (1 - label_smoothing) * q + label_smoothing / classes * (1 if scale is None else counted[..., None])
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
            options = {**options, "ignore_index": -100}
            yield make(3, 33), make(3, 33, low=0.1, high=1), make(33, low=0.5, high=2), options
        plain = {"ignore_index": -100, "reduction": reduction, "label_smoothing": 0.0}
        yield make(6), make.ints(high=6), None, plain
        yield make(31, 10), make.ints(31, high=10), None, plain


@_cross_entropy.errors
def _cross_entropy_errors(make: Any) -> Any:
    options = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    yield (make(3, 4), make.ints(2, high=4), None, options), ValueError, r"without the classes.*\[3, 4\].*\[2\]"
    for target, fix in ((make(3), r"use target.long\(\)"), (make.ints(3, 1, high=4), r"use target.squeeze\(1\)$"),
                        (make.ints(3, 4, high=2), r"target.argmax\(1\), or target.float"), (make(3, 5), "dimension 1"),
                        (make(3, 1), r"use target.squeeze\(1\).long"), (make.ints(3, 1, 4, high=4), "dimension 1")):
        yield (make(3, 4), target, None, options), RuntimeError, fix
    yield (make(2, 5, 7), make.ints(2, 5, high=7), None, options), ValueError, r"use input.movedim\(-1, 1\)"
    yield (make(3, 4), make.ints(3, high=4), make(3), options), RuntimeError, "one value per class"
    yield (make(3, 4), make.ints(3, high=4), None, {**options, "label_smoothing": 2.0}), RuntimeError, "between 0 and 1"
    smooth = {**options, "label_smoothing": 1.2}
    yield (make(3, 4), make.ints(4, high=4), None, smooth), RuntimeError, "between 0 and 1"
    ignoring = {**options, "ignore_index": 1}
    yield (make(3, 4), make(3, 4), None, ignoring), RuntimeError, "not supported for floating point"


def check_labels(op: str, target: Tensor, classes: int, ignore_index: int) -> None:
    """Raises IndexError for a label outside [0, classes) that is not `ignore_index`; on a GPU later."""
    if not is_float(target.dtype):
        in_range(target, 0, classes, IndexError, "[{1}] labels must lie in [0, {2}) or be ignore_index {3}; got {0}; "
                 "the classes are dimension 1 of the input", op, classes, ignore_index, ignore=ignore_index)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """-sum_c q_c w_c log(softmax(input)_c), where q is the target distribution and w the weight.

    `label_smoothing` s mixes (1 - s) of the target with s of the uniform distribution (Szegedy et al. 2016, section 7).
    Labels equal to `ignore_index` give 0 and are not counted by "mean", which divides by the sum of the labels'
    weights.

    Shapes: input (N, C, *) or (C,), target labels, int64 (N, *) or (), or distributions, like input; weight (C,) or
    None -> (N, *) or () for "none", else (). A label outside [0, C) raises IndexError; on a GPU at the next `item()`,
    `cpu()`, `tolist()`, `cuda.synchronize()` or replay, and until then its loss is NaN.
    """
    if target.dtype == UINT8:
        target = cast(target, INT64)
    if target.dtype == INT64 and input.ndim:
        check_labels("cross_entropy", target, input.shape[_class_axis(input)], ignore_index)
    return _cross_entropy(input, target, weight, ignore_index=ignore_index, reduction=reduction,
                          label_smoothing=float(number("cross_entropy", "label_smoothing", label_smoothing)))


@autocast_to_float32
@rounds_once
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
             reduction: str = "mean") -> Tensor:
    """-weight[t] input[t] for the labels t: the negative log-likelihood.

    Shapes: input (N, C, *) or (C,) log-probabilities, target int64 (N, *) or (), weight (C,) or None -> (N, *) or ()
    for "none", else (). Labels equal to `ignore_index` give 0. "mean" divides by the sum of the labels' weights.
    """
    if target.dtype == UINT8:
        target = cast(target, INT64)
    _labels_rule("nll_loss", input.layout, target.layout, None if weight is None else weight.layout)
    check_labels("nll_loss", target, input.shape[_class_axis(input)], ignore_index)
    losses, scale = _picked(input, target, weight, ignore_index)
    return reduced(losses, reduction, sum(scale) if reduction == "mean" else None)


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _cross_entropy_rule_forward(k: Any, host: Any) -> Sequence[Launch]:
    first = per_row(k.outer, k.classes) if k.inner == 1 else over(k.outer * k.inner)
    return [first] if k.reduction == 0 else [first, Launch("reduce", (1,), (threads_for(k.outer * k.inner),))]


def _loss_rule(k: Any, host: Any) -> Sequence[Launch]:
    if k.reduction == 0:
        return [over(k.n)]
    chunks = loss_chunks(k.n)
    return [Launch("", (chunks,), (threads_for(k.n, THREADS),)), Launch("total", (1,), (threads_for(chunks, THREADS),))]


launch("ops/softmax.cu", "cross_entropy_forward", _cross_entropy_rule_forward, shared=512, half=True)
launch("ops/softmax.cu", "cross_entropy_backward", lambda k, host: [over(k.outer * k.classes * k.inner)], shared=256,
       half=True)
for _loss in ("mse_loss", "l1_loss", "huber_loss", "bce_loss", "bce_logits_loss"):
    launch("ops/loss.cu", f"{_loss}_forward", _loss_rule, shared=256, half=True)
    launch("ops/loss.cu", f"{_loss}_backward", lambda k, host: [over(k.n)], half=True)
launch("ops/loss.cu", "check_range", lambda k, host: [Launch("", (loss_chunks(k.n),), (threads_for(k.n, THREADS),))],
       shared=4096, half=True)
work("check_range")
work("cross_entropy_forward", lambda k: 4 * k.outer * k.classes * k.inner)      # maximum, difference, exp, sum
work("cross_entropy_backward", lambda k: 3 * k.outer * k.classes * k.inner)     # difference, exp, product
work("mse_loss_forward l1_loss_forward", lambda k: 3 * k.n)                     # difference, square or abs, sum
work("mse_loss_backward l1_loss_backward", lambda k: 2 * k.n)
work("huber_loss_forward", lambda k: 6 * k.n)       # difference, abs, comparison, product with the scale, square, sum
work("huber_loss_backward", lambda k: 4 * k.n)
work("bce_loss_forward", lambda k: 7 * k.n)         # -(t log(x) + (1 - t) log(1 - x)), sum
work("bce_loss_backward", lambda k: 5 * k.n)        # (x - t) / (x (1 - x)), product with the gradient
work("bce_logits_loss_forward", lambda k: 7 * k.n)  # maximum(x, 0) - x t + log1p(exp(-|x|)), sum
work("bce_logits_loss_backward", lambda k: 5 * k.n)     # sigmoid(x) - t, product with the gradient
