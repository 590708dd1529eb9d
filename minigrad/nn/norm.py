"""Normalization: each function with its layers. Kernels are in `ops/norm.py`; running statistics belong to the layers.

    y = (x - mean) / sqrt(var + eps) * weight + bias

with mean and (biased) variance over

    LayerNorm       the last dimensions of each sample              Ba, Kiros and Hinton 2016
    RMSNorm         the same, without the mean                      Zhang and Sennrich 2019
    GroupNorm       a group of channels of each sample, and space   Wu and He 2018
    BatchNorm       batch and space of each channel                 Ioffe and Szegedy 2015
    InstanceNorm    space of each sample and channel                Ulyanov, Vedaldi and Lempitsky 2016

Beyond PyTorch, functions and layers take `mask=` or `lengths=`, which keep padding out: the statistics are those of the
valid positions, as if the others were not there; the output is 0 at the others, whatever they hold (nan too), and no
gradient comes from them or goes to them. `mask` is bool, true at what is valid. It has a value for each position:
(N, *), x without its channels, for the channel norms; x without the normalized dimensions for LayerNorm and RMSNorm. Or
it has all dimensions of x and broadcasts. `lengths` (N,) says the same of an x with one dimension of positions:
(N, C, L) or (N, T, H).
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import numpy as np

from ..core.half import rounds_once, widened
from ..core.modes import mode, no_grad
from ..core.out import writes
from ..core.shape import BOOL, FLOAT32, INT64, axes_of, axis_of, fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices.plan import is_half
from ..ops.convert import on_device
from ..ops.creation import as_tensor, clone, empty, ones, tensor, zeros
from ..ops.math import lt, where
from ..ops.norm import batch_norm as batch_norm_op
from ..ops.norm import batch_norm_eval, running_update, valid_norm
from ..ops.norm import group_norm as group_norm_op
from ..ops.norm import instance_norm as instance_norm_op
from ..ops.norm import layer_norm as layer_norm_op
from ..ops.norm import rms_norm as rms_norm_op
from ..ops.take import in_range
from ..ops.view import expand, movedim, reshape
from . import init
from .arguments import DeviceLike, DtypeLike, Size, as_shape, check_batch_size
from .module import Module, Parameter

Lengths = Tensor | Sequence[int] | np.ndarray | None
Axis = int | Sequence[int] | None

# ---- what is valid ----


def valid_mask(name: str, x: Tensor, mask: Tensor | None, lengths: Lengths, axes: tuple[int, ...]) -> Tensor:
    """`mask=` or `lengths=` as a bool tensor that has as many dimensions as x and broadcasts to it.

    `axes` are those the norm has parameters for: the channels, or `normalized_shape`.
    """
    if mask is None:
        return _mask_of_lengths(name, x, lengths, axes)
    if lengths is not None:
        raise ValueError(f"[{name}] takes mask= or lengths=; got both")
    layout, shape = x.array.layout, x.array.layout.shape
    if not isinstance(mask, Tensor) or mask.array.layout.dtype != BOOL:
        fail(name, "mask must be a bool tensor, true at what is valid",
             mask.array.layout if isinstance(mask, Tensor) else type(mask).__name__,
             "compare, e.g. mask = tokens != 0", TypeError)
    have = mask.array.layout.shape
    without = tuple([n for i, n in enumerate(shape) if i not in axes])
    full = have
    if len(have) == len(without):               # one value for each position: size 1 along `axes`
        sizes = iter(have)
        full = tuple([1 if i in axes else next(sizes) for i in range(len(shape))])
    if len(full) != len(shape) or any(m not in (1, n) for m, n in zip(full, shape, strict=True)):
        fail(name, "mask must have a value for each position (x without its channels or normalized dimensions), or "
             "broadcast to x with all its dimensions",
             [f"x {layout}", f"mask {list(have)}", f"expected {list(without)}"])
    return reshape(mask, full)


def _mask_of_lengths(name: str, x: Tensor, lengths: Any, axes: tuple[int, ...]) -> Tensor:
    """True at the first lengths[n] positions of sample n; x has one dimension of positions besides batch and `axes`."""
    layout, shape = x.array.layout, x.array.layout.shape
    positions = [i for i in range(1, len(shape)) if i not in axes]
    if len(positions) != 1 or 0 in axes:
        fail(name, "lengths are for an x with a batch and one dimension of positions, besides its channels or "
             "normalized dimensions", layout, "pass mask= instead", ValueError)
    given = lengths
    if not isinstance(lengths, Tensor):
        lengths = as_tensor(lengths)
    have, size = lengths.array.layout, shape[positions[0]]
    if have.dtype.kind not in "iu" or have.shape != shape[:1]:
        fail(name, f"lengths must be whole numbers, one for each of the {shape[0]} samples", have)
    if have.device.type == "cpu" and have.size:
        def check() -> None:
            if not 0 <= lengths.array.np.min() <= lengths.array.np.max() <= size:
                fail(name, f"lengths must be from 0 to {size}, the size of dimension {positions[0]}",
                     lengths.array.np.tolist(), kind=ValueError)
        check()
        if mode.recorder is not None and lengths is given:      # a captured step checks its lengths at each replay
            mode.recorder.python(check)
    else:
        in_range(lengths.to(INT64), 0, size + 1, ValueError, "[{1}] lengths must be from 0 to {2}, the size of "
                 "dimension {3}; got {0}", name, size, positions[0])
    along = [size if i == positions[0] else 1 for i in range(len(shape))]
    steps = reshape(on_device(np.arange(size), layout.device), along)
    ends = lengths.to(layout.device) if lengths is given else on_device(lengths.array.np, layout.device)
    return lt(steps, reshape(ends, [shape[0], *[1] * (len(shape) - 1)]))


# ---- parameters ----


def _masked(x: Tensor, valid: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int],
            axes: tuple[int, ...], eps: float, centered: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`valid_norm` with a mask that broadcasts to x; so do weight and bias once they have `shape`."""
    return valid_norm(x, expand(valid, x.shape), weight, bias, axes=axes,      # type: ignore[no-any-return]
                      shape=tuple(shape), eps=eps, centered=centered)


def _channel_shape(x: Tensor) -> tuple[int, ...]:
    """The shape by which one value per channel broadcasts to x (N, C, *)."""
    return (1, x.shape[1], *(1,) * (x.ndim - 2))


class _Affine(Module):
    """A layer with weight and bias, each a parameter or None."""

    weight: Parameter | None
    bias: Parameter | None

    def _add_parameters(self, shape: int | tuple[int, ...], weight: bool, bias: bool, device: DeviceLike,
                        dtype: DtypeLike) -> None:
        self.register_parameter("weight", Parameter(empty(shape, device=device, dtype=dtype)) if weight else None)
        self.register_parameter("bias", Parameter(empty(shape, device=device, dtype=dtype)) if bias else None)

    def reset_parameters(self) -> None:
        """Sets weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


# ---- over features: layer norm and RMS norm ----


def to_end(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x with `axes` moved after the other dimensions."""
    return movedim(x, axes, tuple(range(-len(axes), 0))) if _moves(x, axes) else x


def _moves(x: Tensor, axes: tuple[int, ...]) -> bool:
    return axes != tuple(range(x.ndim - len(axes), x.ndim))


def from_end(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undoes `to_end`."""
    return movedim(x, tuple(range(-len(axes), 0)), axes) if _moves(x, axes) else x


def axes_in_order(name: str, axis: Any, ndim: int, count: int) -> tuple[int, ...]:
    """`axis=` of a norm over `count` dimensions as non-negative axes, in the order given."""
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if len(given) != count or len(axes_of(given, ndim, name)) != count:
        fail(name, "axis must name one dimension for each size of normalized_shape", f"axis {axis}, {count} sizes",
             kind=ValueError)
    return tuple([a % ndim for a in given])


def _over_features(name: str, input: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None,
                   eps: float | None, mask: Tensor | None, lengths: Lengths, axis: Axis,
                   plain: Callable[[Tensor], Tensor]) -> Tensor:
    """A norm over some dimensions of each sample, with `axis=`, `mask=` or `lengths=`; `plain` is it without them."""
    axes = axes_in_order(name, tuple(range(-len(shape), 0)) if axis is None else axis, input.ndim, len(shape))
    x = to_end(input, axes)
    if mask is None and lengths is None:
        return from_end(plain(x), axes)
    valid = to_end(valid_mask(name, input, mask, lengths, axes), axes)
    if math.prod(valid.shape[valid.ndim - len(shape):]) == 1:           # whole samples are valid or not
        return from_end(where(valid, plain(where(valid, x, 0.0)), 0.0), axes)
    last = tuple(range(x.ndim - len(shape), x.ndim))
    if eps is None:
        eps = float(np.finfo(FLOAT32 if is_half(x.dtype) else x.dtype).eps)
    y = _masked(x, valid, weight, bias, (1,) * (x.ndim - len(shape)) + shape, last, eps, name == "layer_norm")[0]
    return from_end(y, axes)


def layer_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *, mask: Tensor | None = None, lengths: Lengths = None, axis: Axis = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions, or those of `axis`.

    Ba, Kiros and Hinton 2016, eq. 4. Shapes: input (*, *normalized_shape), weight and bias normalized_shape -> same.
    `axis` names the dimensions instead, in the order of `normalized_shape`. Raises RuntimeError if
    their sizes are not `normalized_shape`.
    """
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return layer_norm_op(input, weight, bias, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return layer_norm_op(x, weight, bias, normalized_shape=shape, eps=eps)
    return _over_features("layer_norm", input, shape, weight, bias, eps, mask, lengths, axis, plain)


class LayerNorm(_Affine):
    """Normalizes each sample over its last `len(normalized_shape)` dimensions: (*, *normalized_shape) -> same.

    With `axis`, over those dimensions, in the order of `normalized_shape`: `LayerNorm(C, axis=1)` normalizes over the
    channels of (N, C, H, W).

        >>> nn.LayerNorm(2)(minigrad.tensor([[1.0, 3.0]]))
        tensor([[-1.0000,  1.0000]], grad_fn=<LayerNormBackward0>)
    """

    def __init__(self, normalized_shape: Size, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, axis: Axis = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._add_parameters(self.normalized_shape, elementwise_affine, elementwise_affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
        """(*, *normalized_shape) -> same; `mask` and `lengths`: see the head of this file."""
        if mask is None and lengths is None and self.axis is None:          # as layer_norm does, one call less
            return layer_norm_op(input, self.weight, self.bias, normalized_shape=self.normalized_shape, eps=self.eps)
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, mask=mask, lengths=lengths,
                          axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}" + ("" if self.axis is None else f", axis={self.axis}"))


def rms_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, eps: float | None = None, *,
             mask: Tensor | None = None, lengths: Lengths = None, axis: Axis = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, or those of `axis` (Zhang and Sennrich 2019, eq. 4).

    Shapes: input (*, *normalized_shape), weight normalized_shape -> same. `eps=None` is the machine epsilon of the
    input's dtype, of float32 for half precision.
    """
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return rms_norm_op(input, weight, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return rms_norm_op(x, weight, normalized_shape=shape, eps=eps)
    return _over_features("rms_norm", input, shape, weight, None, eps, mask, lengths, axis, plain)


class RMSNorm(_Affine):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions: (*, *normalized_shape) -> same.

    `eps=None` is the machine epsilon of the input's dtype; `axis` as for `LayerNorm`.
    """

    bias = None

    def __init__(self, normalized_shape: Size, eps: float | None = None, elementwise_affine: bool = True,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, axis: Axis = None) -> None:
        super().__init__()
        self.normalized_shape, self.axis = as_shape(normalized_shape), axis
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
        """(*, *normalized_shape) -> same; `mask` and `lengths`: see the head of this file."""
        if mask is None and lengths is None and self.axis is None:          # as rms_norm does, one call less
            return rms_norm_op(x, self.weight, normalized_shape=self.normalized_shape, eps=self.eps)
        return rms_norm(x, self.normalized_shape, self.weight, self.eps, mask=mask, lengths=lengths, axis=self.axis)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
                + ("" if self.axis is None else f", axis={self.axis}"))


# ---- over groups of channels ----


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over each of `num_groups` groups of channels of a sample, and space.

    Wu and He 2018, eq. 7. Shapes: input (N, C, *), weight and bias (C) -> same. Raises RuntimeError unless `num_groups`
    divides C, ValueError if a group has one value only.
    """
    if input.ndim < 2:
        raise RuntimeError(f"[group_norm] input must have at least the dimensions (N, C); got {input.layout}")
    num_groups = index(num_groups)              # 2.0 == 2 would find the plan of 2
    n, c, *space = input.shape
    check_batch_size([n * c // num_groups, num_groups, *space])
    plain = mask is None and lengths is None
    if plain or num_groups < 1 or c % num_groups:           # the op refuses a wrong number of groups
        return group_norm_op(input, weight, bias, num_groups=num_groups, eps=eps)
    valid = valid_mask("group_norm", input, mask, lengths, (1,))
    groups, each = (num_groups, c // num_groups) if valid.shape[1] == c and c > 1 else (1, 1)
    grouped = valid.reshape(valid.shape[0], groups, each, *valid.shape[2:])
    x = input.reshape(n, num_groups, c // num_groups, *space)
    shape = (1, num_groups, c // num_groups, *(1,) * len(space))
    return _masked(x, grouped, weight, bias, shape, tuple(range(2, x.ndim)), eps)[0].reshape(input.shape)


class GroupNorm(_Affine):
    """Normalizes `num_groups` groups of channels of each sample: (N, num_channels, *) -> same (Wu and He 2018)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 device: DeviceLike = None, dtype: DtypeLike = None, *, bias: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError("[nn.GroupNorm] num_channels must be divisible by num_groups; "
                             f"got num_channels {num_channels}, num_groups {num_groups}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._add_parameters(num_channels, affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
        """(N, num_channels, *) -> same; `mask` and `lengths`: see the head of this file."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps, mask=mask, lengths=lengths)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


# ---- over the batch ----


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1, eps: float = 1e-5, *,
               mask: Tensor | None = None, lengths: Lengths = None, axis: int = 1) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, per channel over batch and space (Ioffe and Szegedy 2015).

    Shapes: input (N, C, *), the others (C) -> like input; `axis` is the dimension of the channels. In training the
    statistics are those of the batch, which also move the running ones: running = (1 - momentum) running + momentum
    batch, the variance unbiased. Else they are the running ones. With a mask, a channel with fewer than two valid
    values leaves its running statistics as they are. Raises ValueError in training if a channel has one value only.
    """
    if training:
        if mask is None and lengths is None:
            check_batch_size(input.shape, axis)
        if eps <= 0.0:
            raise ValueError(f"[batch_norm] eps must be positive in training; got {eps}")
    elif eps < 0.0:
        raise ValueError(f"[batch_norm] eps must not be negative; got {eps}")
    elif running_mean is None or running_var is None:
        raise RuntimeError("[batch_norm] running_mean and running_var must be given in evaluation mode; got None; "
                           "pass them, or training=True")
    if input.ndim == 1 and not input.numel():   # nothing to normalize: no channels either
        return clone(input)
    if mask is not None or lengths is not None or axis != 1:
        at = axis_of(axis, input.ndim, "batch_norm")
        valid = None if mask is None and lengths is None else valid_mask("batch_norm", input, mask, lengths, (at,))
        if at != 1:
            return _batch_norm_along(at, input, valid, running_mean, running_var, weight, bias, training, momentum, eps)
        if valid is not None:
            return _masked_batch_norm(input, valid, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return batch_norm_eval(input, running_mean, running_var, weight, bias, eps=eps)     # type: ignore[arg-type]
    y, mean, var = batch_norm_op(input, weight, bias, eps=eps)
    if input.numel() and not mode.recompute:    # nothing moves for an empty batch, or where a checkpoint runs again
        count = input.numel() // input.shape[1]
        if running_mean is not None:
            running_update(running_mean, mean, momentum)
        if running_var is not None:
            running_update(running_var, var, momentum, count / (count - 1))
    return y


def _batch_norm_along(at: int, input: Tensor, valid: Tensor | None, running_mean: Tensor | None,
                      running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None, training: bool,
                      momentum: float | Tensor, eps: float) -> Tensor:
    """`batch_norm` of an input whose channels are in dimension `at`, not 1: they are brought there and back."""
    if at == input.ndim - 1:                    # channels last: all else is the batch, and nothing is copied
        channels = input.shape[at]

        def there(t: Tensor) -> Tensor:
            if not input.numel():
                return t.reshape(0, channels)
            return t.expand(*input.shape[:at], t.shape[at]).reshape(-1, t.shape[at])

        def back(y: Tensor) -> Tensor:
            return y.reshape(input.shape)
    else:
        def there(t: Tensor) -> Tensor:
            return t.movedim(at, 1)

        def back(y: Tensor) -> Tensor:
            return y.movedim(1, at)
    return back(batch_norm(there(input), running_mean, running_var, weight, bias, training, momentum, eps,
                           mask=None if valid is None else there(valid)))


def _masked_batch_norm(input: Tensor, valid: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
                       weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float | Tensor,
                       eps: float) -> Tensor:
    """`batch_norm` of (N, C, *) by the elements where `valid` is true."""
    if not training:
        y = batch_norm_eval(where(valid, input, 0.0), running_mean, running_var, weight, bias,  # type: ignore[arg-type]
                            eps=eps)
        return where(valid, y, 0.0)
    y, mean, var, count = _masked(input, valid, weight, bias, _channel_shape(input), (0, *range(2, input.ndim)), eps)
    if not mode.recompute:
        for running, statistic in ((running_mean, mean), (running_var, var)):
            if running is not None:
                running_update(running, statistic.reshape(-1), momentum, count=count.reshape(-1),
                               unbiased=statistic is var)
    return y


class _Tracked(_Affine):
    """What BatchNorm and InstanceNorm share: running_mean, running_var and num_batches_tracked.

    In training, running = (1 - momentum) running + momentum batch, with the unbiased variance; `momentum=None` averages
    over all batches. Without `track_running_stats` evaluation uses the statistics of the batch, too.
    """

    _version = 2                                # 2: num_batches_tracked is in the state dict
    ndims: tuple[int, ...]                      # numbers of dimensions that an input may have

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
                 device: DeviceLike, dtype: DtypeLike, bias: bool) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._add_parameters(num_features, affine, affine and bias, device, dtype)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Sets the running mean to 0, the running variance to 1 and the number of batches to 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with no_grad():
                self.running_mean.zero_()
                self.running_var.fill_(1)
                self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Resets the running statistics, weight to 1 and bias to 0."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.ndims:
            raise ValueError(f"expected {' or '.join(f'{n}D' for n in self.ndims)} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              *rest: Any) -> None:
        key = prefix + "num_batches_tracked"
        if local_metadata.get("version", 1) < 2 and self.num_batches_tracked is not None and key not in state_dict:
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class BatchNorm(_Tracked):
    """Normalizes each channel over the batch and space: (N, num_features, *) -> same.

    With `axis`, the channels are in that dimension (`axis=-1`: channels last).
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: DeviceLike = None, dtype: DtypeLike = None, *,
                 bias: bool = True, axis: int = 1) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)
        self.axis = axis

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.axis == 1 else f", axis={self.axis}")

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
        """(N, num_features, *) -> same; `mask` and `lengths`: see the head of this file."""
        self._check_input_dim(input)
        factor: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            if mask is None and lengths is None:
                self._check_batch_size(input)       # before the counter moves
            with no_grad():
                if not mode.recompute:
                    self.num_batches_tracked.add_(1)
                if self.momentum is None:       # stays a tensor, so that a captured step replays it
                    factor = 1.0 / self.num_batches_tracked
        return self._normalized(input, factor, mask, lengths)

    def _check_batch_size(self, input: Tensor) -> None:
        check_batch_size(input.shape, self.axis)

    def _by_batch(self) -> bool:
        """Are the statistics those of the batch?"""
        return self.training or (self.running_mean is None and self.running_var is None)

    def _normalized(self, input: Tensor, factor: float | Tensor, mask: Tensor | None, lengths: Lengths) -> Tensor:
        use = not self.training or self.track_running_stats
        return batch_norm(input, self.running_mean if use else None, self.running_var if use else None, self.weight,
                          self.bias, self._by_batch(), factor, self.eps, mask=mask, lengths=lengths, axis=self.axis)


class BatchNorm1d(BatchNorm):
    """Normalizes each channel of (N, C) or (N, C, L) over the batch and space (Ioffe and Szegedy 2015)."""

    ndims = (2, 3)


class BatchNorm2d(BatchNorm):
    """Normalizes each channel of (N, C, H, W) over the batch and space (Ioffe and Szegedy 2015)."""

    ndims = (4,)


class BatchNorm3d(BatchNorm):
    """Normalizes each channel of (N, C, D, H, W) over the batch and space (Ioffe and Szegedy 2015)."""

    ndims = (5,)


# ---- over the space of each sample and channel ----


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float | Tensor = 0.1, eps: float = 1e-5, *, mask: Tensor | None = None,
                  lengths: Lengths = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the space of each sample and channel (Ulyanov et al. 2016).

    Shapes: input (N, C, *), the others (C) -> like input. The statistics, averaged over the batch, move the running
    ones; with `use_input_stats=False` the running ones are used. Raises ValueError if a space has one element only.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            fail("instance_norm", "use_input_stats=False needs running_mean and running_var", "", "pass both")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, mask=mask,
                          lengths=lengths)
    update = (running_mean is not None or running_var is not None) and not mode.recompute
    if mask is not None or lengths is not None:
        valid = valid_mask("instance_norm", input, mask, lengths, (1,))
        y, mean, var, count = _masked(input, valid, weight, bias, _channel_shape(input), tuple(range(2, input.ndim)),
                                      eps)
        if update:
            _update_by_valid_samples(running_mean, running_var, mean, var, count, momentum)
        return y
    if input.numel() and input.numel() == input.shape[0] * input.shape[1]:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {tuple(input.shape)}")
    if update and input.numel():                # nothing moves for no elements
        with no_grad():
            flat = widened(input.detach()).reshape(input.shape[0], input.shape[1], -1)
            if running_mean is not None:
                running_update(running_mean, flat.mean(2).mean(0), momentum)
            if running_var is not None:
                running_update(running_var, flat.var(2).mean(0), momentum)
    return instance_norm_op(input, weight, bias, eps=eps)


@no_grad()
def _update_by_valid_samples(running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, var: Tensor,
                             count: Tensor, momentum: float | Tensor) -> None:
    """Moves the running statistics by those of (N, C, 1...), averaged over the samples with at least two values."""
    counted = (count > 1).to(mean.dtype)
    share = counted / counted.sum(0, keepdim=True).clamp(min=1)
    factor = (counted.sum(0) > 0).to(mean.dtype).reshape(-1) * momentum
    if running_mean is not None:
        running_update(running_mean, (mean * share).sum(0).reshape(-1), factor)
    if running_var is not None:
        unbiased = var * (count / (count - 1).clamp(min=1))
        running_update(running_var, (unbiased * share).sum(0).reshape(-1), factor)


class _InstanceNorm(_Tracked):
    """Normalizes each channel of each sample over space: (N, num_features, *) or (num_features, *) -> same."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: DeviceLike = None, dtype: DtypeLike = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor, mask: Tensor | None = None, lengths: Lengths = None) -> Tensor:
        """(N, num_features, *) or (num_features, *) -> same; `mask` and `lengths`: see the head of this file."""
        self._check_input_dim(input)
        single = input.ndim == self.ndims[0]
        dim = 0 if single else 1
        if input.shape[dim] != self.num_features:
            if self.affine or self.running_mean is not None:
                raise ValueError(f"expected input's size at dim={dim} to match num_features ({self.num_features}), "
                                 f"but got: {input.shape[dim]}.")
            warn(f"input's size at dim={dim} does not match num_features; it is not used because affine=False")
        if single:
            input, mask = input.unsqueeze(0), None if mask is None else mask.unsqueeze(0)
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.momentum is None and self.training and self.num_batches_tracked is not None:
            with no_grad():                     # as in a batch norm; with a momentum nothing is counted, as in PyTorch
                if not mode.recompute:
                    self.num_batches_tracked.add_(1)
                momentum = 1.0 / self.num_batches_tracked
        y = instance_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                          self.training or not self.track_running_stats, momentum, self.eps, mask=mask, lengths=lengths)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, L) or (C, L) over space (Ulyanov et al. 2016)."""

    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, H, W) or (C, H, W) over space (Ulyanov et al. 2016)."""

    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, D, H, W) or (C, D, H, W) over space (Ulyanov et al. 2016)."""

    ndims = (4, 5)


# ---- to length 1 ----


@writes("cast")
@rounds_once
def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps) along `dim`: vectors of length 1. Any shape -> same."""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)
