"""Normalization layers. The ops are pure (``minigrad.ops.norm``); BatchNorm and InstanceNorm own their running statistics.

    y = (x - mean) / sqrt(var + eps) * weight + bias

with mean and var (biased) over: the last dimensions of each sample (LayerNorm, Ba et al. 2016; RMSNorm, Zhang and Sennrich 2019,
without the mean), batch and space of each channel (BatchNorm, Ioffe and Szegedy 2015), space of each sample and channel
(InstanceNorm, Ulyanov et al. 2016), space and a group of channels of each sample (GroupNorm, Wu and He 2018).

Every layer's call takes ``mask=`` or ``lengths=``, which keep padding out: the statistics are those of the valid positions, as if the
others were not there, and the output is 0 at the others, whatever they hold. ``mask`` is bool, true at what is valid, with a value for
each position: (N, *) for the channel norms (x without its channels), x without the normalized dimensions for LayerNorm and RMSNorm; or
it has all dimensions of x and broadcasts. ``lengths`` (N,) is the same for x with one dimension of positions, (N, C, L) or (N, T, H).
"""
from __future__ import annotations

import warnings
from typing import Any

from minigrad.ops.creation import empty, ones, tensor, zeros

from ..core.tape import mode, no_grad
from ..core.tensor import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter


def _affine(module: Module, shape: Any, weight: bool, bias: bool, device: Any, dtype: Any) -> None:
    module.register_parameter("weight", Parameter(empty(shape, device=device, dtype=dtype)) if weight else None)
    module.register_parameter("bias", Parameter(empty(shape, device=device, dtype=dtype)) if bias else None)


class _Affine(Module):
    weight: Parameter | None
    bias: Parameter | None

    def reset_parameters(self) -> None:
        """weight 1, bias 0"""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class LayerNorm(_Affine):
    """Normalizes each sample over its last ``len(normalized_shape)`` dimensions: (*, *normalized_shape) -> same; with ``axis``, over
    those dimensions, in the order of ``normalized_shape`` (``LayerNorm(C, axis=1)`` over the channels of (N, C, H, W))."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 device: Any = None, dtype: Any = None, *, axis: int | tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = F.as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _affine(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, mask=mask, lengths=lengths, axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}" + ("" if self.axis is None else f", axis={self.axis}"))


class RMSNorm(_Affine):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions; ``eps=None`` is the machine epsilon of the input's type."""

    bias = None

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float | None = None, elementwise_affine: bool = True,
                 device: Any = None, dtype: Any = None, *, axis: int | tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = F.as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps, mask=mask, lengths=lengths, axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
                + ("" if self.axis is None else f", axis={self.axis}"))


class GroupNorm(_Affine):
    """Normalizes ``num_groups`` groups of channels of each sample: (N, num_channels, *) -> same."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        _affine(self, num_channels, affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, mask=mask, lengths=lengths)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class _Tracked(_Affine):
    """What BatchNorm and InstanceNorm share: running_mean, running_var and num_batches_tracked.

    In training, running = (1 - momentum) running + momentum batch, with the unbiased variance; ``momentum=None`` averages over
    all batches. Without ``track_running_stats`` evaluation uses the batch too.
    """

    _version = 2                                # 2: num_batches_tracked is in the state dict
    ndims: tuple[int, ...]

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
                 device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _affine(self, num_features, affine, affine and bias, device, dtype)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """mean 0, variance 1, no batches"""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with no_grad():
                self.running_mean.zero_()
                self.running_var.fill_(1)
                self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.ndims:
            raise ValueError(f"expected {' or '.join(f'{n}D' for n in self.ndims)} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        key = prefix + "num_batches_tracked"
        if local_metadata.get("version", 1) < 2 and self.num_batches_tracked is not None and key not in state_dict:
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class _BatchNorm(_Tracked):
    """Normalizes each channel over the batch and space: (N, num_features, *) -> same; with ``axis``, the channels are in that
    dimension (``axis=-1``: channels last)."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True, axis: int = 1) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)
        self.axis = axis

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.axis == 1 else f", axis={self.axis}")

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        self._check_input_dim(input)
        factor: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            if mask is None and lengths is None:
                F.check_batch_size(input.shape, self.axis)      # before the counter moves
            with no_grad():
                if not mode.recompute:
                    self.num_batches_tracked.add_(1)
                if self.momentum is None:       # stays a tensor, so that a captured step replays it
                    factor = 1.0 / self.num_batches_tracked
        use = not self.training or self.track_running_stats
        batch = self.training or (self.running_mean is None and self.running_var is None)
        return F.batch_norm(input, self.running_mean if use else None, self.running_var if use else None, self.weight, self.bias,
                            batch, factor, self.eps, mask=mask, lengths=lengths, axis=self.axis)


class BatchNorm1d(_BatchNorm):
    """(N, C) or (N, C, L)"""

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """(N, C, H, W)"""

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """(N, C, D, H, W)"""

    ndims = (5,)


class _InstanceNorm(_Tracked):
    """Normalizes each channel of each sample over space: (N, num_features, *) or (num_features, *) -> same."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        self._check_input_dim(input)
        single = input.ndim == self.ndims[0]
        dim = 0 if single else 1
        if input.shape[dim] != self.num_features:
            if self.affine:
                raise ValueError(f"expected input's size at dim={dim} to match num_features ({self.num_features}), "
                                 f"but got: {input.shape[dim]}.")
            warnings.warn(f"input's size at dim={dim} does not match num_features; it is not used because affine=False", stacklevel=3)
        y = F.instance_norm(input.unsqueeze(0) if single else input, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum, self.eps,
                            mask=mask.unsqueeze(0) if single and mask is not None else mask, lengths=lengths)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    """(N, C, L) or (C, L)"""

    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """(N, C, H, W) or (C, H, W)"""

    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """(N, C, D, H, W) or (C, D, H, W)"""

    ndims = (4, 5)
