"""Fractional max pooling (Graham 2014, "Fractional max-pooling"): windows of one size, whose starts are drawn at random
so that they share out the space evenly.

With n elements, m windows of k elements and a random number u in [0, 1), a = (n - k) / (m - 1), window i begins at
floor((i + u) a) - floor(u a), and the last one at n - k.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..core.shape import fail, is_float
from ..core.tensor import Tensor
from ..ops.creation import as_tensor
from ..ops.random import rand
from .arguments import Size, sizes_of
from .module import Module


def _starts(u: np.ndarray, n: int, m: int, k: int) -> np.ndarray:
    """Where the windows begin, in the precision of `u`: (*) -> (*, m)."""
    u, i = u[..., None], np.arange(m, dtype=u.dtype)
    a = u.dtype.type((n - k) / (m - 1)) if m > 1 else u.dtype.type(0)
    begin = ((i + u) * a).astype(np.int64) - (u * a).astype(np.int64)
    begin[..., -1:] = n - k
    return begin


def _wanted(name: str, dims: int, space: tuple[int, ...], output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    if (output_size is None) == (output_ratio is None):
        fail(name, "needs either output_size or output_ratio", [output_size, output_ratio], kind=ValueError)
    if output_size is not None:
        return sizes_of(output_size, dims, name, "output_size")
    ratios = (output_ratio,) * dims if isinstance(output_ratio, (int, float)) else tuple(output_ratio)
    if len(ratios) != dims or not all(0 < r < 1 for r in ratios):
        fail(name, f"output_ratio must be {dims} numbers between 0 and 1", output_ratio, kind=ValueError)
    return tuple(int(n * r) for n, r in zip(space, ratios, strict=True))


def _pool(dims: int, input: Tensor, kernel_size: Size, output_size: Any, output_ratio: Any,
          samples: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and where in the space it is."""
    name = f"fractional_max_pool{dims}d"
    if input.ndim not in (dims + 1, dims + 2) or not all(input.shape[input.ndim - dims - 1:]):
        fail(name, f"the input must have {dims + 2} dimensions, or {dims + 1} without a batch, and only the batch may "
             "be empty", input.layout)
    if not is_float(input.dtype):
        fail(name, "the input must be floating point", input.layout, "convert with .float()", NotImplementedError)
    lead, space = tuple(input.shape[:-dims]), tuple(input.shape[-dims:])
    kernel = sizes_of(kernel_size, dims, name, "kernel_size")
    out = _wanted(name, dims, space, output_size, output_ratio)
    if not all(k > 0 and m > 0 and m + k - 1 <= n for n, m, k in zip(space, out, kernel, strict=True)):
        fail(name, "output_size + kernel_size - 1 must be at most the size of the input, and both positive",
             [input.layout, f"kernel_size {kernel}", f"output_size {out}"])
    batch = (*(1,) * (dims + 2 - input.ndim), *lead, dims)
    if samples is None:
        samples = rand(*batch, dtype=input.dtype, device=input.device)
    elif samples.shape[1:] != batch[1:] or samples.shape[0] < batch[0] or samples.dtype != input.dtype:
        fail(name, f"_random_samples must be {list(batch)}, of the dtype of the input", samples.layout)
    u = samples[:batch[0]].detach().numpy(force=True).reshape(*lead, dims)
    if not ((u >= 0) & (u < 1)).all():
        fail(name, "_random_samples must be in [0, 1)", [u.min(), u.max()], "draw them with minigrad.rand")
    at = np.zeros((*lead, *(1,) * 2 * dims), np.int64)      # (*lead, windows of each dimension, places in a window)
    for i, (n, m, k) in enumerate(zip(space, out, kernel, strict=True)):
        begin = _starts(u[..., i if dims == 3 else 1 - i], n, m, k)     # of two, PyTorch draws the width first
        each = (begin[..., None] + np.arange(k)).reshape(*lead, *(m if j == i else 1 for j in range(dims)),
                                                         *(k if j == i else 1 for j in range(dims)))
        at = at * n + each
    windows = (*lead, prod(out), prod(kernel))
    places = as_tensor(at.reshape(*lead, prod(out) * prod(kernel)), device=input.device)
    flat = input.reshape(*lead, prod(space))
    best = flat.detach().gather(-1, places).reshape(windows).argmax(-1, True)
    index = places.reshape(windows).gather(-1, best).squeeze(-1)
    return flat.gather(-1, index).reshape(*lead, *out), index.reshape(*lead, *out)


def fractional_max_pool2d_with_indices(
        input: Tensor, kernel_size: Size, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d`, and where in the space each maximum was found."""
    return _pool(2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool2d(input: Tensor, kernel_size: Size, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """The largest element of each of `output_size` windows (or of the part `output_ratio` of the space) at random
    places: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W').

    `_random_samples`, (N, C, 2), are the random numbers u, else they are drawn. `return_indices=True`: the pair of it
    and the indices.
    """
    found = _pool(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


def fractional_max_pool3d_with_indices(
        input: Tensor, kernel_size: Size, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d`, and where in the space each maximum was found."""
    return _pool(3, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d(input: Tensor, kernel_size: Size, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """As `fractional_max_pool2d`, for (N, C, D, H, W) or (C, D, H, W); `_random_samples` is (N, C, 3)."""
    found = _pool(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


class _FractionalMaxPool(Module):
    """What the two layers share."""

    _dims = 2

    def __init__(self, kernel_size: Size, output_size: Any = None, output_ratio: Any = None,
                 return_indices: bool = False, _random_samples: Tensor | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = sizes_of(kernel_size, self._dims, name, "kernel_size")
        _wanted(name, self._dims, (2,) * self._dims, output_size, output_ratio)
        self.output_size, self.return_indices = output_size, return_indices
        self.output_ratio: Sequence[float] | None = (
            (output_ratio,) * self._dims if isinstance(output_ratio, (int, float)) else output_ratio)
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Any:
        """(N, C, *space) -> (N, C, *output_size), or both without N; with `return_indices` the pair."""
        found = _pool(self._dims, input, self.kernel_size, self.output_size, self.output_ratio,
                      self._random_samples)                                     # type: ignore[arg-type]
        return found if self.return_indices else found[0]


class FractionalMaxPool2d(_FractionalMaxPool):
    """The largest element of each of `output_size` windows at random places: see `fractional_max_pool2d`."""


class FractionalMaxPool3d(_FractionalMaxPool):
    """The largest element of each of `output_size` windows at random places: see `fractional_max_pool3d`."""

    _dims = 3
