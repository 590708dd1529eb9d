"""Elementwise losses with their reduction: one kernel forward, one backward."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import cpu
from ..device import KernelTable, NoKernel
from ..memory import Array, Layout, alloc, layout
from ..op import op
from ..shape import broadcast_shapes
from ..tensor import Tensor
from . import elementwise as e
from .activation import logsigmoid
from .norm import address, same_dtypes
from .softmax import REDUCTIONS, reduced

__all__ = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div"]


def _pairwise(name: str, kernels: KernelTable, x: Layout, target: Layout, extra: tuple[Layout | None, ...], reduction: str,
              scalars: tuple[float, ...] = ()) -> Any:
    """Closures over kernels (loss, partial, x, target, extra..., n, reduction, scalars...) and
    (gx, gtarget, gloss, x, target, extra..., n, reduction, scalars...)."""
    forward, backward = getattr(kernels, name + "_forward")[x.dtype], getattr(kernels, name + "_backward")[x.dtype]
    same_dtypes(name, x, target, *extra)
    if any(o is not None and o.shape != x.shape for o in (target, *extra)):
        raise NoKernel("broadcasting goes by the definition")
    code, n = REDUCTIONS[reduction], x.size
    out = layout(x.device, x.dtype, () if code else x.shape)
    partial = layout(x.device, x.dtype, (cpu.loss_chunks(n),))

    def run_forward(xa: Array, ta: Array, *more: Array | None) -> Any:
        loss, scratch = alloc(out), alloc(partial)
        forward.call(loss.ptr, scratch.ptr, xa.ptr, ta.ptr, *[address(m) for m in more], n, code, *scalars)
        return loss, (xa, ta, more)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None] | None:
        if any(needs[2:]):
            return None
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


@op
def mse_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x - target)^2, reduced. Shapes: x and target alike."""
    d = e.sub(x, target)
    return reduced(e.mul(d, d), reduction)


@mse_loss.fused
def _mse_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean") -> Any:
    return _pairwise("mse_loss", kernels, x, target, (), reduction)


mse_loss.check(_pair_rule("mse_loss"))
mse_loss.samples(_pair_samples)
mse_loss.reference(lambda x, target, *, reduction: _reduced_oracle((x - target) ** 2, reduction))


@mse_loss.errors
def _mse_errors(make: Any) -> Any:
    yield (make(3), make(4), {"reduction": "mean"}), RuntimeError, r"broadcast.*\[3\].*\[4\]"


@op
def l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|x - target|, reduced. Shapes: x and target alike."""
    return reduced(e.abs(e.sub(x, target)), reduction)


@l1_loss.fused
def _l1_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean") -> Any:
    return _pairwise("l1_loss", kernels, x, target, (), reduction)


l1_loss.check(_pair_rule("l1_loss"))
l1_loss.samples(_pair_samples)
l1_loss.reference(lambda x, target, *, reduction: _reduced_oracle(np.abs(x - target), reduction))


@op
def huber_loss(x: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = x - target, reduced (Huber 1964)."""
    d = e.sub(x, target)
    size = e.abs(d)
    return reduced(e.where(e.le(size, delta), e.mul(e.mul(d, d), 0.5), e.mul(e.sub(size, delta / 2), delta)), reduction)


@huber_loss.fused
def _huber_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean", delta: float = 1.0) -> Any:
    return _pairwise("huber_loss", kernels, x, target, (), reduction, (delta, 1.0))


huber_loss.check(_pair_rule("huber_loss"))


@huber_loss.samples
def _huber_samples(make: Any) -> Any:
    for x, target, options in _pair_samples(make):
        yield x, target, {**options, "delta": 0.7}


def _huber(d: Any, delta: float) -> Any:
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


huber_loss.reference(lambda x, target, *, reduction, delta: _reduced_oracle(_huber(x - target, delta), reduction))


@op
def smooth_l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, d = x - target, reduced (Girshick 2015, eq. 3); beta > 0."""
    d = e.sub(x, target)
    size = e.abs(d)
    return reduced(e.where(e.lt(size, beta), e.mul(e.mul(d, d), 0.5 / beta), e.sub(size, beta / 2)), reduction)


@smooth_l1_loss.fused
def _smooth_l1_kernels(kernels: KernelTable, x: Layout, target: Layout, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    return _pairwise("huber_loss", kernels, x, target, (), reduction, (beta, 1.0 / beta))


smooth_l1_loss.check(_pair_rule("smooth_l1_loss"))


@smooth_l1_loss.samples
def _smooth_l1_samples(make: Any) -> Any:
    for x, target, options in _pair_samples(make):
        yield x, target, {**options, "beta": 0.7}


smooth_l1_loss.reference(lambda x, target, *, reduction, beta: _reduced_oracle(_huber(x - target, beta) / beta, reduction))


# ---- binary cross-entropy -------------------------------------------------------------------------------------------------

_LOWEST = math.exp(-100.0)


def _bce_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        yield make(4, 33, low=0.05, high=0.95), make(4, 33, low=0.1, high=0.9), None, {"reduction": reduction}
        yield make(5, low=0.05, high=0.95), make(5, low=0.1, high=0.9), make(5, low=0.5, high=2), {"reduction": reduction}
        yield make(3, 2, low=0.05, high=0.95), make(3, 2, low=0.1, high=0.9), make(2, low=0.5, high=2), {"reduction": reduction}


@op
def binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str = "mean") -> Tensor:
    """-weight (t log(x) + (1 - t) log(1 - x)), the logarithms not below -100, reduced. x holds probabilities."""
    log_x = e.log(e.maximum.call(x, _LOWEST))
    log_rest = e.log1p(e.neg(e.minimum.call(x, 1 - _LOWEST)))
    losses = e.neg(e.add(e.mul(target, log_x), e.mul(e.sub(1.0, target), e.maximum.call(log_rest, -100.0))))
    return reduced(losses if weight is None else e.mul(losses, weight), reduction)


@binary_cross_entropy.fused
def _bce_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None, *, reduction: str = "mean") -> Any:
    return _pairwise("bce_loss", kernels, x, target, (weight,), reduction)


binary_cross_entropy.samples(_bce_samples)


@binary_cross_entropy.reference
def _bce_oracle(x: Any, target: Any, weight: Any, *, reduction: str = "mean") -> Any:
    losses = -(target * np.log(x) + (1 - target) * np.log1p(-x))
    return _reduced_oracle(losses if weight is None else losses * weight, reduction)


@op
def _bce_with_logits(x: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *, reduction: str = "mean") -> Tensor:
    """(1 - t) x + (1 + (pos_weight - 1) t) log(1 + e^-x), by a stable form of log(1 + e^-x), times weight, reduced."""
    softplus = e.neg(logsigmoid(x))
    factor = softplus if pos_weight is None else e.mul(softplus, e.add(e.mul(e.sub(pos_weight, 1.0), target), 1.0))
    losses = e.add(e.mul(e.sub(1.0, target), x), factor)
    return reduced(losses if weight is None else e.mul(losses, weight), reduction)


@_bce_with_logits.fused
def _bce_logits_kernels(kernels: KernelTable, x: Layout, target: Layout, weight: Layout | None, pos_weight: Layout | None, *,
                        reduction: str = "mean") -> Any:
    return _pairwise("bce_logits_loss", kernels, x, target, (weight, pos_weight), reduction)


@_bce_with_logits.samples
def _bce_logits_samples(make: Any) -> Any:
    for reduction in ("none", "mean", "sum"):
        yield make(4, 33), make(4, 33, low=0.1, high=0.9), None, None, {"reduction": reduction}
        yield make(5), make(5, low=0.1, high=0.9), make(5, low=0.5, high=2), make(5, low=0.5, high=2), {"reduction": reduction}
        yield make(3, 2), make(3, 2, low=0.1, high=0.9), None, make(2, low=0.5, high=2), {"reduction": reduction}


@_bce_with_logits.reference
def _bce_logits_oracle(x: Any, target: Any, weight: Any, pos_weight: Any, *, reduction: str = "mean") -> Any:
    from scipy.special import log_expit
    losses = -((1 if pos_weight is None else pos_weight) * target * log_expit(x) + (1 - target) * log_expit(-x))
    return _reduced_oracle(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, *,
                                     reduction: str = "mean") -> Tensor:
    """See `nn.functional.binary_cross_entropy_with_logits`."""
    return _bce_with_logits(input, target, weight, pos_weight, reduction=reduction)


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """t (log(t) - input), 0 where t is 0; with `log_target`, t is given as its logarithm. Reduced."""
    if log_target:
        losses = e.mul(e.exp(target), e.sub(target, input))
    else:
        positive = e.gt(target, 0.0)
        entropy = e.where(positive, e.mul(target, e.log(e.where(positive, target, 1.0))), 0.0)
        losses = e.sub(entropy, e.mul(target, input))
    return reduced(losses, reduction)
