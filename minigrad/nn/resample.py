"""Resizing images and signals: `interpolate`, its older names, and the layers `Upsample...`.

Each dimension is resized by itself. An output element is a sum of few input elements (`_Taps`): one for "nearest", two
for "linear", four for "cubic"; with `antialias`, as many as lie under it. Read `_taps`, then `interpolate`.
"""
from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.shape import FLOAT32, fail, is_float
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..ops.convert import cast
from ..ops.creation import number
from ..ops.formula import clamp, formula
from ..ops.math import add, copy, floor, mul
from ..ops.matmul import matmul
from ..ops.take import take_at
from .arguments import Size
from .module import Module
from .pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

_RANKS = {"linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,), "nearest": (3, 4, 5),
          "nearest-exact": (3, 4, 5), "area": (3, 4, 5)}
_KINDS = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}
_MOST = 1 << 60                             # elements: no memory holds them
_AREA = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)


# ---- which elements, with which weights -----------------------------------------------------------------------------

def keys_kernel(x: np.ndarray, a: float) -> np.ndarray:
    """Cubic convolution (Keys 1981, eq. 4): a piecewise cubic of |x| < 2 with the free number a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _taps(n: int, out: int, scale: float, kind: str, align: bool) -> tuple[np.ndarray, np.ndarray]:
    """The places in a line of n elements, and the weights, of which each of `out` elements is a sum: (taps, out) both.
    `scale` is how far apart neighbours of the output lie in the input."""
    to = np.arange(out)
    if kind.startswith("nearest"):
        shift = np.float32(0.5 if kind == "nearest-exact" else 0)
        at = np.floor((to.astype(np.float32) + shift) * np.float32(scale)).astype(np.int64)
        return np.minimum(at, n - 1)[None], np.ones((1, out))
    at = to * scale if align else (to + 0.5) * scale - 0.5
    if kind == "linear":
        at = np.maximum(at, 0)
        first = np.minimum(np.floor(at).astype(np.int64), n - 1)
        share = np.clip(at - first, 0, 1)
        return np.stack([first, np.minimum(first + 1, n - 1)]), np.stack([1 - share, share])
    first = np.floor(at).astype(np.int64)
    places = first + np.arange(-1, 3)[:, None]
    return np.clip(places, 0, n - 1), keys_kernel(at - places, -0.75)


def _smooth(n: int, out: int, scale: float, kind: str) -> np.ndarray:
    """The matrix (out, n) that resizes with a filter as wide as an output element: no aliasing."""
    wide = max(scale, 1.0)
    centre = (np.arange(out)[:, None] + 0.5) * scale
    distance = (np.arange(n) + 0.5 - centre) / wide
    weights = keys_kernel(distance, -0.5) if kind == "cubic" else np.maximum(1 - np.abs(distance), 0)
    return weights / weights.sum(1, keepdims=True)


@lru_cache(maxsize=256)
def _tables(n: int, out: int, scale: float, kind: str, align: bool, smooth: bool, dtype: Any, device: Any) -> Any:
    """The tables of `_taps` as tensors, one pair for each tap, or the matrix of `_smooth`."""
    def tensor(values: np.ndarray) -> Tensor:
        return new_tensor(device.upload(values), None)
    if smooth:
        return tensor(_smooth(n, out, scale, kind).T.astype(dtype))
    return [(tensor(np.ascontiguousarray(i)), tensor(w.astype(dtype)))
            for i, w in zip(*_taps(n, out, scale, kind, align), strict=True)]


def _resized(x: Tensor, axis: int, out: int, scale: float, kind: str, align: bool, smooth: bool) -> Tensor:
    """x with `out` elements along an axis."""
    n = x.shape[axis]
    if n == out and (scale == 1 or align):
        return x
    dtype = x.dtype if is_float(x.dtype) else np.dtype("float32")
    tables = _tables(n, out, scale, kind, align, smooth, dtype, x.layout.device)
    if smooth:
        return matmul(x.movedim(axis, -1), tables).movedim(-1, axis)
    total = None
    for index, weight in tables:
        part = take_at(x, index, axis, 1)
        if kind.startswith("nearest"):
            return part
        part = mul(part, weight.reshape(-1, *(1,) * (x.ndim - 1 - axis)))
        total = part if total is None else add(total, part)
    return total                        # type: ignore[return-value]


# ---- the functions ---------------------------------------------------------------------------------------------------

def _sizes(input: Tensor, size: Any, scale_factor: Any, recompute: bool | None) -> tuple[list[int], list[float | None]]:
    """The output sizes, and the scale factors that count instead of the sizes' quotients."""
    dims = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("[interpolate] either size or scale_factor must be given, not both; "
                         f"got size {size}, scale_factor {scale_factor}")
    which = scale_factor if size is None else size
    given = list(which) if isinstance(which, (tuple, list)) else [which] * dims
    if len(given) != dims:
        raise ValueError(f"[interpolate] needs a number, or one for each of {dims} spatial dimensions; got {given}; "
                         f"input {input.layout}")
    if size is not None:
        if recompute:
            raise ValueError("[interpolate] recompute_scale_factor needs a scale_factor; got size")
        try:
            return [operator.index(n) for n in given], [None] * dims
        except TypeError:
            raise TypeError(f"[interpolate] expected size to be one of int or a tuple of them; got {given}") from None
    out = [math.floor(n * s) if abs(s) < 1e18 else _MOST for n, s in zip(input.shape[2:], given, strict=True)]
    return out, [None if recompute else float(number("interpolate", "scale_factor", s)) for s in given]


def _check(input: Tensor, mode: str, align_corners: bool | None, antialias: bool, out: Sequence[int]) -> None:
    if mode not in _RANKS:
        raise NotImplementedError(f"[interpolate] mode must be one of {', '.join(_RANKS)}; got {mode!r}")
    if input.ndim not in _RANKS[mode]:
        ranks = " or ".join(map(str, _RANKS[mode]))
        fail("interpolate", f"mode {mode!r} needs an input of {ranks} dimensions (N, C, *)", input.layout,
             kind=NotImplementedError)
    if align_corners is not None and (mode.startswith("nearest") or mode == "area"):
        raise ValueError(f"[interpolate] align_corners goes with linear and cubic modes; got mode {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"[interpolate] antialias goes with 'bilinear' and 'bicubic'; got mode {mode!r}")
    if min(out) < 1 or not input.shape[1] or not math.prod(input.shape[2:]):
        fail("interpolate", "the channels and all sizes, of input and output, must be positive",
             [input.layout, f"output {list(out)}"])
    if math.prod(out) >= _MOST:
        fail("interpolate", "the output is too large", [input.layout, f"output {list(out)}"])
    if not is_float(input.dtype) and not mode.startswith("nearest") and not _of_bytes(input, mode):
        fail("interpolate", f"mode {mode!r} needs a floating-point input", input.layout, "convert with .float()",
             NotImplementedError)


def _of_bytes(input: Tensor, mode: str) -> bool:
    return input.dtype == np.uint8 and mode in ("bilinear", "bicubic")


@formula
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Input (N, C, *) resized in its one to three spatial dimensions to `size`, or by `scale_factor` (each a number,
    or one for each dimension; the size is rounded down).

    mode: "nearest", "nearest-exact" (rounds at the middle of an element), "linear", "bilinear", "trilinear" (for one,
    two, three dimensions), "bicubic" (Keys 1981, a = -0.75), "area" (`adaptive_avg_pool`). An element covers an
    interval of length 1; with `align_corners` the middles of the outermost elements are kept instead. With
    `recompute_scale_factor` the sizes' quotient counts, not `scale_factor`. `antialias` (bilinear and bicubic) filters
    where the output is smaller. ValueError or NotImplementedError for options that do not fit. Bilinear and bicubic
    also take uint8, and round after each dimension, the last one first.

    >>> nn.functional.interpolate(minigrad.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    out, scales = _sizes(input, size, scale_factor, recompute_scale_factor)
    _check(input, mode, align_corners, antialias, out)
    if mode == "area":
        return _AREA[input.ndim - 3](input, tuple(out))
    align, kind, whole = bool(align_corners), _KINDS.get(mode, mode), _of_bytes(input, mode)
    found = cast(input, FLOAT32) if whole else input
    for i in range(len(out))[::-1 if whole else 1]:
        n, m, factor = input.shape[2 + i], out[i], scales[i]
        scale = (n - 1) / max(m - 1, 1) * (m > 1) if align else 1 / factor if factor else n / m
        found = _resized(found, 2 + i, m, scale, kind, align, antialias)
        found = floor(clamp(found, 0, 255) + 0.5) if whole else found
    return cast(found, input.dtype) if whole else copy.call(found) if found is input else found


@interpolate.samples
def _interpolate_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 1, 5), 7, {"mode": "linear"}
    yield make(1, 2, 3, 4), None, 2.0, {"mode": "nearest"}
    yield make(1, 2, 5, 4), (3, 9), {"mode": "bilinear"}
    yield make(1, 2, 5, 4), (3, 9), {"mode": "bilinear", "align_corners": True}
    yield make(1, 1, 5, 6), (7, 3), {"mode": "bicubic"}
    yield make(1, 1, 5, 6), (7, 3), {"mode": "bicubic", "antialias": True}
    yield make(1, 1, 2, 3, 2), (3, 2, 5), {"mode": "trilinear"}
    yield make(1, 1, 6, 7), (4, 2), {"mode": "area"}
    yield make(1, 1, 5), None, 0.5, {"mode": "nearest-exact"}


@interpolate.errors
def _interpolate_errors(make: Any) -> Iterator[tuple]:
    yield (make(1, 1, 3), {}), ValueError, "either size or scale_factor"
    yield (make(1, 1, 3), (3, 3), {}), ValueError, "one for each of 1"
    yield (make(1, 1, 3), 3, {"mode": "bilinear"}), NotImplementedError, "4 dimensions"
    yield (make(1, 1, 3), 3, {"align_corners": True}), ValueError, "align_corners"
    yield (make(1, 1, 3), 3, {"mode": "linear", "antialias": True}), ValueError, "antialias"
    yield (make(1, 1, 3), 0, None, {"mode": "linear"}), RuntimeError, "positive"
    for size in (3.0, "3", [3.0]):
        yield (make(1, 1, 3), size, {}), TypeError, "expected size to be one of int"
    for factor in (1e20, -1e20, math.inf, math.nan):
        yield (make(1, 1, 3, 3), None, factor, {}), RuntimeError, "too large|positive"
    yield (make(1, 1, 3), 3, {"mode": "sinc"}), NotImplementedError, "mode must be"


def _line(x: Any, out: int, scale: float, kind: str, align: bool, smooth: bool) -> Any:
    """One line resized, element by element."""
    y = np.zeros(out)
    for o in range(out):
        if smooth:
            wide, centre = max(scale, 1), (o + 0.5) * scale
            w = [float(keys_kernel(np.array((i + 0.5 - centre) / wide), -0.5)) if kind == "cubic" else
                 max(0, 1 - abs(i + 0.5 - centre) / wide) for i in range(len(x))]
            y[o] = sum(a * b for a, b in zip(w, x, strict=True)) / sum(w)
            continue
        at = o * scale if align else (o + 0.5) * scale - 0.5
        if kind == "nearest":
            y[o] = x[min(int(o * scale), len(x) - 1)]
        elif kind == "nearest-exact":
            y[o] = x[min(int((o + 0.5) * scale), len(x) - 1)]
        elif kind == "linear":
            at = max(at, 0)
            i = min(int(at), len(x) - 1)
            y[o] = x[i] + (at - i) * (x[min(i + 1, len(x) - 1)] - x[i])
        else:
            i = math.floor(at)
            y[o] = sum(float(keys_kernel(np.array(at - j), -0.75)) * x[min(max(j, 0), len(x) - 1)]
                       for j in range(i - 1, i + 3))
    return y


@interpolate.reference
def _interpolate_oracle(x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                        align_corners: bool = False, antialias: bool = False) -> Any:
    kind = _KINDS.get(mode, mode)
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        given = size[axis - 2] if isinstance(size, tuple) else size
        out = int(n * scale_factor) if scale_factor else given
        scale = (n - 1) / (out - 1) if align_corners else 1 / scale_factor if scale_factor else n / out
        if mode == "area":
            parts = [np.take(x, range(o * n // out, -(-(o + 1) * n // out)), axis).mean(axis) for o in range(out)]
            x = np.stack(parts, axis)
        else:
            x = np.apply_along_axis(_line, axis, x, out, scale, kind, align_corners, antialias)
    return x


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """The older name of `interpolate`; it warns."""
    warn("[upsample] is the older name; use interpolate")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"; it warns."""
    warn("[upsample_nearest] is the older name; use interpolate")
    return interpolate(input, size, scale_factor)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and `align_corners`; it warns."""
    warn("[upsample_bilinear] is the older name; use interpolate")
    return interpolate(input, size, scale_factor, "bilinear", True)


class Upsample(Module):
    """Resizes (N, C, *) by `interpolate`, with its options.

        >>> nn.Upsample(scale_factor=2)(minigrad.zeros(1, 3, 4, 4)).shape
        Size([1, 3, 8, 8])
    """

    def __init__(self, size: Size | None = None, scale_factor: Any = None, mode: str = "nearest",
                 align_corners: bool | None = None, recompute_scale_factor: bool | None = None) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.size, self.mode, self.align_corners = size, mode, align_corners
        several = isinstance(scale_factor, (tuple, list))
        self.scale_factor = (tuple([float(s) for s in scale_factor]) if several else
                             float(scale_factor) if scale_factor else None)
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> (N, C, *), resized."""
        return interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners,
                           self.recompute_scale_factor)

    def extra_repr(self) -> str:
        how = f"scale_factor={self.scale_factor}" if self.scale_factor is not None else f"size={self.size}"
        return f"{how}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images with mode "nearest"."""

    def __init__(self, size: Size | None = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images with mode "bilinear" and `align_corners`."""

    def __init__(self, size: Size | None = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)
