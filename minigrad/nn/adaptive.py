"""Adaptive softmax: class probabilities for large vocabularies."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.join import cat
from ..ops.softmax import log_softmax
from .container import ModuleList, Sequential
from .linear import Linear
from .module import Module


class ASMoutput(NamedTuple):
    """What `AdaptiveLogSoftmaxWithLoss` gives: log(p) of each target, and minus their mean."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """log(p) of targets among many classes, ordered from frequent to rare (Grave et al. 2017, "Efficient softmax
    approximation for GPUs"). `cutoffs` cut the classes into a head and clusters: p of a class in cluster i is the
    head's p of that cluster times a softmax within it, of features projected to in_features / div_value^(i + 1). A
    cluster is computed for the rows that need it.

    (N, in_features) and int64 (N), or (in_features) and () -> `output` (N) or (), `loss` (). ValueError unless
    0 < cutoffs[0] < cutoffs[1] < ... < n_classes; RuntimeError for other shapes, or a target outside [0, n_classes).

        >>> nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10]).log_prob(minigrad.zeros(3, 8)).shape
        Size([3, 20])
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
                 head_bias: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        ends = [*cutoffs, n_classes]
        if len(ends) < 2 or any(int(a) != a or not 0 < a < b for a, b in pairwise(ends)):
            raise ValueError("[AdaptiveLogSoftmaxWithLoss] cutoffs should be a sequence of unique, positive integers "
                             f"in increasing order, each between 1 and n_classes-1; got {cutoffs}, {n_classes}")
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, ends
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = ends[0], len(ends) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(ends)):
            size = int(in_features // div_value ** (i + 1))
            self.tail.append(Sequential(Linear(in_features, size, bias=False, device=device, dtype=dtype),
                                        Linear(size, high - low, bias=False, device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for layer in (self.head, *[layer for cluster in self.tail for layer in cluster]):
            layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> ASMoutput:
        """log(p) of the targets, and the loss."""
        if target_.ndim > 1 or input_.shape != (*target_.shape, self.in_features):
            fail("AdaptiveLogSoftmaxWithLoss", "input must be (N, in_features) and target (N), or (in_features) and ()",
                 [input_.layout, target_.layout])
        x, target = input_.reshape(-1, self.in_features), target_.reshape(-1)
        if bool(((target < 0) | (target >= self.n_classes)).any()):
            fail("AdaptiveLogSoftmaxWithLoss", f"Target values should be in [0, {self.n_classes - 1}]", target)
        output, column = x.new_zeros(len(target)), target
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            if rows.numel():
                within = (target[rows] - low).unsqueeze(1)
                found = log_softmax(self.tail[i](x[rows]), 1).gather(1, within).squeeze(1)
                output = output.index_add(0, rows, found.to(output.dtype))
                column = column.index_fill(0, rows, self.shortlist_size + i)
        output = output + log_softmax(self.head(x), 1).gather(1, column.unsqueeze(1)).squeeze(1)
        return ASMoutput(output.reshape(target_.shape), -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """log(p) of all classes: (N, in_features) -> (N, n_classes)"""
        head, cut = log_softmax(self.head(input), 1), self.shortlist_size
        return cat([head[:, :cut], *[head[:, cut + i:cut + i + 1] + log_softmax(cluster(input), 1)
                                     for i, cluster in enumerate(self.tail)]], 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most likely class: (N, in_features) -> int64 (N)"""
        return self.log_prob(input).argmax(1)
