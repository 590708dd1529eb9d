"""Losses as modules; the formulas are at the functions of the same name in ``functional``.

``reduction`` is "mean", "sum" or "none". ``size_average`` and ``reduce`` are its old spelling.
"""
from __future__ import annotations

import warnings

from minigrad.ops import loss as ops
from minigrad.ops.softmax import cross_entropy as cross_entropy_op
from minigrad.ops.softmax import nll_loss as nll_loss_op
from minigrad.shape import broadcast_shapes
from minigrad.tensor import Tensor

from .arguments import checked_reduction, reduction_of
from .module import Module


def _reduce(loss: Tensor, reduction: str, divisor: Tensor | None = None) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if divisor is None else loss.sum() / divisor
    raise ValueError(f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'.")


def _pair(input: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both at their common shape, with a warning if theirs differ."""
    if target.shape != input.shape:
        warnings.warn(f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}). "
                      "This will likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
                      stacklevel=3)
    if weight is not None and weight.shape != input.shape:
        raise ValueError("Weights and input must have the same size.")
    if target.shape != input.shape:
        shape = broadcast_shapes("loss", input.shape, target.shape)
        return input.expand(shape), target.expand(shape)
    return input, target


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """-sum_c q_c log(softmax(x)_c): x (N, C, *), the target labels (N, *) or probabilities (N, C, *); "mean" divides by the
    weights of the labels that are not ``ignore_index``; ``label_smoothing`` mixes q with the uniform distribution."""
    return cross_entropy_op(input, target, weight, ignore_index=ignore_index,
                             reduction=checked_reduction(reduction_of(size_average, reduce, reduction)), label_smoothing=label_smoothing)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t]: x log-probabilities (N, C, *), t labels (N, *); "mean" divides by the weights of the labels counted."""
    return nll_loss_op(input, target, weight, ignore_index=ignore_index,
                        reduction=checked_reduction(reduction_of(size_average, reduce, reduction)))


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)^2; with ``weight``, "mean" divides by its sum."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target, weight)
    if weight is None:
        return ops.mse_loss(input, target, reduction=reduction)
    return _reduce((input - target) ** 2 * weight, reduction, weight.sum())


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|; with ``weight``, "mean" divides by its sum."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target, weight)
    if weight is None:
        return ops.l1_loss(input, target, reduction=reduction)
    return _reduce((input - target).abs() * weight, reduction, weight.sum())


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """|d| - beta / 2 where |d| >= beta, else d^2 / (2 beta), d = input - target"""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    return ops.smooth_l1_loss(input, target, reduction=reduction, beta=beta) if beta else ops.l1_loss(input, target, reduction=reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target"""
    checked_reduction(reduction)
    input, target = _pair(input, target, weight)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    if weight is None:
        return ops.huber_loss(input, target, reduction=reduction, delta=delta)
    return _reduce(ops.huber_loss(input, target, reduction="none", delta=delta) * weight, reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight (t log(p) + (1 - t) log(1 - p)), the logarithms not below -100"""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError(f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}) is "
                         "deprecated. Please ensure they have the same size.")
    if weight is not None and weight.shape != input.shape:
        weight = weight.expand(input.shape)
    return ops.binary_cross_entropy(input, target, weight, reduction=reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                                     reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """``binary_cross_entropy`` of sigmoid(input) in one stable step; ``pos_weight`` multiplies the term of t"""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError(f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})")
    return ops.binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction=reduction)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """t (log(t) - input), the input log-probabilities; "batchmean" divides the sum by the first dimension"""
    reduction = reduction_of(size_average, reduce, reduction)
    if reduction == "batchmean":
        total = ops.kl_div(input, target, reduction="sum", log_target=log_target)
        return total / input.shape[0] if input.ndim else total
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn("reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' divides only "
                      "by the batch size, and aligns with the KL div math definition.", stacklevel=2)
    return ops.kl_div(input, target, reduction=checked_reduction(reduction), log_target=log_target)



class _Loss(Module):
    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction_of(size_average, reduce, reduction)


class _WeightedLoss(_Loss):
    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class L1Loss(_Loss):
    """|input - target|"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """(input - target)^2"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """|d| - beta / 2 where |d| >= beta, else d^2 / (2 beta), d = input - target"""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target"""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if not isinstance(delta, float | int):
            raise TypeError(f"delta must be a float or int, got: {type(delta)}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class CrossEntropyLoss(_WeightedLoss):
    """Negative log-likelihood of softmax(input): logits (N, C, ...), targets class labels (N, ...) or probabilities (N, C, ...)"""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
                 reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
                               label_smoothing=self.label_smoothing)


class NLLLoss(_WeightedLoss):
    """-input[label]: log-probabilities (N, C, ...), class labels (N, ...)"""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
                 reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCELoss(_WeightedLoss):
    """-(t log(p) + (1 - t) log(1 - p)), the logarithms not below -100"""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """``BCELoss`` of sigmoid(input), computed in one stable step; ``pos_weight`` weighs the positive answers"""

    def __init__(self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight)


class KLDivLoss(_Loss):
    """target (log(target) - input), the input log-probabilities; ``reduction="batchmean"`` is the divergence by its definition"""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
                 log_target: bool = False) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
