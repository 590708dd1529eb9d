"""Normalization over features (layer, RMS), over the batch (batch), over groups of channels (group, instance)."""
from __future__ import annotations

from typing import Any

from ..device import KernelTable
from ..memory import Array, Layout, alloc, layout
from ..op import op
from ..shape import fail, is_float
from ..tensor import Tensor
from .elementwise import add, mul, rsqrt, sub
from .reduce import mean

__all__ = ["layer_norm"]


def _chunks(rows: int) -> int:
    """How many partial sums over rows norm.c keeps (MG_CHUNKS in native/minigrad.h)."""
    return 1 if rows <= 32 else (rows + 31) // 32 if rows <= 4096 else 128


@op
def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Layer normalization (Ba, Kiros and Hinton 2016, eq. 4), over the last dimensions.

        y = (x - mean) / sqrt(var + eps) * weight + bias,      mean and biased variance over `normalized_shape`

    Shapes: x (*, *normalized_shape), weight and bias normalized_shape or None -> y like x.
    """
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    centered = sub(x, mean(x, axes, True))
    y = mul(centered, rsqrt(add(mean(mul(centered, centered), axes, True), eps)))
    if weight is not None:
        y = mul(y, weight)
    return y if bias is None else add(y, bias)


@layer_norm.check
def _layer_norm_rule(x: Layout, weight: Layout | None, bias: Layout | None, *, normalized_shape: tuple[int, ...], eps: float = 1e-5) -> None:
    n = len(normalized_shape)
    if n == 0 or x.shape[x.ndim - n:] != tuple(normalized_shape) or x.ndim < n:
        fail("layer_norm", "normalized_shape must be the trailing sizes of x", [f"x {x}", f"normalized_shape {list(normalized_shape)}"])
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and p.shape != tuple(normalized_shape):
            fail("layer_norm", f"{name} must have the shape normalized_shape", [f"{name} {p}", f"normalized_shape {list(normalized_shape)}"])
    if not is_float(x.dtype):
        fail("layer_norm", "x must be floating point", x, "convert with .float()")


@layer_norm.fused
def _layer_norm_kernels(kernels: KernelTable, x: Layout, weight: Layout | None, bias: Layout | None, *,
                        normalized_shape: tuple[int, ...], eps: float = 1e-5) -> Any:
    forward, backward = kernels.layer_norm_forward[x.dtype], kernels.layer_norm_backward[x.dtype]
    same_dtypes("layer_norm", x, weight, bias)
    n = 1
    for size in normalized_shape:
        n *= size
    rows = x.size // n if n else 0
    statistic = layout(x.device, x.dtype, (rows,))
    partial = layout(x.device, x.dtype, (_chunks(rows) * 2 * n,))

    def run_forward(xa: Array, wa: Array | None, ba: Array | None) -> Any:
        y, mu, rstd = alloc(x), alloc(statistic), alloc(statistic)
        forward.call(y.ptr, mu.ptr, rstd.ptr, xa.ptr, wa.ptr if wa else 0, ba.ptr if ba else 0, rows, n, eps)
        return y, (xa, mu, rstd, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, mu, rstd, wa = saved
        need_x, need_w, need_b = needs
        gx = alloc(x) if need_x else None
        gw = alloc(weight) if need_w else None          # type: ignore[arg-type]
        gb = alloc(bias) if need_b else None            # type: ignore[arg-type]
        scratch = alloc(partial) if need_w or need_b else None
        backward.call(gx.ptr if gx else 0, gw.ptr if gw else 0, gb.ptr if gb else 0, scratch.ptr if scratch else 0,
                      g.ptr, xa.ptr, mu.ptr, rstd.ptr, wa.ptr if wa else 0, rows, n)
        return [gx, gw, gb]
    return run_forward, run_backward


def same_dtypes(name: str, x: Layout, *others: Layout | None) -> None:
    """Kernels take one dtype; a mixture goes by the definition."""
    from ..device import NoKernel
    for o in others:
        if o is not None and o.dtype != x.dtype:
            raise NoKernel(f"{name} kernels take one dtype; got {x.dtype} and {o.dtype}")


@layer_norm.reference
def _layer_norm_oracle(x: Any, weight: Any, bias: Any, *, normalized_shape: tuple[int, ...], eps: float = 1e-5) -> Any:
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / (x.var(axes, keepdims=True) + eps) ** 0.5
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


@layer_norm.samples
def _layer_norm_samples(make: Any) -> Any:
    for shape, normalized in (((4, 33), (33,)), ((2, 3, 5), (3, 5)), ((7, 1), (1,)), ((1, 32), (32,)), ((3, 31), (31,)), ((0, 4), (4,))):
        yield make(*shape), make(*normalized), make(*normalized), {"normalized_shape": normalized}
    yield make(4, 16), None, None, {"normalized_shape": (16,)}
    yield make(4, 16), make(16), None, {"normalized_shape": (16,), "eps": 0.1}
    yield make(4, 64, low=9999, high=10001), make(64), make(64), {"normalized_shape": (64,)}


@layer_norm.errors
def _layer_norm_errors(make: Any) -> Any:
    yield (make(4, 8), make(7), None, {"normalized_shape": (8,)}), RuntimeError, r"weight .*\[7\].*\[8\]"
    yield (make(4, 8), None, None, {"normalized_shape": (4,)}), RuntimeError, "trailing sizes"
