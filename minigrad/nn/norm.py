"""Normalization layers. The ops are pure (`minigrad.ops.norm`); BatchNorm and InstanceNorm own their running statistics.

    y = (x - mean) / sqrt(var + eps) * weight + bias

with mean and var (biased) over: the last dimensions of each sample (LayerNorm, Ba et al. 2016; RMSNorm, Zhang and Sennrich 2019,
without the mean), batch and space of each channel (BatchNorm, Ioffe and Szegedy 2015), space of each sample and channel
(InstanceNorm, Ulyanov et al. 2016), space and a group of channels of each sample (GroupNorm, Wu and He 2018).

Every layer's call takes `mask=` or `lengths=`, which keep padding out: the statistics are those of the valid positions, as if the
others were not there, and the output is 0 at the others, whatever they hold. `mask` is bool, true at what is valid, with a value for
each position: (N, *) for the channel norms (x without its channels), x without the normalized dimensions for LayerNorm and RMSNorm; or
it has all dimensions of x and broadcasts. `lengths` (N,) is the same for x with one dimension of positions, (N, C, L) or (N, T, H).
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine import mode, no_grad
from ..ops.creation import as_tensor, clone, empty, ones, tensor, zeros
from ..ops.elementwise import lt, where
from ..ops.norm import batch_norm as batch_norm_op
from ..ops.norm import batch_norm_eval, masked_norm
from ..ops.norm import group_norm as group_norm_op
from ..ops.norm import instance_norm as instance_norm_op
from ..ops.norm import layer_norm as layer_norm_op
from ..ops.norm import rms_norm as rms_norm_op
from ..ops.shape_ops import movedim, reshape
from ..shape import BOOL, axes_of, axis_of, fail
from ..tensor import Tensor, bump
from . import init
from .arguments import as_shape, check_batch_size
from .module import Module, Parameter


def valid_mask(name: str, x: Tensor, mask: Tensor | None, lengths: Any, axes: tuple[int, ...]) -> Tensor:
    """A norm's `mask=` or `lengths=` as a bool tensor with x's number of dimensions, broadcasting to x.

    `axes` are those the norm has parameters for (channels, or normalized_shape). A mask comes without them, one value for each
    position, or with as many dimensions as x. lengths (N,) are for an x with one dimension of positions besides the batch.
    """
    layout, shape = x.array.layout, x.array.layout.shape
    if mask is not None:
        if lengths is not None:
            raise ValueError(f"[{name}] takes mask= or lengths=; got both")
        if not isinstance(mask, Tensor) or mask.array.layout.dtype != BOOL:
            fail(name, "mask must be a bool tensor, true at what is valid", mask.array.layout if isinstance(mask, Tensor) else
                 type(mask).__name__, "compare, e.g. mask = tokens != 0", TypeError)
        have = mask.array.layout.shape
        without = tuple([n for i, n in enumerate(shape) if i not in axes])
        full = tuple([1 if i in axes else next(sizes) for sizes in [iter(have)] for i in range(len(shape))]) \
            if len(have) == len(without) else have
        if len(full) != len(shape) or any(m not in (1, n) for m, n in zip(full, shape, strict=True)):
            fail(name, "mask must have a value for each position (x without its channels or normalized dimensions), or broadcast to x "
                 "with all its dimensions", [f"x {layout}", f"mask {list(have)}", f"expected {list(without)}"])
        return reshape(mask, full)
    positions = [i for i in range(1, len(shape)) if i not in axes]
    if len(positions) != 1 or 0 in axes:
        fail(name, "lengths are for an x with a batch and one dimension of positions, besides its channels or normalized dimensions",
             layout, "pass mask= instead", ValueError)
    if not isinstance(lengths, Tensor):
        lengths = as_tensor(lengths)
    have = lengths.array.layout
    if have.dtype.kind not in "iu" or have.shape != shape[:1]:
        fail(name, f"lengths must be whole numbers, one for each of the {shape[0]} samples", have)
    size = shape[positions[0]]
    if have.device.type == "cpu" and have.size:
        def check() -> None:
            if not 0 <= lengths.array.np.min() <= lengths.array.np.max() <= size:
                fail(name, f"lengths must be from 0 to {size}, the size of dimension {positions[0]}", lengths.array.np.tolist(),
                     kind=ValueError)
        check()
        if mode.recorder is not None:
            mode.recorder.python(check)
    steps = reshape(as_tensor(np.arange(size)).to(layout.device), [size if i == positions[0] else 1 for i in range(len(shape))])
    return lt(steps, reshape(lengths.to(layout.device), [shape[0], *[1] * (len(shape) - 1)]))


def to_end(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """With `axes` moved behind the other dimensions."""
    return movedim(x, axes, tuple(range(-len(axes), 0)))


def from_end(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undoes `to_end`."""
    return movedim(x, tuple(range(-len(axes), 0)), axes)


def axes_in_order(name: str, axis: Any, ndim: int, count: int) -> tuple[int, ...]:
    """`axis=` of a norm over `count` dimensions as non-negative axes, in the order given."""
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if len(given) != count or len(axes_of(given, ndim, name)) != count:
        fail(name, "axis must name one dimension for each size of normalized_shape", f"axis {axis}, {count} sizes", kind=ValueError)
    return tuple([a % ndim for a in given])


def layer_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *, mask: Tensor | None = None, lengths: Any = None, axis: Any = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `len(normalized_shape)` dimensions, or over those of `axis`."""
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return layer_norm_op(input, weight, bias, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return layer_norm_op(x, weight, bias, normalized_shape=shape, eps=eps)
    return _over_features("layer_norm", input, shape, weight, bias, eps, mask, lengths, axis, plain)


def rms_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None, *,
             mask: Tensor | None = None, lengths: Any = None, axis: Any = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, or over those of `axis`; `eps=None` is the machine epsilon of
    x's type."""
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return rms_norm_op(input, weight, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return rms_norm_op(x, weight, normalized_shape=shape, eps=eps)
    epsilon = float(np.finfo(input.dtype).eps) if eps is None else eps
    return _over_features("rms_norm", input, shape, weight, None, epsilon, mask, lengths, axis, plain)


def _over_features(name: str, input: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float,
                   mask: Tensor | None, lengths: Any, axis: Any, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """A norm over some dimensions of each sample, with their axes or a mask."""
    axes = axes_in_order(name, tuple(range(-len(shape), 0)) if axis is None else axis, input.ndim, len(shape))
    x = to_end(input, axes)
    if mask is None and lengths is None:
        return from_end(plain(x), axes)
    valid = to_end(valid_mask(name, input, mask, lengths, axes), axes)
    if all(n == 1 for n in valid.shape[valid.ndim - len(shape):]):       # whole samples: the valid ones are normalized as always
        y = plain(where(valid, x, 0.0))
    else:
        y = masked_norm(x, valid, axes=tuple(range(x.ndim - len(shape), x.ndim)), eps=eps, centered=name == "layer_norm")[0]
        y = _scaled(y, weight, bias, shape)
    return from_end(where(valid, y, 0.0), axes)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _channel_shape(x: Tensor) -> tuple[int, ...]:
    return (x.shape[1], *(1,) * (x.ndim - 2))


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
               mask: Tensor | None = None, lengths: Any = None) -> Tensor:
    """(N, C, *): statistics over space and each of `num_groups` groups of channels of a sample; weight and bias (C)."""
    if input.ndim < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    check_batch_size([input.shape[0] * input.shape[1] // num_groups, num_groups, *input.shape[2:]])
    if mask is None and lengths is None:
        return group_norm_op(input, weight, bias, num_groups=num_groups, eps=eps)
    n, c, *space = input.shape
    if num_groups < 1 or c % num_groups:
        group_norm_op(input, weight, bias, num_groups=num_groups, eps=eps)     # refuses
    valid = valid_mask("group_norm", input, mask, lengths, (1,))
    per_channel = valid.shape[1] == c and c > 1
    grouped = valid.reshape(valid.shape[0], num_groups if per_channel else 1, c // num_groups if per_channel else 1, *valid.shape[2:])
    y = masked_norm(input.reshape(n, num_groups, c // num_groups, *space), grouped, axes=tuple(range(2, input.ndim + 1)), eps=eps)[0]
    return where(valid, _scaled(y.reshape(input.shape), weight, bias, _channel_shape(input)), 0.0)


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1, eps: float = 1e-5, *,
               mask: Tensor | None = None, lengths: Any = None, axis: int = 1) -> Tensor:
    """(N, C, *): statistics over N and space, in training those of the batch, which also move the running ones
    (running = (1 - momentum) running + momentum batch, the variance unbiased); else the running ones. `axis` is the channels'.
    With a mask, a channel with fewer than two valid values leaves its running ones as they are."""
    if training:
        if mask is None and lengths is None:
            check_batch_size(input.shape, axis)
        if eps <= 0.0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    elif eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    elif running_mean is None or running_var is None:
        raise RuntimeError("[batch_norm] running_mean and running_var must be given in evaluation mode; got None; "
                           "pass them, or training=True")
    if input.ndim == 1 and not input.numel():   # nothing to normalize: no channels either
        return clone(input)
    if mask is not None or lengths is not None or axis != 1:
        return _batch_norm_of(input, running_mean, running_var, weight, bias, training, momentum, eps, mask, lengths, axis)
    if not training:
        return batch_norm_eval(input, running_mean, running_var, weight, bias, eps=eps)     # type: ignore[arg-type]
    y, mean, var = batch_norm_op(input, weight, bias, eps=eps)
    if input.numel():                           # an empty batch moves nothing
        count = input.numel() // input.shape[1]
        _move(running_mean, mean, momentum, 1.0)
        _move(running_var, var, momentum, count / (count - 1))
    return y


def _batch_norm_of(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
                   training: bool, momentum: float | Tensor, eps: float, mask: Tensor | None, lengths: Any, axis: int) -> Tensor:
    """`batch_norm` with a mask or another axis of channels."""
    at = axis_of(axis, input.ndim, "batch_norm")
    valid = None if mask is None and lengths is None else valid_mask("batch_norm", input, mask, lengths, (at,))
    if at != 1:
        if at == input.ndim - 1:                # channels last: all else is the batch, and nothing moves
            channels = input.shape[at]

            def there(t: Tensor) -> Tensor:
                return t.expand(*input.shape[:at], t.shape[at]).reshape(-1, t.shape[at]) if input.numel() else t.reshape(0, channels)

            def back(y: Tensor) -> Tensor:
                return y.reshape(input.shape)
        else:
            def there(t: Tensor) -> Tensor:
                return t.movedim(at, 1)

            def back(y: Tensor) -> Tensor:
                return y.movedim(1, at)
        return back(batch_norm(there(input), running_mean, running_var, weight, bias, training, momentum, eps,
                               mask=None if valid is None else there(valid)))
    if valid is None:
        return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        y = batch_norm_eval(where(valid, input, 0.0), running_mean, running_var, weight, bias, eps=eps)
        return where(valid, y, 0.0)
    y, mean, var, count = masked_norm(input, valid, axes=(0, *range(2, input.ndim)), eps=eps)
    _move_counted(running_mean, running_var, mean.reshape(-1), var.reshape(-1), count.reshape(-1), momentum)
    return where(valid, _scaled(y, weight, bias, _channel_shape(input)), 0.0)


def _move_counted(running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, var: Tensor, count: Tensor,
                  momentum: float | Tensor) -> None:
    """Moves the running statistics where there are two values at least (C,)."""
    with no_grad():
        factor = (count > 1).to(mean.dtype) * momentum
        _move(running_mean, mean, factor, 1.0)
        _move(running_var, var * (count / (count - 1).clamp(min=1)), factor, 1.0)


def _move(running: Tensor | None, batch: Tensor, momentum: float | Tensor, scale: float) -> None:
    """running = (1 - momentum) running + momentum scale batch, in place; a momentum that is a tensor is read by the launch."""
    if running is None or mode.recompute:
        return
    x = running.layout
    if x.contiguous and batch.layout is x and not isinstance(momentum, Tensor):
        kernel = x.device.kernels.running_update.get(x.dtype)
        if kernel is not None:
            kernel.call(running.array.ptr, batch.array.ptr, x.size, float(momentum), scale)
            bump(running)
            return
    with no_grad():
        running.add_((batch * scale - running) * momentum)


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float | Tensor = 0.1, eps: float = 1e-5, *,
                  mask: Tensor | None = None, lengths: Any = None) -> Tensor:
    """(N, C, *): statistics over the space of each sample and channel; they move the running ones, averaged over the batch.
    With `use_input_stats=False` the running ones are used."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, mask=mask, lengths=lengths)
    if mask is not None or lengths is not None:
        valid = valid_mask("instance_norm", input, mask, lengths, (1,))
        y, mean, var, count = masked_norm(input, valid, axes=tuple(range(2, input.ndim)), eps=eps)
        if running_mean is not None or running_var is not None:
            with no_grad():                     # averaged over the samples that have a variance
                there = (count > 1).to(mean.dtype)
                share = there / there.sum(0, keepdim=True).clamp(min=1)
                unbiased = var * (count / (count - 1).clamp(min=1))
                factor = (there.sum(0) > 0).to(mean.dtype).reshape(-1) * momentum
                _move(running_mean, (mean * share).sum(0).reshape(-1), factor, 1.0)
                _move(running_var, (unbiased * share).sum(0).reshape(-1), factor, 1.0)
        return where(valid, _scaled(y, weight, bias, _channel_shape(input)), 0.0)
    count = input.numel() // (input.shape[0] * input.shape[1]) if input.numel() else 0
    if count == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {tuple(input.shape)}")
    if running_mean is not None or running_var is not None:
        with no_grad():
            flat = input.detach().reshape(input.shape[0], input.shape[1], -1)
            _move(running_mean, flat.mean(2).mean(0), momentum, 1.0)
            _move(running_var, flat.var(2).mean(0), momentum, 1.0)
    return instance_norm_op(input, weight, bias, eps=eps)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps) along `dim`"""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)



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
    """Normalizes each sample over its last `len(normalized_shape)` dimensions: (*, *normalized_shape) -> same; with `axis`, over
    those dimensions, in the order of `normalized_shape` (`LayerNorm(C, axis=1)` over the channels of (N, C, H, W))."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 device: Any = None, dtype: Any = None, *, axis: int | tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _affine(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, mask=mask, lengths=lengths, axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}" + ("" if self.axis is None else f", axis={self.axis}"))


class RMSNorm(_Affine):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions; `eps=None` is the machine epsilon of the input's type."""

    bias = None

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float | None = None, elementwise_affine: bool = True,
                 device: Any = None, dtype: Any = None, *, axis: int | tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps, mask=mask, lengths=lengths, axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
                + ("" if self.axis is None else f", axis={self.axis}"))


class GroupNorm(_Affine):
    """Normalizes `num_groups` groups of channels of each sample: (N, num_channels, *) -> same."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        _affine(self, num_channels, affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Any = None) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps, mask=mask, lengths=lengths)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class _Tracked(_Affine):
    """What BatchNorm and InstanceNorm share: running_mean, running_var and num_batches_tracked.

    In training, running = (1 - momentum) running + momentum batch, with the unbiased variance; `momentum=None` averages over
    all batches. Without `track_running_stats` evaluation uses the batch too.
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
    """Normalizes each channel over the batch and space: (N, num_features, *) -> same; with `axis`, the channels are in that
    dimension (`axis=-1`: channels last)."""

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
                check_batch_size(input.shape, self.axis)      # before the counter moves
            with no_grad():
                if not mode.recompute:
                    self.num_batches_tracked.add_(1)
                if self.momentum is None:       # stays a tensor, so that a captured step replays it
                    factor = 1.0 / self.num_batches_tracked
        use = not self.training or self.track_running_stats
        batch = self.training or (self.running_mean is None and self.running_var is None)
        return batch_norm(input, self.running_mean if use else None, self.running_var if use else None, self.weight, self.bias,
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
        y = instance_norm(input.unsqueeze(0) if single else input, self.running_mean, self.running_var, self.weight, self.bias,
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
