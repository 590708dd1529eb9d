"""Windows of images as columns, and columns added up to images: `unfold`, `fold`, and their layers.

Both are one launch: `unfold` takes elements by a table of their places, `fold` adds to these places.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..core.shape import fail
from ..core.tensor import Tensor, new_tensor
from ..ops.arrange import pad
from ..ops.formula import formula, selection
from ..ops.take import add_at, take_at
from .arguments import Size, sizes_of
from .module import Module


class _Grid:
    """The windows of an image: how many there are in each dimension, and where their elements lie."""

    def __init__(self, op: str, image: tuple[int, ...], kernel_size: Size, dilation: Size, padding: Size,
                 stride: Size) -> None:
        given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
        self.kernel, self.dilation, self.padding, self.stride = (
            sizes_of(value, 2, op, name) for name, value in given.items())
        for name, least in (("kernel", 1), ("dilation", 1), ("stride", 1), ("padding", 0)):
            if min(getattr(self, name)) < least:
                fail(op, f"{name} must be at least {least}", list(getattr(self, name)))
        self.padded = tuple([n + 2 * p for n, p in zip(image, self.padding, strict=True)])
        self.count = tuple([(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in
                            zip(self.padded, self.kernel, self.dilation, self.stride, strict=True)])
        if min(self.count) < 1:
            fail(op, "the kernel must fit into the padded image",
                 [f"image {list(image)}", f"kernel {list(self.kernel)}", f"windows {list(self.count)}"])

    def places(self, device: Any) -> Tensor:
        """Where the elements of all windows lie in the padded image, in row-major order: (kernel elements, windows)."""
        return _places(self.padded[1], self.kernel, self.count, self.dilation, self.stride, device)


@lru_cache(maxsize=64)
def _places(width: int, kernel: tuple, count: tuple, dilation: tuple, stride: tuple, device: Any) -> Tensor:
    rows, columns = (np.arange(k)[:, None] * d + np.arange(c) * s
                     for k, c, d, s in zip(kernel, count, dilation, stride, strict=True))
    table = rows[:, None, :, None] * width + columns[None, :, None, :]
    return new_tensor(device.upload(table.reshape(prod(kernel), prod(count))), None)


@selection
def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """The windows of an image as columns (im2col): `kernel_size`, `dilation`, `padding` (with zeros) and `stride` as in
    a convolution, each a number or one for each dimension.

    Shapes: (N, C, H, W) or (C, H, W) -> (N, C * kernel elements, windows), or without N. `fold` is its transpose.
    """
    if input.ndim not in (3, 4) or 0 in input.shape[-3:]:
        fail("unfold", "input must be (N, C, H, W) or (C, H, W), with positive C, H and W", input.layout)
    lead = input.shape[:-2]
    grid = _Grid("unfold", tuple(input.shape[-2:]), kernel_size, dilation, padding, stride)
    top, left = grid.padding
    x = pad(input, (left, left, top, top)) if top or left else input
    columns = take_at(x.reshape(*lead, prod(grid.padded)), grid.places(input.layout.device), len(lead), 1)
    return columns.reshape(*lead[:-1], lead[-1] * prod(grid.kernel), prod(grid.count))


@unfold.samples
def _unfold_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 2, 4, 5), 2
    yield make(1, 1, 5, 6), (2, 3), 2, 1, (1, 2)
    yield make(3, 4, 4), 3, 1, 1, 2


@unfold.errors
def _unfold_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 2), 2, {}), RuntimeError, "input must be"
    yield (make(1, 2, 2), 3, {}), RuntimeError, "must fit"
    yield (make(1, 2, 2), 0, {}), RuntimeError, "kernel must be at least 1"


@unfold.reference
def _unfold_oracle(x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (v if isinstance(v, tuple) else (v, v)
                                              for v in (kernel, dilation, padding, stride))
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(ph, ph), (pw, pw)])
    h, w = x.shape[-2:]
    parts = [x[..., i * dh:h - (kh - 1 - i) * dh:sh, j * dw:w - (kw - 1 - j) * dw:sw]
             for i in range(kh) for j in range(kw)]
    columns = np.stack([p.reshape(*p.shape[:-2], -1) for p in parts], -2)
    return columns.reshape(*x.shape[:-3], -1, columns.shape[-1])


@formula
def fold(input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0,
         stride: Size = 1) -> Tensor:
    """Columns added up to an image of `output_size` at the places of their windows (col2im): where windows overlap,
    elements are summed. Options as in `unfold`.

    Shapes: (N, C * kernel elements, windows) -> (N, C, H, W), or without N. RuntimeError if the sizes do not fit.
    """
    if input.ndim not in (2, 3) or 0 in input.shape[-2:]:
        fail("fold", "input must be (N, C * kernel elements, windows), or without N", input.layout)
    size = sizes_of(output_size, 2, "fold", "output_size")
    grid = _Grid("fold", size, kernel_size, dilation, padding, stride)
    rows, windows = input.shape[-2:]
    elements = prod(grid.kernel)
    if rows % elements or windows != prod(grid.count):
        fail("fold", f"input must be (N, C * {elements}, {prod(grid.count)}) for this image and kernel", input.layout)
    lead = (*input.shape[:-2], rows // elements)
    image = add_at((*lead, prod(grid.padded)), input.reshape(*lead, elements, windows),
                   grid.places(input.layout.device), len(lead))
    (top, left), image = grid.padding, image.reshape(*lead, *grid.padded)
    return image[..., top:top + size[0], left:left + size[1]] if top or left else image


@fold.samples
def _fold_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 8, 12), (4, 5), 2
    yield make(1, 6, 20), (5, 6), (2, 3), 2, 1, (1, 1)
    yield make(9, 4), 4, 3, 1, 1, 2
    yield make(1, 4, 12), (3, 4), 2, 1, (1, 0)


@fold.errors
def _fold_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 8, 11), (4, 5), 2, {}), RuntimeError, "12"
    yield (make(2, 7, 12), (4, 5), 2, {}), RuntimeError, "input must be"
    yield (make(3), 2, 1, {}), RuntimeError, "input must be"


@fold.reference
def _fold_oracle(x: Any, size: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The transpose of unfold's matrix."""
    h, w = size if isinstance(size, tuple) else (size, size)
    place = np.arange(1.0, h * w + 1).reshape(1, h, w)
    at = _unfold_oracle(place, kernel, dilation, padding, stride).astype(int)
    channels = x.shape[-2] // at.shape[-2]
    flat = x.reshape(-1, channels, *at.shape)
    out = np.zeros((*flat.shape[:2], h * w + 1))
    for n in np.ndindex(out.shape[:2]):
        np.add.at(out[n], at, flat[n])
    return out[..., 1:].reshape(*x.shape[:-2], channels, h, w)


class Unfold(Module):
    """The windows of an image as columns: (N, C, H, W) -> (N, C * kernel elements, windows). See
    `functional.unfold`."""

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * kernel elements, windows)"""
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
                f"stride={self.stride}")


class Fold(Module):
    """Columns added up to an image: (N, C * kernel elements, windows) -> (N, C, H, W). See `functional.fold`."""

    def __init__(self, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0,
                 stride: Size = 1) -> None:
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C * kernel elements, windows) -> (N, C, H, W)"""
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
                f"padding={self.padding}, stride={self.stride}")
