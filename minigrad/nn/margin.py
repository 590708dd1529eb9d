"""Losses of ranking, margins and embeddings: each function with its layer. What losses share is in `nn/loss.py`.

In the formulas y is the target, and max(v, 0) is written v+. Shapes, where nothing else is said: input and target of
one shape -> a scalar, or that shape with `reduction="none"`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.shape import INT64, fail
from ..core.tensor import Tensor
from ..ops.activation import log1pexp, logsigmoid
from ..ops.creation import arange, number, zeros
from ..ops.formula import clamp_min
from ..ops.index import gather
from ..ops.loss import reduced
from ..ops.math import eq, ge, logical_and, minimum, mul, ne, neg, sub, where
from ..ops.take import checked
from .arguments import checked_reduction, reduction_of
from .distance import PairwiseDistance, pairwise_distance
from .loss import Loss, WeightedLoss, criterion, total


def _signs(make: Any, *shape: int) -> Tensor:
    """1 and -1, for samples; whole numbers, which have no derivative."""
    return make.ints(*shape, high=2) * 2 - 1


# ---- pairs -----------------------------------------------------------------------------------------------------------

@criterion
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """(-y (input1 - input2) + margin)+, y 1 where input1 should be the larger one, else -1.

    The three tensors broadcast, but must have as many dimensions: else RuntimeError.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if not input1.ndim == input2.ndim == target.ndim:
        fail("margin_ranking_loss", "input1, input2 and target must have as many dimensions",
             [input1.layout, input2.layout, target.layout])
    return reduced(clamp_min(neg(target) * (input1 - input2) + margin, 0), reduction)


@margin_ranking_loss.samples
def _ranking_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make(3, 5), _signs(make, 3, 5), {"margin": 0.5, "reduction": reduction}
    yield make(33), make(33), _signs(make, 33)


@margin_ranking_loss.errors
def _ranking_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(3), make(3, 1), {}), RuntimeError, "as many dimensions"
    yield (make(3), make(3), make(3), {"reduction": "most"}), ValueError, "not a valid value for reduction"


@margin_ranking_loss.reference
def _ranking_oracle(a: Any, b: Any, y: Any, margin: float = 0, reduction: str = "mean") -> Any:
    return total(np.maximum(-y * (a - b) + margin, 0), reduction)


class MarginRankingLoss(Loss):
    """(-y (input1 - input2) + margin)+, y 1 where input1 should be the larger one, else -1."""

    def __init__(self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """(*), (*), (*) -> scalar, or (*) unreduced"""
        return margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


@criterion
def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """x where y is 1, (margin - x)+ where it is -1: x is a distance, y says whether both things are alike."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    apart = where(ne(target, 1), clamp_min(sub(margin, input), 0), 0.0)
    return reduced(apart + where(ne(target, -1), input, 0.0), reduction)


@hinge_embedding_loss.samples
def _hinge_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), _signs(make, 3, 5), {"margin": 0.5, "reduction": reduction}
    yield make(33), _signs(make, 33)


@hinge_embedding_loss.errors
def _hinge_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(4), {}), RuntimeError, "broadcast"
    yield (make(3), make(3), {"reduction": "most"}), ValueError, "not a valid value for reduction"


@hinge_embedding_loss.reference
def _hinge_oracle(x: Any, y: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    return total(np.where(y == 1, x, np.maximum(margin - x, 0)), reduction)


class HingeEmbeddingLoss(Loss):
    """x where y is 1, (margin - x)+ where it is -1."""

    def __init__(self, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


@criterion
def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + e^(-y x)), y 1 or -1, without overflow."""
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    return reduced(log1pexp(neg(mul(target, input))), reduction)


@soft_margin_loss.samples
def _soft_margin_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), _signs(make, 3, 5), {"reduction": reduction}
    yield make(33, low=-30, high=30), _signs(make, 33)


@soft_margin_loss.errors
def _soft_margin_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(4), {}), RuntimeError, "broadcast"


@soft_margin_loss.reference
def _soft_margin_oracle(x: Any, y: Any, reduction: str = "mean") -> Any:
    return total(np.logaddexp(0, -y * x), reduction)


class SoftMarginLoss(Loss):
    """log(1 + e^(-y x)), y 1 or -1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*), (*) -> scalar, or (*) unreduced"""
        return soft_margin_loss(input, target, reduction=self.reduction)


# ---- classes ---------------------------------------------------------------------------------------------------------

def _rows(name: str, input: Tensor, target: Tensor, wanted: tuple[int, ...]) -> Tensor:
    """The input as (N, C); RuntimeError unless it is that or (C), and the target int64 of the shape `wanted`. An input
    without dimensions is read as one class."""
    if input.ndim > 2 or input.ndim and not input.shape[-1]:
        fail(name, "input must be (N, C) or (C), with at least one class", input.layout)
    if target.dtype != INT64 or tuple(target.shape) != wanted and tuple(target.shape) != (1,) * (target.numel() == 1):
        fail(name, f"target must be int64 of shape {list(wanted)}", [input.layout, target.layout])
    return input if input.ndim == 2 else input.reshape(1, -1)


@criterion
def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                      size_average: bool | None = None, reduce: bool | None = None,
                      reduction: str = "mean") -> Tensor:
    """sum_{i != y} weight_y (margin - x_y + x_i)+^p / C, the hinge loss of several classes (Crammer and Singer 2001).

    Shapes: input (N, C) or (C), target labels y int64 (N) or (), weight (C) -> a scalar, or like target. ValueError
    unless p is 1 or 2; IndexError for a label outside [0, C).
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if p not in (1, 2):
        raise ValueError(f"[multi_margin_loss] only p == 1 and p == 2 supported; got {p}")
    if weight is not None and (weight.ndim != 1 or input.ndim and weight.numel() != input.shape[-1]):
        fail("multi_margin_loss", "weight must be one-dimensional, with a number for each class",
             [input.layout, weight.layout], kind=RuntimeError if weight.ndim == 1 else ValueError)
    x = _rows("multi_margin_loss", input, target, tuple(input.shape[:-1]))
    classes = x.shape[1]
    label = checked("multi_margin_loss", target.reshape(-1), classes, 1, wrap=False)
    violated = clamp_min(sub(margin, gather(x, 1, label.unsqueeze(1))) + x, 0)
    violated = violated if p == 1 else violated * violated
    if weight is not None:
        violated = violated * weight[label].unsqueeze(1)
    other = ne(label.unsqueeze(1), arange(classes, device=x.device))
    losses = where(other, violated, 0.0).sum(1) / classes
    return reduced(losses if input.ndim == 2 else losses.reshape(target.shape), reduction)


@multi_margin_loss.samples
def _multi_margin_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make.ints(3, high=5), 2, 0.7, make(5, low=0.5, high=2), {"reduction": reduction}
    yield make(4, 33), make.ints(4, high=33)
    yield make(5), make.ints(high=5)
    yield make(5), make.ints(1, high=5), 1, 1.0, None, {"reduction": "none"}


@multi_margin_loss.errors
def _multi_margin_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make.ints(3, high=5), 3, {}), ValueError, "only p == 1 and p == 2"
    yield (make(3, 5), make.ints(3, high=5), 1, 1.0, make(3, 5), {}), ValueError, "one-dimensional"
    yield (make(3, 5), make.ints(3, high=5), 1, 1.0, make(3), {}), RuntimeError, "a number for each class"
    yield (make(3, 5), make.ints(2, high=5), {}), RuntimeError, "target must be int64"
    yield (make(3, 5), make.ints(3, low=5, high=6), {}), IndexError, "out of range"
    yield (make(2, 3, 5), make.ints(2, 3), {}), RuntimeError, r"\(N, C\) or \(C\)"


@multi_margin_loss.reference
def _multi_margin_oracle(x: Any, y: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
                         reduction: str = "mean") -> Any:
    def one(row: Any, label: int) -> Any:
        others = np.maximum(margin - row[label] + row, 0) ** p * (1 if weight is None else weight[label])
        return np.delete(others, label).sum() / row.size
    found = [one(*pair) for pair in zip(np.atleast_2d(x), y.ravel(), strict=True)]
    return total(np.reshape(found, y.shape), reduction)


class MultiMarginLoss(WeightedLoss):
    """sum_{i != y} weight_y (margin - x_y + x_i)+^p / C (Crammer and Singer 2001)."""

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                 size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError(f"only p == 1 and p == 2 supported; got {p}")
        if weight is not None and weight.ndim != 1:
            raise ValueError(f"weight must be None or have a single dimension; got {weight.ndim} dimensions")
        self.p, self.margin = p, margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C) or (C), labels (N) or () -> scalar, or like target unreduced"""
        return multi_margin_loss(input, target, p=self.p, margin=self.margin, weight=self.weight,
                                 reduction=self.reduction)


@criterion
def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """sum over the labels y of a sample and the classes i that are none: (1 - x_y + x_i)+ / C.

    Shapes: input (N, C) or (C), target int64 of the same shape: the labels of each sample, then -1; what comes behind
    the first negative number is not read -> a scalar, or (N) or (). IndexError for a label that is not below C.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    x = _rows("multilabel_margin_loss", input, target, tuple(input.shape))
    y = target.reshape(x.shape)
    batch, classes = x.shape
    real = ge(y, 0).to(INT64).cumprod(1).to(bool)
    label = checked("multilabel_margin_loss", where(real, y, 0), classes, 1, wrap=False)
    marked = zeros((batch, classes), dtype=INT64, device=x.device).scatter_add(1, label, real.to(INT64))
    pairs = logical_and(real.unsqueeze(2), eq(marked, 0).unsqueeze(1))          # (N, label, class)
    violated = clamp_min(sub(1.0, gather(x, 1, label)).unsqueeze(2) + x.unsqueeze(1), 0)
    losses = where(pairs, violated, 0.0).sum((1, 2)) / classes
    return reduced(losses if input.ndim == 2 else losses.squeeze(0), reduction)


@multilabel_margin_loss.samples
def _multilabel_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make.ints(3, 5, low=-1, high=5), {"reduction": reduction}
    yield make(7), make.ints(7, low=-1, high=7)


@multilabel_margin_loss.errors
def _multilabel_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make.ints(3, high=5), {}), RuntimeError, "target must be int64"
    yield (make(3, 5), make.ints(3, 5, low=5, high=6), {}), IndexError, "out of range"


@multilabel_margin_loss.reference
def _multilabel_oracle(x: Any, y: Any, reduction: str = "mean") -> Any:
    def one(row: Any, labels: Any) -> Any:
        end = np.flatnonzero(labels < 0)
        labels = labels[:end[0]] if end.size else labels
        rest = np.delete(row, labels)
        return np.maximum(1 - row[labels][:, None] + rest, 0).sum() / row.size
    return total(np.array([one(*pair) for pair in zip(x, y, strict=True)]) if x.ndim == 2 else np.array(one(x, y)),
                  reduction)


class MultiLabelMarginLoss(Loss):
    """sum over the labels y of a sample and the classes i that are none: (1 - x_y + x_i)+ / C."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C) or (C), labels of the same shape that end with -1 -> scalar, or (N) or () unreduced"""
        return multilabel_margin_loss(input, target, reduction=self.reduction)


@criterion
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """-mean_c weight_c (y log(sigmoid(x)) + (1 - y) log(1 - sigmoid(x))), c the classes of the last dimension.

    Shapes: input and target (*, C), weight (C) -> a scalar, or (*) unreduced.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    losses = neg(target * logsigmoid(input) + (1 - target) * logsigmoid(neg(input)))
    losses = losses if weight is None else losses * weight
    return reduced(losses.sum(-1) / input.shape[-1], reduction)


@multilabel_soft_margin_loss.samples
def _multilabel_soft_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make(3, 5, low=0.1, high=0.9), make(5, low=0.5, high=2), {"reduction": reduction}
    yield make(2, 3, 4), make(2, 3, 4, low=0.1, high=0.9)


@multilabel_soft_margin_loss.errors
def _multilabel_soft_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(3, 4), {}), RuntimeError, "broadcast"


@multilabel_soft_margin_loss.reference
def _multilabel_soft_oracle(x: Any, y: Any, weight: Any = None, reduction: str = "mean") -> Any:
    losses = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    return total((losses if weight is None else losses * weight).mean(-1), reduction)


class MultiLabelSoftMarginLoss(WeightedLoss):
    """-mean_c weight_c (y log(sigmoid(x)) + (1 - y) log(1 - sigmoid(x)))."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*, C), (*, C) -> scalar, or (*) unreduced"""
        return multilabel_soft_margin_loss(input, target, weight=self.weight, reduction=self.reduction)


# ---- embeddings ------------------------------------------------------------------------------------------------------

@criterion
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """1 - cos(input1, input2) where y is 1, (cos(input1, input2) - margin)+ where it is -1.

    Shapes: inputs (N, D) with a target (N), or (D) with a target () -> a scalar, or like target. RuntimeError for
    others.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    if target.ndim > 1 or not input1.ndim == input2.ndim == target.ndim + 1:
        fail("cosine_embedding_loss", "inputs must be (N, D) with a target (N), or (D) with a target ()",
             [input1.layout, input2.layout, target.layout])
    tiny = 1e-12                        # as in PyTorch: the root has a derivative at vectors of zeros
    sizes = ((input1 * input1).sum(-1) + tiny) * ((input2 * input2).sum(-1) + tiny)
    cosine = (input1 * input2).sum(-1) / sizes.sqrt()
    apart = where(eq(target, -1), clamp_min(cosine - margin, 0), 0.0)
    return reduced(where(eq(target, 1), 1 - cosine, 0.0) + apart, reduction)


@cosine_embedding_loss.samples
def _cosine_embedding_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make(3, 5), _signs(make, 3), {"margin": 0.1, "reduction": reduction}
    yield make(33), make(33), _signs(make)


@cosine_embedding_loss.errors
def _cosine_embedding_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(3, 5), make(3, 1), {}), RuntimeError, "with a target"
    yield (make(3, 5), make(3, 5), make(), {}), RuntimeError, "with a target"


@cosine_embedding_loss.reference
def _cosine_embedding_oracle(a: Any, b: Any, y: Any, margin: float = 0, reduction: str = "mean") -> Any:
    cosine = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return total(np.where(y == 1, 1 - cosine, np.maximum(cosine - margin, 0)), reduction)


class CosineEmbeddingLoss(Loss):
    """1 - cos(input1, input2) where y is 1, (cos(input1, input2) - margin)+ where it is -1."""

    def __init__(self, margin: float = 0.0, size_average: bool | None = None, reduce: bool | None = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D), (N) -> scalar, or (N) unreduced; or all without N"""
        return cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


def _triplet(name: str, anchor: Tensor, positive: Tensor, negative: Tensor,
             distance: Callable[[Tensor, Tensor], Tensor], margin: float, swap: bool, reduction: str) -> Tensor:
    if not margin > 0:
        raise ValueError(f"[{name}] margin must be greater than 0; got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        fail(name, "anchor, positive and negative must have the same number of dimensions",
             [anchor.layout, positive.layout, negative.layout])
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(clamp_min(margin + near - far, 0), reduction)


@criterion
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """(d(anchor, positive) - d(anchor, negative) + margin)+ with d = `pairwise_distance` (Balntas et al. 2016).

    Shapes: (N, D) or (D), all three -> a scalar, or (N) or (). `swap`: the negative's distance from the positive counts
    if it is the smaller one. ValueError unless margin > 0.
    """
    reduction = checked_reduction(reduction_of(size_average, reduce, reduction))
    p = float(number("triplet_margin_loss", "p", p))
    return _triplet("triplet_margin_loss", anchor, positive, negative, lambda a, b: pairwise_distance(a, b, p, eps),
                    margin, swap, reduction)


@triplet_margin_loss.samples
def _triplet_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(3, 5), make(3, 5), make(3, 5), {"margin": 0.7, "swap": True, "reduction": reduction}
    yield make(4, 33), make(4, 33), make(4, 33), 1.5, 1
    yield make(5), make(5), make(5)


@triplet_margin_loss.errors
def _triplet_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(3, 5), make(5), {}), RuntimeError, "number of dimensions"
    yield (make(3, 5), make(3, 5), make(3, 5), 0.0, {}), ValueError, "greater than 0"


@triplet_margin_loss.reference
def _triplet_oracle(a: Any, b: Any, c: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
                    reduction: str = "mean") -> Any:
    near, far, other = ((np.abs(u - v + eps) ** p).sum(-1) ** (1 / p) for u, v in ((a, b), (a, c), (b, c)))
    return total(np.maximum(margin + near - (np.minimum(far, other) if swap else far), 0), reduction)


class TripletMarginLoss(Loss):
    """(d(anchor, positive) - d(anchor, negative) + margin)+, d the p-norm of the difference (Balntas et al. 2016)."""

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                 size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise ValueError(f"TripletMarginLoss: expected margin to be greater than 0, got {margin} instead")
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """(N, D) or (D), all three -> scalar, or (N) or () unreduced"""
        return triplet_margin_loss(anchor, positive, negative, margin=self.margin, p=self.p, eps=self.eps,
                                   swap=self.swap, reduction=self.reduction)


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
                                      margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of your own, by default `pairwise_distance`."""
    return _triplet("triplet_margin_with_distance_loss", anchor, positive, negative,
                    distance_function or pairwise_distance, margin, swap, checked_reduction(reduction))


class TripletMarginWithDistanceLoss(Loss):
    """`TripletMarginLoss` with a distance of your own, by default `pairwise_distance`."""

    def __init__(self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
                 swap: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if margin <= 0:
            raise ValueError(f"TripletMarginWithDistanceLoss: expected margin to be greater than 0, got {margin} "
                             "instead")
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin, self.swap = margin, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """(N, *), all three -> scalar, or what the distance gives unreduced"""
        return triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=self.distance_function,
                                                 margin=self.margin, swap=self.swap, reduction=self.reduction)
