"""Connectionist temporal classification: `ctc_loss` and `CTCLoss` (Graves et al. 2006)."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import as_tensor, full
from ..ops.formula import logaddexp
from ..ops.index import gather
from ..ops.join import cat, stack
from ..ops.loss import reduced
from ..ops.math import logical_and, ne, neg, where
from ..ops.take import checked
from .arguments import checked_reduction
from .loss import Loss, criterion


def _lengths(name: str, given: Any, batch: int, most: int) -> list[int]:
    """Lengths as numbers; RuntimeError unless there is one for each sequence, from 0 to `most`."""
    found = np.asarray(given.numpy(force=True) if isinstance(given, Tensor) else given).reshape(-1)
    if found.dtype.kind not in "iu" or found.size != batch or (found < 0).any() or (found > most).any():
        fail("ctc_loss", f"{name} must be {batch} whole numbers from 0 to {most}", found.tolist())
    return found.tolist()


def _labels(targets: Tensor, lengths: list[int], classes: int, blank: int) -> Tensor:
    """Each target with a blank before and behind each of its labels: (N, 2 S + 1), S the longest one; then blanks."""
    longest, count = max(lengths, default=0), len(lengths)
    if targets.ndim == 1:                           # one after the other
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])[:, None]
        place = np.minimum(first + np.arange(longest), max(targets.numel() - 1, 0))
        targets = targets[as_tensor(place, device=targets.device)]
    targets = checked("ctc_loss", targets[:, :longest], classes, 1, wrap=False)
    real = as_tensor(np.arange(longest) < np.array(lengths)[:, None], device=targets.device)
    between = full((count, longest + 1), blank, dtype=targets.dtype, device=targets.device)
    pairs = stack([between[:, 1:], where(real, targets, blank)], -1).reshape(count, -1)
    return cat([pairs, between[:, :1]], 1)


def _moved(alpha: Tensor, by: int) -> Tensor:
    """`alpha` shifted to the right along its last dimension; -inf comes in."""
    gone = full((alpha.shape[0], min(by, alpha.shape[1])), -math.inf, dtype=alpha.dtype, device=alpha.device)
    return cat([gone, alpha[:, :max(alpha.shape[1] - by, 0)]], 1)


def _likelihood(x: Tensor, labels: Tensor, inputs: list[int], targets: list[int], blank: int) -> Tensor:
    """log P(target | x) of each sequence, by the forward recursion (Graves et al. 2006, eq. 5 to 8) over logarithms."""
    steps, batch, _ = x.shape
    size = labels.shape[1]
    emitted = gather(x, 2, labels.unsqueeze(0).expand(steps, batch, size))
    skips = logical_and(ne(labels[:, 2:], labels[:, :-2]), ne(labels[:, 2:], blank))
    nothing = full((batch, size), -math.inf, dtype=x.dtype, device=x.device)
    alpha = where(as_tensor(np.arange(size) < 2, device=x.device), emitted[0], nothing)
    for t in range(1, max(inputs)):
        two = _moved(alpha, 2)
        if size > 2:
            two = cat([nothing[:, :2], where(skips, two[:, 2:], -math.inf)], 1)
        new = logaddexp(logaddexp(alpha, _moved(alpha, 1)), two) + emitted[t]
        going = np.array(inputs) > t
        alpha = new if going.all() else where(as_tensor(going[:, None], device=x.device), new, alpha)
    last = as_tensor(2 * np.array(targets)[:, None], device=x.device)
    end = gather(alpha, 1, last).squeeze(1)
    if not any(targets):
        return end
    label = gather(alpha, 1, (last - 1).clamp(0)).squeeze(1)
    full_ones = as_tensor(np.array(targets) > 0, device=x.device)
    return logaddexp(end, where(full_ones, label, -math.inf))


@criterion
def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """-log P(target | log_probs), P the sum over all ways to stretch the target over the steps, with blanks between
    (Graves et al. 2006). "mean" divides each loss by the length of its target (at least 1) first.

    Shapes: log_probs (T, N, C) or (T, C) log-probabilities; targets (N, S), or all one after the other, without blanks;
    input_lengths and target_lengths: N whole numbers, as a tensor or a sequence (a captured function takes a sequence)
    -> a scalar, or (N) or (). A target that does not fit its input has the loss inf, or with `zero_infinity` 0 and no
    gradient. The gradient is that of log_probs themselves; PyTorch's is that of logits behind a `log_softmax`, which
    comes to the same where log_probs come from one.
    """
    reduction = checked_reduction(reduction)
    if log_probs.ndim not in (2, 3) or targets.ndim not in (1, 2) or not log_probs.shape[0]:
        fail("ctc_loss", "log_probs must be (T, N, C) or (T, C), T > 0, and targets (N, S) or one after the other",
             [log_probs.layout, targets.layout])
    x = log_probs if log_probs.ndim == 3 else log_probs.unsqueeze(1)
    steps, batch, classes = x.shape
    if not 0 <= blank < classes:
        fail("ctc_loss", f"blank must be in [0, {classes})", blank)
    inputs = _lengths("input_lengths", input_lengths, batch, steps)
    given = _lengths("target_lengths", target_lengths, batch,
                     targets.shape[1] if targets.ndim == 2 else targets.numel())
    if targets.ndim == 1 and sum(given) > targets.numel() or targets.ndim == 2 and targets.shape[0] != batch:
        fail("ctc_loss", "targets must hold a target for each sequence", [log_probs.layout, targets.layout])
    losses = neg(_likelihood(x, _labels(targets, given, classes, blank), inputs, given, blank))
    if 0 in inputs:                                 # no step: only an empty target is possible
        sure = np.where(np.array(given) > 0, math.inf, 0.0).astype(x.dtype)
        losses = where(as_tensor(np.array(inputs) == 0, device=x.device), as_tensor(sure, device=x.device), losses)
    if zero_infinity:
        losses = where(losses == math.inf, 0.0, losses)
    if reduction == "mean":
        losses = losses / as_tensor(np.maximum(given, 1).astype(x.dtype), device=x.device)
    losses = losses if log_probs.ndim == 3 else losses.squeeze(0)
    return reduced(losses, reduction)


@ctc_loss.samples
def _ctc_samples(make: Any) -> Iterator[tuple]:
    for reduction in ("none", "mean", "sum"):
        yield make(6, 2, 4, low=-3, high=-0.5), make.ints(2, 3, low=1, high=4), (6, 5), (2, 1), {"reduction": reduction}
    yield make(5, 2, 4, low=-3, high=-0.5), make.ints(3, low=0, high=3), (5, 4), (3, 0), {"blank": 3}
    yield make(5, 4, low=-3, high=-0.5), make.ints(2, low=1, high=4), (5,), (2,)


@ctc_loss.errors
def _ctc_errors(make: Any) -> Iterator[tuple]:
    x, y = make(6, 2, 4), make.ints(2, 3, low=1, high=4)
    yield (x, y, (6, 7), (2, 1), {}), RuntimeError, "input_lengths must be 2 whole numbers from 0 to 6"
    yield (x, y, (6,), (2, 1), {}), RuntimeError, "input_lengths"
    yield (x, y, (6, 6), (4, 1), {}), RuntimeError, "target_lengths"
    yield (x, y, (6, 6), (2, 1), 4, {}), RuntimeError, "blank must be"
    yield (x, make.ints(2, 3, low=4, high=5), (6, 6), (2, 1), {}), IndexError, "out of range"
    yield (make(6), y, (6, 6), (2, 1), {}), RuntimeError, r"\(T, N, C\)"


@ctc_loss.reference
def _ctc_oracle(x: Any, targets: Any, inputs: Sequence[int], lengths: Sequence[int], blank: int = 0,
                reduction: str = "mean") -> Any:
    """Sums over all paths."""
    from itertools import product
    single, total = x.ndim == 2, []
    x = x[:, None] if single else x
    rows = targets if targets.ndim == 2 else np.split(targets, np.cumsum(lengths)[:-1])
    for n, (row, t, s) in enumerate(zip(rows, inputs, lengths, strict=True)):
        chance = 0.0
        for path in product(range(x.shape[2]), repeat=t):
            merged = [c for i, c in enumerate(path) if (i == 0 or c != path[i - 1]) and c != blank]
            if merged == list(row[:s]):
                chance += np.exp(sum(x[i, n, c] for i, c in enumerate(path)))
        total.append(-np.log(chance))
    losses = np.array(total)
    if reduction == "mean":
        return (losses / np.maximum(lengths, 1)).mean()
    losses = losses[0] if single else losses
    return losses if reduction == "none" else losses.sum()


class CTCLoss(Loss):
    """-log P(target | log_probs) over all ways to stretch the target over the steps (Graves et al. 2006); see
    `ctc_loss`."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any) -> Tensor:
        """(T, N, C), (N, S), N lengths, N lengths -> scalar, or (N) unreduced"""
        return ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction,
                        self.zero_infinity)
