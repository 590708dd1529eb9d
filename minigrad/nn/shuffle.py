"""Moving elements between channels and space: `pixel_shuffle`, `pixel_unshuffle`, `channel_shuffle`, and their layers.

All are a reshape, a permutation and a reshape.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.formula import selection
from .module import Module


def _check_image(name: str, input: Tensor, factor: int, argument: str) -> None:
    if input.ndim < 3:
        fail(name, "input must have at least 3 dimensions, (*, C, H, W)", input.layout)
    if factor <= 0:
        fail(name, f"{argument} must be positive", factor)


@selection
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become space (Shi et al. 2016): out[c, h r + i, w r + j] = in[c r^2 + i r + j, h, w], r the factor.

    Shapes: (*, C r^2, H, W) -> (*, C, H r, W r). RuntimeError if r^2 does not divide the channels.
    """
    _check_image("pixel_shuffle", input, upscale_factor, "upscale_factor")
    *lead, channels, height, width = input.shape
    r = upscale_factor
    if r == 1:
        return input.clone()                            # not a view, for any factor
    if channels % (r * r):
        fail("pixel_shuffle", f"the channels must be a multiple of upscale_factor^2 = {r * r}", input.layout)
    n = len(lead)
    x = input.reshape(*lead, channels // (r * r), r, r, height, width)
    x = x.permute(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return x.reshape(*lead, channels // (r * r), height * r, width * r)


@pixel_shuffle.samples
def _pixel_shuffle_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 8, 3, 4), 2
    yield make(9, 2, 1), 3
    yield make(1, 2, 4, 5, 3), 1


@pixel_shuffle.errors
def _pixel_shuffle_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 6, 3, 4), 2, {}), RuntimeError, "multiple of upscale_factor"
    yield (make(6, 3), 2, {}), RuntimeError, "at least 3 dimensions"
    yield (make(4, 3, 3), 0, {}), RuntimeError, "positive"


@pixel_shuffle.reference
def _pixel_shuffle_oracle(x: Any, r: int) -> Any:
    *lead, c, h, w = x.shape
    y = x.reshape(-1, c // (r * r), r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(*lead, c // (r * r), h * r, w * r)


@selection
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Space becomes channels: the inverse of `pixel_shuffle`.

    Shapes: (*, C, H r, W r) -> (*, C r^2, H, W), r the factor. RuntimeError if r does not divide height and width.
    """
    _check_image("pixel_unshuffle", input, downscale_factor, "downscale_factor")
    *lead, channels, height, width = input.shape
    r = downscale_factor
    if r == 1:
        return input.clone()
    if height % r or width % r:
        fail("pixel_unshuffle", f"height and width must be multiples of downscale_factor {r}", input.layout)
    n = len(lead)
    x = input.reshape(*lead, channels, height // r, r, width // r, r)
    x = x.permute(*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return x.reshape(*lead, channels * r * r, height // r, width // r)


@pixel_unshuffle.samples
def _pixel_unshuffle_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 2, 6, 4), 2
    yield make(1, 3, 3), 3


@pixel_unshuffle.errors
def _pixel_unshuffle_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 3, 4), 2, {}), RuntimeError, "multiples of downscale_factor"
    yield (make(6, 3), 2, {}), RuntimeError, "at least 3 dimensions"
    yield (make(4, 3, 3), -1, {}), RuntimeError, "positive"


@pixel_unshuffle.reference
def _pixel_unshuffle_oracle(x: Any, r: int) -> Any:
    *lead, c, h, w = x.shape
    y = x.reshape(-1, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(*lead, c * r * r, h // r, w // r)


@selection
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channel k of each of `groups` groups of channels, then channel k + 1 (Zhang et al. 2018).

    Shapes: (N, C, *) -> same, with at least 3 dimensions. RuntimeError if the number of groups does not divide C.
    """
    if input.ndim < 3:
        fail("channel_shuffle", "input must have at least 3 dimensions, (N, C, *)", input.layout)
    if groups <= 0:
        fail("channel_shuffle", "groups must be positive", groups)
    batch, channels, *space = input.shape
    if channels % groups:
        fail("channel_shuffle", f"the channels must be a multiple of groups {groups}", input.layout)
    return input.reshape(batch, groups, channels // groups, *space).transpose(1, 2).reshape(*input.shape)


@channel_shuffle.samples
def _channel_shuffle_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 6, 3, 4), 3
    yield make(1, 4, 5), 2


@channel_shuffle.errors
def _channel_shuffle_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 6, 3), 4, {}), RuntimeError, "multiple of groups"
    yield (make(2, 6), 2, {}), RuntimeError, "at least 3 dimensions"
    yield (make(2, 6, 3), 0, {}), RuntimeError, "positive"


@channel_shuffle.reference
def _channel_shuffle_oracle(x: Any, groups: int) -> Any:
    return x[:, [k * (x.shape[1] // groups) + i for i in range(x.shape[1] // groups) for k in range(groups)]]


class PixelShuffle(Module):
    """Channels become space: (*, C r^2, H, W) -> (*, C, H r, W r), r = `upscale_factor` (Shi et al. 2016)."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(*, C r^2, H, W) -> (*, C, H r, W r)"""
        return pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Space becomes channels: (*, C, H r, W r) -> (*, C r^2, H, W), r = `downscale_factor`."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(*, C, H r, W r) -> (*, C r^2, H, W)"""
        return pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channel k of each of `groups` groups of channels, then channel k + 1 (Zhang et al. 2018)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> same"""
        return channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
