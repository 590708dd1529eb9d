"""Convolutions: the functions `conv1d` to `conv_transpose3d`, then their layers. The kernels are in `ops/conv.py`.

Inputs are (N, C, *space), or (C, *space) without a batch; then the output has no batch either. An output size L' of a
convolution is

    (L + 2 padding - dilation (k - 1) - 1) // stride + 1

and of its transpose (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import index
from typing import Any

from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.arrange import pad
from ..ops.conv import check_channels, convolution, convolution_transpose
from ..ops.creation import empty
from . import init
from .arguments import DeviceLike, DtypeLike, Size, hashable, sizes_of
from .module import Module, Parameter

# ---- functions ----


@lru_cache(maxsize=1024, typed=True)
def _conv_options(name: str, dims: int, kernel: tuple[int, ...], stride: Size, padding: Size | str, dilation: Size,
                  groups: int) -> dict[str, Any]:
    """The options of a convolution as the op takes them, checked; remembered, since a layer repeats its call."""
    stride, dilation = sizes_of(stride, dims, name, "stride"), sizes_of(dilation, dims, name, "dilation")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            fail(name, "padding must be numbers, 'same' or 'valid'", repr(padding))
        if padding == "same" and any(s != 1 for s in stride):
            fail(name, "padding='same' is for stride 1", f"stride {list(stride)}", "give the padding in numbers")
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pairs = tuple([(n // 2, n - n // 2) for n in total])
    else:
        pairs = tuple([(p, p) for p in sizes_of(padding, dims, name, "padding")])
    return {"stride": stride, "padding": pairs, "dilation": dilation, "groups": index(groups)}


def _batched(name: str, input: Tensor, weight: Tensor, dims: int, groups: int | None = None) -> Tensor:
    """The input with a batch dimension. `groups` is None for a transposed convolution."""
    if weight.ndim != dims + 2 or input.ndim not in (dims + 1, dims + 2):
        space = ("L", "H, W", "D, H, W")[dims - 1]
        fail(name, f"the input must have {dims + 2} dimensions, or {dims + 1} without a batch, and weight {dims + 2}",
             [f"input {input.layout}", f"weight {weight.layout}"],
             f"reshape the input to (N, C, {space}); unsqueeze(1) adds a channel, unsqueeze(0) a batch")
    if input.ndim == dims + 2:
        return input
    check_channels(name, input.layout, weight.layout, weight.shape[0] if groups is None else weight.shape[1] * groups)
    return input.unsqueeze(0)


def _conv(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size | str,
          dilation: Size, groups: int) -> Tensor:
    """A convolution over `dims` spatial dimensions."""
    x = _batched(name, input, weight, dims, groups)
    options = _conv_options(name, dims, tuple(weight.shape[2:]), hashable(stride), hashable(padding),
                            hashable(dilation), groups)
    y = convolution(x, weight, bias, **options)
    return y if input.ndim == dims + 2 else y.squeeze(0)


@lru_cache(maxsize=1024, typed=True)
def _transpose_options(name: str, dims: int, stride: Size, padding: Size, output_padding: Size, groups: int,
                       dilation: Size) -> dict[str, Any]:
    """The options of a transposed convolution as the op takes them, checked."""
    return {"stride": sizes_of(stride, dims, name, "stride"), "padding": sizes_of(padding, dims, name, "padding"),
            "output_padding": sizes_of(output_padding, dims, name, "output_padding"),
            "dilation": sizes_of(dilation, dims, name, "dilation"), "groups": index(groups)}


def _conv_transpose(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size,
                    padding: Size, output_padding: Size, groups: int, dilation: Size) -> Tensor:
    """A transposed convolution over `dims` spatial dimensions."""
    options = _transpose_options(name, dims, hashable(stride), hashable(padding), hashable(output_padding), groups,
                                 hashable(dilation))
    y = convolution_transpose(_batched(name, input, weight, dims), weight, bias, **options)
    return y if input.ndim == dims + 2 else y.squeeze(0)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation: y[n, o, *] = bias[o] + sum over c and the kernel's places of x[n, c, *] weight[o, c, *].

    Shapes: input (N, C, L), weight (out, C / groups, k), bias (out) -> (N, out, L').

    `groups=g`: g convolutions side by side, each of C / g channels. `padding` is a number, numbers, "same" (output as
    large as the input, stride 1) or "valid" (none). Raises RuntimeError if sizes do not fit.
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation: y[n, o, *] = bias[o] + sum over c and the kernel's places of x[n, c, *] weight[o, c, *].

    Shapes: input (N, C, H, W), weight (out, C / groups, kH, kW), bias (out) -> (N, out, H', W').

    Options as for `conv1d`, one number for both dimensions or one for each (LeCun et al. 1989).
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation: y[n, o, *] = bias[o] + sum over c and the kernel's places of x[n, c, *] weight[o, c, *].

    Shapes: input (N, C, D, H, W), weight (out, C / groups, kD, kH, kW), bias (out) -> (N, out, D', H', W').

    Options as for `conv1d`, one number for all dimensions or one for each.
    """
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of `conv1d` as a linear map, plus bias: its derivative with respect to the input.

    Shapes: input (N, C, L), weight (C, out / groups, k), bias (out) -> (N, out, L').
    """
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups,
                           dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of `conv2d` as a linear map, plus bias: its derivative with respect to the input.

    Shapes: input (N, C, H, W), weight (C, out / groups, kH, kW), bias (out) -> (N, out, H', W').
    """
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups,
                           dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of `conv3d` as a linear map, plus bias: its derivative with respect to the input.

    Shapes: input (N, C, D, H, W), weight (C, out / groups, kD, kH, kW), bias (out) -> (N, out, D', H', W').
    """
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups,
                           dilation)


# ---- layers ----

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _check_options(kind: str, in_channels: int, out_channels: int, groups: int, padding: Size | str,
                   stride: Size, padding_mode: str) -> None:
    """Raises ValueError on options of a layer that do not fit together."""
    if groups <= 0:
        fail(kind, "groups must be a positive integer", groups, kind=ValueError)
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            fail(kind, f"{name} must be divisible by groups", [f"{name} {channels}", f"groups {groups}"],
                 kind=ValueError)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            fail(kind, "padding must be numbers, 'same' or 'valid'", repr(padding), kind=ValueError)
        if padding == "same" and any(s != 1 for s in ([stride] if isinstance(stride, int) else stride)):
            fail(kind, "padding='same' is for stride 1, not for strided convolutions", f"stride {stride}",
                 "give the padding in numbers", ValueError)
    if padding_mode not in _PADDING_MODES:
        fail(kind, f"padding_mode must be one of {', '.join(_PADDING_MODES)}", repr(padding_mode), kind=ValueError)


class _Conv(Module):
    """What all six share: weight and bias start in U(-k, k), k = 1 / sqrt(channels of a group * kernel elements)."""

    dims: int                                   # spatial dimensions
    transposed = False
    run: Callable[..., Tensor]                  # the function of the layer
    padding: tuple[int, ...] | str
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, padding: Size | str,
                 dilation: Size, output_padding: Size, groups: int, bias: bool, padding_mode: str, device: DeviceLike,
                 dtype: DtypeLike) -> None:
        super().__init__()
        kind, n = type(self).__name__, self.dims
        _check_options(kind, in_channels, out_channels, groups, padding, stride, padding_mode)
        self.stride = sizes_of(stride, n, kind, "stride")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = sizes_of(kernel_size, n, kind, "kernel_size")
        self.dilation = sizes_of(dilation, n, kind, "dilation")
        self.output_padding = sizes_of(output_padding, n, kind, "output_padding")
        self.padding = padding if isinstance(padding, str) else sizes_of(padding, n, kind, "padding")
        self.padding_mode = padding_mode
        shape = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty((*shape, *self.kernel_size), device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            if value != (usual,) * len(value):
                text += f", {name}={value}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"


class _Convolution(_Conv):
    """A convolution; a `padding_mode` other than "zeros" pads the input first, by `functional.pad`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
                         padding_mode, device, dtype)
        self._around: list[int] = []            # the amounts that `pad` takes, from the last dimension on
        for i in reversed(range(self.dims)):
            if isinstance(self.padding, str):
                total = self.dilation[i] * (self.kernel_size[i] - 1) if self.padding == "same" else 0
            else:
                total = 2 * self.padding[i]
            self._around += [total // 2, total - total // 2]

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, *space) -> (N, out_channels, *space'), or both without N."""
        if self.padding_mode == "zeros":
            return self.run(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        _batched(type(self).__name__, input, self.weight, self.dims, self.groups)       # checks it before it is padded
        padded = pad(input, self._around, self.padding_mode)
        return self.run(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Conv1d(_Convolution):
    """Cross-correlation: (N, C, L) -> (N, out_channels, L'), or both without N."""

    dims = 1
    run = staticmethod(conv1d)


class Conv2d(_Convolution):
    """Cross-correlation: (N, C, H, W) -> (N, out_channels, H', W'), or both without N.

        >>> nn.Conv2d(3, 8, kernel_size=3, padding=1)(minigrad.ones(2, 3, 16, 16)).shape
        Size([2, 8, 16, 16])
    """

    dims = 2
    run = staticmethod(conv2d)


class Conv3d(_Convolution):
    """Cross-correlation: (N, C, D, H, W) -> (N, out_channels, D', H', W'), or both without N."""

    dims = 3
    run = staticmethod(conv3d)


class _Transposed(_Conv):
    """A transposed convolution."""

    transposed = True
    padding: tuple[int, ...]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
                 output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1,
                 padding_mode: str = "zeros", device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        kind = type(self).__name__
        if padding_mode != "zeros":
            fail(kind, "padding_mode must be 'zeros' for a transposed convolution", repr(padding_mode), kind=ValueError)
        if isinstance(padding, str):
            fail(kind, "padding must be numbers", repr(padding), kind=TypeError)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups,
                         bias, padding_mode, device, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, *space) -> (N, out_channels, *space'), or both without N.

        `output_size`, of the space or of all dimensions, says which of the sizes that a stride leaves open is meant.
        """
        extra = self.output_padding if output_size is None else self._extra(input, tuple(output_size))
        return self.run(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _extra(self, input: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        """The output padding that gives `output_size` (of the space, or of all dimensions)."""
        lead = input.ndim - self.dims
        wanted = output_size[lead:] if len(output_size) == input.ndim else output_size
        if len(wanted) != self.dims:
            fail(type(self).__name__, f"output_size must have {self.dims} or {input.ndim} elements for this input",
                 [f"output_size {list(output_size)}", f"input {input.layout}"], kind=ValueError)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in
                 zip(input.shape[lead:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)]
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        if any(not a <= n <= b for a, n, b in zip(least, wanted, most, strict=True)):
            fail(type(self).__name__, f"output_size must be from {least} to {most} for this input",
                 [f"output_size {list(wanted)}", f"input {input.layout}"], kind=ValueError)
        return tuple([n - a for n, a in zip(wanted, least, strict=True)])


class ConvTranspose1d(_Transposed):
    """The transpose of `Conv1d`: (N, C, L) -> (N, out_channels, L'), or both without N."""

    dims = 1
    run = staticmethod(conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """The transpose of `Conv2d`: (N, C, H, W) -> (N, out_channels, H', W'), or both without N."""

    dims = 2
    run = staticmethod(conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """The transpose of `Conv3d`: (N, C, D, H, W) -> (N, out_channels, D', H', W'), or both without N."""

    dims = 3
    run = staticmethod(conv_transpose3d)
