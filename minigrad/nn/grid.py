"""Images read at any places: `grid_sample` and `affine_grid` (Jaderberg et al. 2015, "Spatial transformer networks").

A place is given by numbers from -1 to 1 in each dimension, in the order (x, y) or (x, y, z): the last dimension of the
image first.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from ..core.shape import INT64, fail, is_float
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.convert import cast
from ..ops.creation import as_tensor
from ..ops.formula import clamp, formula, round
from ..ops.math import abs, add, div, eq, floor, fmod, ge, le, logical_and, mul, remainder, sub, where
from ..ops.matmul import matmul
from ..ops.take import gather_at

_MODES, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def _warn_of_corners(op: str, align_corners: bool | None) -> bool:
    if align_corners is None:
        warn(f"[{op}] align_corners is False by default: pass it")
    return bool(align_corners)


def _reflected(at: Tensor, size: int, align: bool) -> Tensor:
    """Places mirrored at the borders of the image, as often as needed."""
    low, span = (0.0, float(size - 1)) if align else (-0.5, float(size))
    if span == 0:
        return mul(at, 0.0)
    way = abs(sub(at, low))
    rest, turns = fmod.call(way, span), floor(div(way.detach(), span))
    return add(where(eq(remainder(turns, 2.0), 0), rest, sub(span, rest)), low)


def _inside(at: Tensor, size: int, padding: str, align: bool) -> Tensor:
    """Places moved into the image, as the padding says; "zeros" leaves them."""
    if padding == "zeros":
        return at
    return clamp(_reflected(at, size, align) if padding == "reflection" else at, 0.0, float(size - 1))


def _read(image: Tensor, at: Sequence[Tensor], sizes: Sequence[int], zeros: bool) -> Tensor:
    """The elements of images (N, C, *) at whole numbers `at`, (N, P) for each dimension: (N, C, P). Those outside are
    0 with `zeros`."""
    n, channels = image.shape[:2]
    index = inside = None
    for place, size in zip(at, sizes, strict=True):
        whole = clamp(cast(clamp(place, -1.0, float(size)), INT64), 0, size - 1)        # NaN becomes any number
        index = whole if index is None else add(mul(index, size), whole)
        if zeros:
            fits = logical_and(ge(place, 0), le(place, size - 1))
            inside = fits if inside is None else logical_and(inside, fits)
    points = index.shape[1]             # type: ignore[union-attr]
    spread = index.reshape(n, 1, points).expand(n, channels, points)        # type: ignore[union-attr]
    found = gather_at(image.reshape(n, channels, math.prod(sizes)), spread, 2)
    return found if inside is None else where(inside.reshape(n, 1, points), found, 0.0)


def _cubic(t: Tensor) -> list[Tensor]:
    """The weights of the elements at -1, 0, 1 and 2 for a place t in [0, 1) (Keys 1981, a = -0.75)."""
    a = -0.75

    def near(x: Tensor) -> Tensor:
        return add(mul(mul(sub(mul(x, a + 2), a + 3), x), x), 1.0)

    def far(x: Tensor) -> Tensor:
        return sub(mul(mul(add(mul(sub(x, 5.0), x), 8.0), x), a), 4 * a)
    return [far(add(t, 1.0)), near(t), near(sub(1.0, t)), far(sub(2.0, t))]


def _check(input: Tensor, grid: Tensor, mode: str, padding_mode: str) -> None:
    got, dims = [f"input {input.layout}", f"grid {grid.layout}"], input.ndim - 2
    if mode not in _MODES or padding_mode not in _PADDINGS:
        raise ValueError(f"[grid_sample] mode must be one of {', '.join(_MODES)}, padding_mode one of "
                         f"{', '.join(_PADDINGS)}; got {mode!r}, {padding_mode!r}")
    if dims not in (2, 3) or grid.ndim != input.ndim or grid.shape[0] != input.shape[0] or grid.shape[-1] != dims:
        fail("grid_sample", "input must be (N, C, H, W) and grid (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3)",
             got)
    if 0 in input.shape[2:]:
        fail("grid_sample", "the image must not be empty", got)
    if input.dtype != grid.dtype or not is_float(grid.dtype):
        fail("grid_sample", "input and grid must have one floating-point dtype", got)
    if mode == "bicubic" and dims != 2:
        fail("grid_sample", "mode 'bicubic' needs images of two dimensions", got)


@formula
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """Images read at the places of a grid: out[n, c, h, w] = input[n, c] at (x, y) = grid[n, h, w].

    Shapes: input (N, C, H, W), grid (N, h, w, 2) -> (N, C, h, w); for volumes input (N, C, D, H, W), grid (N, d, h, w,
    3). -1 and 1 are the borders of the image, or with `align_corners` the middles of its outermost elements.

    mode: "bilinear" (of the neighbours), "nearest", "bicubic" (images only). padding_mode, for places outside: "zeros",
    "border" (the nearest element), "reflection" (mirrored at the border). The gradient reaches input and grid.
    """
    _check(input, grid, mode, padding_mode)
    align, sizes = _warn_of_corners("grid_sample", align_corners), list(input.shape[2:])
    n, channels, *out = input.shape[0], input.shape[1], *grid.shape[1:-1]
    flat = grid.reshape(n, math.prod(out), len(sizes))
    places = []
    for i, size in enumerate(sizes):                                    # the grid has the last dimension first
        at = flat[..., len(sizes) - 1 - i]
        at = mul(add(at, 1.0), (size - 1) / 2) if align else sub(mul(add(at, 1.0), size / 2), 0.5)
        if padding_mode != "reflection":        # infinitely far away is as far as just outside of what is read
            at = clamp(at, -3.0, size + 2.0)
        places.append(at if mode == "bicubic" else _inside(at, size, padding_mode, align))
    zeros = padding_mode == "zeros"
    if mode == "nearest":
        near = [round(at) for at in places]
        found = _read(input, near, sizes, zeros)
        for at in near if grid.requires_grad else ():       # a step function of the grid: its gradient is 0
            found = where(as_tensor(True, device=at.device), found, at.reshape(n, 1, math.prod(out)))
        return found.reshape(n, channels, *out)
    first = [floor(at.detach()) for at in places]           # detached: a step function
    shares = [sub(at, base) for at, base in zip(places, first, strict=True)]
    weights, start = [[sub(1.0, t), t] for t in shares], 0
    if mode == "bicubic":
        weights, start = [_cubic(t) for t in shares], -1
    total = None
    for corner in product(range(len(weights[0])), repeat=len(sizes)):
        near = [add(base, float(start + c)) for base, c in zip(first, corner, strict=True)]
        if mode == "bicubic":
            near = [_inside(a, size, padding_mode, align) for a, size in zip(near, sizes, strict=True)]
        value = _read(input, near, sizes, zeros)
        for weight, c in zip(weights, corner, strict=True):
            value = mul(value, weight[c].reshape(n, 1, math.prod(out)))
        total = value if total is None else add(total, value)
    return total.reshape(n, channels, *out)         # type: ignore[union-attr]


@grid_sample.samples
def _grid_sample_samples(make: Any) -> Iterator[tuple]:
    for mode in _MODES:
        for padding in _PADDINGS:
            yield make(2, 2, 4, 5), make(2, 3, 2, 2, low=-1.3, high=1.3), {
                "mode": mode, "padding_mode": padding, "align_corners": padding == "border"}
    yield make(1, 1, 3, 2, 4), make(1, 2, 1, 2, 3, low=-1.2, high=1.2), {"align_corners": False}
    yield make(1, 2, 1, 1), make(1, 2, 2, 2), {"padding_mode": "reflection", "align_corners": True}


@grid_sample.errors
def _grid_sample_errors(make: Any) -> Iterator[tuple]:
    yield (make(1, 1, 3, 3), make(1, 2, 2, 3), {"align_corners": False}), RuntimeError, r"\(N, h, w, 2\)"
    yield (make(1, 1, 3, 3), make(2, 2, 2, 2), {"align_corners": False}), RuntimeError, r"\(N, h, w, 2\)"
    yield (make(1, 1, 3, 3), make(1, 2, 2, 2), {"mode": "x"}), ValueError, "mode must be"
    yield (make(1, 1, 0, 3), make(1, 2, 2, 2), {"align_corners": False}), RuntimeError, "not be empty"


@grid_sample.reference
def _grid_sample_oracle(x: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros",
                        align_corners: bool = False) -> Any:
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    sizes = x.shape[2:]

    def moved(p: float, size: int) -> float:
        if padding_mode == "reflection":
            low, high = (0, size - 1) if align_corners else (-0.5, size - 0.5)
            while not low <= p <= high:
                if low == high:
                    return 0
                p = 2 * low - p if p < low else 2 * high - p
        return p if padding_mode == "zeros" else min(max(p, 0), size - 1)

    def value(n: int, c: int, at: Sequence[float]) -> float:
        inside = all(0 <= a <= size - 1 for a, size in zip(at, sizes, strict=True))
        return x[n, c][tuple(map(int, at))] if inside else 0

    for n, c, *rest in np.ndindex(out.shape):
        at = [((g + 1) / 2 * (s - 1) if align_corners else ((g + 1) * s - 1) / 2)
              for g, s in zip(grid[n][tuple(rest)][::-1], sizes, strict=True)]
        if mode != "bicubic":
            at = [moved(a, s) for a, s in zip(at, sizes, strict=True)]
        if mode == "nearest":
            out[n, c][tuple(rest)] = value(n, c, [np.round(a) for a in at])
            continue
        for step in product((-1, 0, 1, 2), repeat=len(at)):
            places, weight = [math.floor(a) + s for a, s in zip(at, step, strict=True)], 1.0
            for a, p in zip(at, places, strict=True):
                d = np.abs(a - p)
                if mode == "bilinear":
                    weight *= max(0.0, 1 - d)
                else:
                    weight *= ((1.25 * d - 2.25) * d * d + 1) if d < 1 else -0.75 * (((d - 5) * d + 8) * d - 4)
            if mode == "bicubic":
                places = [moved(p, s) for p, s in zip(places, sizes, strict=True)]
            if weight:
                out[n, c][tuple(rest)] += weight * value(n, c, places)
    return out


def _line(n: int, dtype: np.dtype, align: bool) -> np.ndarray:
    """Coordinates of n places, rounded as PyTorch's. Under the identity each place is on a pixel, and rounding decides
    from which side its derivative is."""
    if n == 1:
        return np.zeros(1)
    left = np.arange(n) * np.longdouble(dtype.type(2) / dtype.type(n - 1)) - 1
    line = np.where(np.arange(n) < n // 2, left, -left[::-1]).astype(dtype)
    return line if align else line * dtype.type(n - 1) / dtype.type(n)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for `grid_sample` of affine maps: theta (x, y, 1) for each place (x, y) of the output.

    Shapes: theta (N, 2, 3) with size (N, C, H, W) -> (N, H, W, 2); theta (N, 3, 4) with size (N, C, D, H, W) -> (N, D,
    H, W, 3). `align_corners` as in `grid_sample`.
    """
    if not isinstance(theta, Tensor) or not is_float(theta.dtype):
        fail("affine_grid", "theta must be a floating-point tensor",
             theta.layout if isinstance(theta, Tensor) else type(theta).__name__)
    batch, _, *space = [int(n) for n in size] if len(size) in (4, 5) else (0, 0)
    dims = len(space)
    if not dims:
        fail("affine_grid", "size must be (N, C, H, W) or (N, C, D, H, W)", list(size), kind=NotImplementedError)
    if theta.ndim != 3 or tuple(theta.shape) != (batch, dims, dims + 1):
        fail("affine_grid", f"theta must be (N, {dims}, {dims + 1})", [theta.layout, f"size {list(size)}"],
             kind=ValueError)
    if min(space) < 1:
        fail("affine_grid", "the sizes must be positive", list(size), kind=ValueError)
    align = _warn_of_corners("affine_grid", align_corners)
    lines = [_line(n, np.dtype("f8" if theta.dtype == "f8" else "f4"), align) for n in space]
    base = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(space)], -1)
    points = as_tensor(base.reshape(-1, dims + 1), theta.dtype, theta.device)
    return matmul(points, theta.mT).reshape(batch, *space, dims)
