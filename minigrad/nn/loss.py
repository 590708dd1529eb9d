"""Losses: each function with its layer. The kernels are in `ops/loss.py`.

Shapes: where nothing else is said, input (*) and target (*) of one shape -> a scalar, or (*) with `reduction="none"`.
`reduction` is "mean", "sum" or "none"; other words raise ValueError. `size_average` and `reduce` are the old spelling
of `reduction`, as in PyTorch, and warn.
"""
from __future__ import annotations

from ..core.half import rounds_once
from ..core.shape import BOOL, broadcast_shapes, fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops import loss as ops
from .arguments import checked_reduction, reduction_of
from .module import Module


class _Loss(Module):
    """A loss with the option `reduction`."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction_of(size_average, reduce, reduction)


class _WeightedLoss(_Loss):
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
         "which is seldom meant; give them the same size")
    return input.expand(shape), target.expand(shape)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input - target|. `weight`, of the same shape, multiplies each term; "mean" then divides by its sum."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    input, target = _pair("l1_loss", input, target, weight)
    if weight is None:
        return ops.l1_loss(input, target, reduction=reduction)
    return _reduce((input - target).abs() * weight, reduction, weight.sum())


class L1Loss(_Loss):
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


class MSELoss(_Loss):
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


class SmoothL1Loss(_Loss):
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


class HuberLoss(_Loss):
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target (Huber 1964)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if not isinstance(delta, float | int):
            raise TypeError(f"[nn.HuberLoss] delta must be a float or int; got {type(delta).__name__}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)


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


class CrossEntropyLoss(_WeightedLoss):
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


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t], x log-probabilities.

    Shapes: input x (N, C, *) or (C), target labels t (N, *), weight (C). "mean" divides by the sum of the weights of
    the labels that are not `ignore_index`.
    """
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index,
                        reduction=checked_reduction(reduction_of(size_average, reduce, reduction)))


class NLLLoss(_WeightedLoss):
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


class BCELoss(_WeightedLoss):
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


class BCEWithLogitsLoss(_Loss):
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


class KLDivLoss(_Loss):
    """t (log(t) - input), input log-probabilities; `reduction="batchmean"` is the divergence by its definition."""

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
                 log_target: bool = False) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
