"""Losses: each function with its layer. The kernels are in `ops/loss.py`.

Shapes: where nothing else is said, input (*) and target (*) of one shape -> a scalar, or (*) with `reduction="none"`.
`reduction` is "mean", "sum" or "none"; other words raise ValueError. `size_average` and `reduce` are the old spelling
of `reduction`, as in PyTorch, and warn.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.half import autocast_to_float32, rounds_once
from ..core.modes import mode
from ..core.shape import BOOL, broadcast_shapes, fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops import loss as ops
from ..ops.creation import full_like
from ..ops.formula import clamp_min, formula
from ..ops.math import exp, gt, log, lt, mul, sub, where
from .arguments import DeviceLike, DtypeLike, checked_reduction, reduction_of
from .linear import Linear, linear
from .module import Module


def criterion(definition: Callable) -> Any:
    """Makes an op of a loss that is composed of other ops; it runs in float32 under autocast."""
    return autocast_to_float32(rounds_once(formula(definition)))


class Loss(Module):
    """A loss with the option `reduction`."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction_of(size_average, reduce, reduction)


class WeightedLoss(Loss):
    """A loss with the options `weight`, which is kept as a buffer, and `reduction`."""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


# ---- regression ----


def _reduce(loss: Tensor, reduction: str, divisor: Tensor | None = None) -> Tensor:
    """The loss of all elements as one number; "mean" divides by `divisor` if it is given."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if divisor is None else loss.sum() / divisor
    raise ValueError(f"[loss] reduction must be 'none', 'mean' or 'sum'; got {reduction!r}")


def _pair(name: str, input: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both at their common shape, with a warning if their shapes differ."""
    if weight is not None and weight.shape != input.shape:
        raise ValueError(f"[{name}] weight and input must have the same size; "
                         f"got weight {tuple(weight.shape)}, input {tuple(input.shape)}")
    if target.shape == input.shape:
        return input, target
    shape = broadcast_shapes(name, input.shape, target.shape)
    warn(f"the target size {tuple(target.shape)} differs from the input size {tuple(input.shape)}: both are broadcast, "
         "which is seldom meant. Please ensure they have the same size.")
    return input.expand(shape), target.expand(shape)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input - target|. `weight`, of the same shape, multiplies each term; "mean" then divides by its sum."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair("l1_loss", input, target, weight)
    if weight is None:
        return ops.l1_loss(input, target, reduction=reduction)
    return _reduce((input - target).abs() * weight, reduction, weight.sum())


class L1Loss(Loss):
    """|input - target|"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return l1_loss(input, target, reduction=self.reduction)


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)^2. `weight`, of the same shape, multiplies each term; "mean" then divides by its sum."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair("mse_loss", input, target, weight)
    if weight is None:
        return ops.mse_loss(input, target, reduction=reduction)
    return _reduce((input - target) ** 2 * weight, reduction, weight.sum())


class MSELoss(Loss):
    """(input - target)^2"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return mse_loss(input, target, reduction=self.reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """|d| - beta / 2 where |d| >= beta, else d^2 / (2 beta), d = input - target (Girshick 2015).

    `beta=0` is `l1_loss`; a negative one raises RuntimeError.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError(f"[smooth_l1_loss] beta must not be negative; got {beta}")
    if not beta:
        return ops.l1_loss(input, target, reduction=reduction)
    return ops.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


class SmoothL1Loss(Loss):
    """|d| - beta / 2 where |d| >= beta, else d^2 / (2 beta), d = input - target (Girshick 2015)."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
                 beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target (Huber 1964).

    `weight`, of the same shape, multiplies each term. A `delta` that is not positive raises RuntimeError.
    """
    checked_reduction(reduction)
    input, target = _pair("huber_loss", input, target, weight)
    if delta <= 0:
        raise RuntimeError(f"[huber_loss] delta must be positive; got {delta}")
    if weight is None:
        return ops.huber_loss(input, target, reduction=reduction, delta=delta)
    return _weighted_huber(input, target, weight, delta, reduction)


@rounds_once
def _weighted_huber(input: Tensor, target: Tensor, weight: Tensor, delta: float, reduction: str) -> Tensor:
    return _reduce(ops.huber_loss(input, target, reduction="none", delta=delta) * weight, reduction)


class HuberLoss(Loss):
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target (Huber 1964)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if not isinstance(delta, float | int):
            raise TypeError(f"[nn.HuberLoss] delta must be a float or int; got {type(delta).__name__}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)


# ---- counts and variances ----


def _pair_samples(make: Any, target: Callable[..., Tensor], **options: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), target(3, 5), {**options, "reduction": reduction}
    yield make(33), target(33), options


def total(losses: Any, reduction: str) -> Any:
    """The losses reduced, for references."""
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


@criterion
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """e^x - y x, the negative log-likelihood of counts y at the rate e^x, without the term log(y!).

    With `log_input=False` x is the rate itself: x - y log(x + eps). `full` adds Stirling's approximation of log(y!),
    y log(y) - y + log(2 pi y) / 2, where y > 1.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    losses = sub(exp(input), mul(target, input)) if log_input else sub(input, mul(target, log(input + eps)))
    if full:
        many = gt(target, 1)
        y = where(many, target, 1.0)
        losses = losses + where(many, y * log(y) - y + 0.5 * log(2 * math.pi * y), 0.0)
    return ops.reduced(losses, reduction)


@poisson_nll_loss.samples
def _poisson_samples(make: Any) -> Iterator[tuple]:
    yield from _pair_samples(make, lambda *shape: make(*shape, low=0.5, high=4))
    yield make(3, 5, low=0.1), make(3, 5, low=0.5, high=4), False, True


@poisson_nll_loss.errors
def _poisson_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(4), {}), RuntimeError, "broadcast"
    yield (make(3), make(3), {"reduction": "most"}), ValueError, "not a valid value for reduction"


@poisson_nll_loss.reference
def _poisson_oracle(x: Any, y: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
                    reduction: str = "mean") -> Any:
    losses = np.exp(x) - y * x if log_input else x - y * np.log(x + eps)
    if full:
        losses = losses + np.where(y > 1, y * np.log(y) - y + 0.5 * np.log(2 * np.pi * y), 0)
    return total(losses, reduction)


class PoissonNLLLoss(Loss):
    """e^x - y x, the negative log-likelihood of counts y at the rate e^x; see `poisson_nll_loss` for the options."""

    def __init__(self, log_input: bool = True, full: bool = False, size_average: bool | None = None,
                 eps: float = 1e-8, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return poisson_nll_loss(log_input, target, log_input=self.log_input, full=self.full, eps=self.eps,
                                reduction=self.reduction)


@criterion
def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """(log(v) + (x - y)^2 / v) / 2, v = max(var, eps): the negative log-likelihood of y in N(x, v) (Nix and Weigend
    1994), without the term log(2 pi) / 2, which `full` adds.

    Shapes: input x and target y (*), var (*), or (*) with a last size 1 or without the last dimension, or a number.
    The gradient of `var` is that of the formula at v. ValueError for negative variances (unchecked while a capture
    records), or another shape.
    """
    checked_reduction(reduction)
    if not isinstance(var, Tensor):
        var = full_like(input, var)
    if mode.recorder is None and bool(lt(var.detach(), 0).any()):
        raise ValueError("[gaussian_nll_loss] var has negative entry/entries")
    if var.shape != input.shape:
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = var.unsqueeze(-1)
        elif input.ndim != var.ndim or sum(n for m, n in zip(input.shape, var.shape, strict=True) if m != n) != 1:
            fail("gaussian_nll_loss", "var is of incorrect size: it must have the input's, but for one dimension of "
                 "size 1", [input.layout, var.layout], kind=ValueError)
    # detached: by definition the bound does not count in the derivative, so that a variance below it can grow
    var = var + (clamp_min(var.detach(), eps) - var.detach())
    losses = 0.5 * (log(var) + (input - target) ** 2 / var)
    return ops.reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


@gaussian_nll_loss.samples
def _gaussian_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make(3, 5), make(3, 1, low=0.5, high=2), True, {"reduction": reduction}
    yield make(3, 5), make(3, 5), make(3, low=0.5, high=2)
    yield make(33), make(33), 0.7


@gaussian_nll_loss.errors
def _gaussian_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(3, 5), make(4, low=0.5), {}), ValueError, "incorrect size"
    yield (make(3), make(3), -1.0, {}), ValueError, "negative"


@gaussian_nll_loss.reference
def _gaussian_oracle(x: Any, y: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> Any:
    var = var[..., None] if isinstance(var, np.ndarray) and var.ndim < x.ndim else var
    losses = (np.log(var) + (x - y) ** 2 / var) / 2 + (np.log(2 * np.pi) / 2 if full else 0)
    return total(losses, reduction)


class GaussianNLLLoss(Loss):
    """(log(v) + (x - y)^2 / v) / 2, v = max(var, eps): the negative log-likelihood of y in N(x, v) (Nix and Weigend
    1994); see `gaussian_nll_loss`."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Tensor, target: Tensor, var: Any) -> Tensor:
        """(*), (*), variances -> scalar, or (*) unreduced"""
        return gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


# ---- classification ----


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """-sum_c weight_c q_c log(softmax(x)_c), q the wanted distribution.

    Shapes: input x (N, C, *) or (C), target labels (N, *) or probabilities (N, C, *), weight (C). "mean" divides by the
    sum of the weights of the labels that are not `ignore_index`. `label_smoothing` from 0 to 1 is the share of the
    uniform distribution in q (Szegedy et al. 2015).
    """
    return ops.cross_entropy(input, target, weight, ignore_index=ignore_index,
                             reduction=checked_reduction(reduction_of(size_average, reduce, reduction)),
                             label_smoothing=label_smoothing)


class CrossEntropyLoss(WeightedLoss):
    """-sum_c weight_c q_c log(softmax(x)_c): logits (N, C, *), target labels (N, *) or probabilities (N, C, *).

        >>> nn.CrossEntropyLoss()(minigrad.zeros(3, 4), minigrad.tensor([0, 1, 2])).item()      # log(4)
        1.3862943649291992
    """

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
                 reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C, *), (N, *) or (N, C, *) -> scalar, or (N, *) unreduced"""
        return cross_entropy(input, target, weight=self.weight, ignore_index=self.ignore_index,
                             reduction=self.reduction, label_smoothing=self.label_smoothing)


@rounds_once
def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
                         weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """`cross_entropy` of linear(input, linear_weight, linear_bias), with the same options.

    Shapes: input (N, in) or (in), linear_weight (C, *, in), linear_bias (C, *), target labels (N, *) or probabilities
    (N, C, *), weight (C); * is () for an input (in). RuntimeError for others, or for `ignore_index` with probabilities.
    `options` tell PyTorch how to save memory; they are accepted without effect.
    """
    if input.ndim not in (1, 2) or linear_weight.ndim < 2 or input.shape[-1] != linear_weight.shape[-1] \
            or linear_weight.ndim > 2 and input.ndim == 1:
        fail("linear_cross_entropy", "input must be (N, in) or (in), and linear_weight (C, *, in), * only with N",
             [input.layout, linear_weight.layout])
    wide = tuple(linear_weight.shape[:-1])
    if linear_bias is not None and tuple(linear_bias.shape) != wide:
        fail("linear_cross_entropy", f"linear_bias must have the shape {list(wide)}", linear_bias.layout)
    logits = linear(input, linear_weight.reshape(-1, input.shape[-1]),
                    None if linear_bias is None else linear_bias.reshape(-1)).reshape(*input.shape[:-1], *wide)
    if target.shape == logits.shape and ignore_index is not None:
        fail("linear_cross_entropy", "ignore_index cannot be specified when target contains probabilities",
             ignore_index)
    return cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=label_smoothing,
                         ignore_index=-100 if ignore_index is None else ignore_index)


class LinearCrossEntropyLoss(WeightedLoss):
    """A linear layer and `cross_entropy` of what it gives: the head of a classifier with its loss.

    `linear` maps in_features to num_classes, or to num_classes times the sizes `out_features`. `options`: see
    `linear_cross_entropy`. RuntimeError for a weight that is not (num_classes) or a smoothing outside [0, 1].
    """

    def __init__(self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
                 device: DeviceLike = None, dtype: DtypeLike = None, reduction: str = "mean",
                 weight: Tensor | None = None, ignore_index: int | None = None, label_smoothing: float = 0.0,
                 options: Any = None) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            fail("LinearCrossEntropyLoss", f"weight must have the shape {[num_classes]}", weight.layout)
        if not 0 <= label_smoothing <= 1:
            fail("LinearCrossEntropyLoss", "label_smoothing must be in [0, 1]", label_smoothing)
        super().__init__(weight, reduction=reduction)
        self.num_classes, self.out_features = num_classes, out_features
        self.ignore_index, self.label_smoothing, self.options = ignore_index, label_smoothing, options
        self.linear = Linear(in_features, math.prod(out_features, start=num_classes), bias, device, dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, in_features), labels (N, *) or probabilities (N, C, *) -> scalar, or (N, *) unreduced"""
        wide, bias = (self.num_classes, *self.out_features), self.linear.bias
        return linear_cross_entropy(
            input, self.linear.weight.reshape(*wide, self.linear.in_features), target,
            linear_bias=None if bias is None else bias.reshape(wide), weight=self.weight, reduction=self.reduction,
            ignore_index=self.ignore_index, label_smoothing=self.label_smoothing, options=self.options)

    def extra_repr(self) -> str:
        return (f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
                f"out_features={self.out_features}, bias={self.linear.bias is not None}, reduction={self.reduction}, "
                f"ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}, options={self.options}")


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t], x log-probabilities.

    Shapes: input x (N, C, *) or (C), target labels t (N, *), weight (C). "mean" divides by the sum of the weights of
    the labels that are not `ignore_index`.
    """
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index,
                        reduction=checked_reduction(reduction_of(size_average, reduce, reduction)))


class NLLLoss(WeightedLoss):
    """-weight[t] x[t]: log-probabilities x (N, C, *), class labels t (N, *)."""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
                 reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C, *), (N, *) -> scalar, or (N, *) unreduced"""
        return nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight (t log(p) + (1 - t) log(1 - p)), p the input, t the target; no logarithm is below -100.

    Raises ValueError if input and target differ in shape; `weight` broadcasts to it.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError("[binary_cross_entropy] input and target must have the same size; "
                         f"got input {tuple(input.shape)}, target size {tuple(target.shape)}")
    if weight is not None and weight.shape != input.shape:
        weight = weight.expand(input.shape)
    return ops.binary_cross_entropy(input, target, weight, reduction=reduction)


class BCELoss(WeightedLoss):
    """-weight (t log(p) + (1 - t) log(1 - p)), p the input, t the target; no logarithm is below -100."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: bool | None = None, reduce: bool | None = None,
                                     reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), in one step that is stable for large inputs.

    `pos_weight` multiplies the term of t. Raises ValueError if input and target differ in shape.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError("[binary_cross_entropy_with_logits] input and target must have the same size; "
                         f"got input {tuple(input.shape)}, target size {tuple(target.shape)}")
    if target.dtype == BOOL:
        fail("binary_cross_entropy_with_logits", "the target must be numbers", target.layout, "use target.float()")
    return ops.binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction=reduction)


class BCEWithLogitsLoss(Loss):
    """`BCELoss` of sigmoid(input), in one stable step; `pos_weight` multiplies the term of t."""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction,
                                                pos_weight=self.pos_weight)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """t (log(t) - input), input log-probabilities, t the target, or e^target with `log_target`.

    `reduction="batchmean"` divides the sum by the first size, which is the divergence by its definition (Kullback and
    Leibler 1951); "mean" divides by the number of elements and warns.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    broadcast_shapes("kl_div", input.shape, target.shape)
    if reduction == "batchmean":
        return _batchmean(input, target, log_target)
    if reduction == "mean" and size_average is None and reduce is None:
        warn("reduction: 'mean' divides the total loss by the number of elements; 'batchmean' divides it by the batch "
             "size, as the definition of the divergence does")
    return ops.kl_div(input, target, reduction=checked_reduction(reduction), log_target=log_target)


@rounds_once
def _batchmean(input: Tensor, target: Tensor, log_target: bool) -> Tensor:
    total = ops.kl_div(input, target, reduction="sum", log_target=log_target)
    return total / input.shape[0] if input.ndim else total


class KLDivLoss(Loss):
    """t (log(t) - input), input log-probabilities; `reduction="batchmean"` is the divergence by its definition."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
                 log_target: bool = False) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
