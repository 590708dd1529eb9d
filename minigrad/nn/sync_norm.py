"""SyncBatchNorm: batch norm by the statistics of the batches of all processes."""
from __future__ import annotations

from math import prod
from typing import Any

from ..core.half import narrowed, widened
from ..core.modes import mode, no_grad
from ..core.shape import axis_of, fail
from ..core.tensor import Tensor
from ..distributed import get_world_size, is_initialized
from ..ops.creation import full
from ..ops.join import cat
from ..ops.norm import running_update
from .arguments import DeviceLike, DtypeLike
from .module import Module
from .norm import BatchNorm

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(BatchNorm):
    """Batch norm over the batches of all processes of `minigrad.distributed`: (N, num_features, *) -> same.

    In training, each process tells the others the count, mean and sum of squared differences of its batch, in one
    exchange; they are merged by the formula of Chan, Golub and LeVeque 1979 ("Updating formulae and a pairwise
    algorithm for computing sample variances", equation 2.1), with n of process i and d_i = mean_i - mean:

        mean = sum n_i mean_i / sum n_i        m2 = sum (m2_i + n_i d_i^2)        y = (x - mean) / sqrt(m2 / n + eps)

    Batches of different sizes count by their size. Gradients go through the statistics to all processes, to any order.
    In evaluation, and in one process, it is BatchNorm. NotImplementedError for `mask` and `lengths` in several.

    >>> model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, process_group: None = None, device: DeviceLike = None,
                 dtype: DtypeLike = None, *, bias: bool = True, axis: int = 1) -> None:
        if process_group is not None:
            raise NotImplementedError("[SyncBatchNorm] the group is that of all processes; leave process_group out")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, axis=axis)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    def _check_batch_size(self, input: Tensor) -> None:
        """One value in this process's batch is enough, with those of other processes."""
        if not is_initialized() or get_world_size() == 1:
            super()._check_batch_size(input)

    def _normalized(self, input: Tensor, factor: float | Tensor, mask: Any, lengths: Any) -> Tensor:
        if not self.training or not is_initialized() or get_world_size() == 1:
            return super()._normalized(input, factor, mask, lengths)
        if mask is not None or lengths is not None:
            raise NotImplementedError("[SyncBatchNorm] mask and lengths do not go with several processes; "
                                      "use BatchNorm")
        x, at = widened(input), axis_of(self.axis, input.ndim, "SyncBatchNorm")
        if self.weight is not None and x.shape[at] != self.weight.shape[0]:
            fail("SyncBatchNorm", f"weight must have one value per channel (dimension {at} of x)",
                 (x.array.layout, self.weight.array.layout))
        mean, var, count = _of_all(x, at)
        shape = [-1 if i == at else 1 for i in range(x.ndim)]
        scale = (var + self.eps).rsqrt() if self.weight is None else (var + self.eps).rsqrt() * self.weight
        y = (x - mean.reshape(shape)) * scale.reshape(shape)
        if self.track_running_stats and not mode.recompute:
            with no_grad():
                if self.running_mean is not None:
                    running_update(self.running_mean, mean, factor)
                if self.running_var is not None:
                    running_update(self.running_var, var * (count / (count - 1).clamp(min=1)), factor)
        return narrowed(y if self.bias is None else y + self.bias.reshape(shape), input)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: None = None) -> Module:
        """`module` with a SyncBatchNorm in the place of each batch norm in it; parameters and buffers are the same."""
        return cls._converted(module, process_group, {})

    @classmethod
    def _converted(cls, module: Module, process_group: None, done: dict[Module, Module]) -> Module:
        if module in done:                  # shared modules stay shared
            return done[module]
        made = module
        if isinstance(module, BatchNorm) and not isinstance(module, cls):
            made = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                       process_group, bias=module.bias is not None, axis=module.axis)
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(made, name, getattr(module, name))
            made.train(module.training)
        done[module] = made
        for name, child in list(module._modules.items()):
            if child is not None:
                made.add_module(name, cls._converted(child, process_group, done))
        return made


def _of_all(x: Tensor, at: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C) of dimension `at` over the batches of all processes, and the number of elements."""
    from ..distributed.between import gathered
    channels, dims = x.shape[at], [i for i in range(x.ndim) if i != at]
    n = prod([x.shape[i] for i in dims])
    own = cat([x.mean(dims), x.var(dims, correction=0) * n] if n else [x.sum(dims)] * 2)    # none: zeros, in the graph
    parts = gathered(cat([own, full((1,), n, dtype=x.dtype, device=x.device)]))
    means, m2s, counts = parts[:, :channels], parts[:, channels:-1], parts[:, -1:].detach()
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    m2 = (m2s + counts * (means - mean).square()).sum(0)
    return mean, m2 / count, count
