"""Samples of the standard gamma distribution and of their logarithms, with their gradient to the concentration.

A sample z of concentration a moves with a so that P(Z <= z; a) stays: dz/da = -(dP/da) / p(z) (Figurnov, Mohamed and
Mnih 2018, eq. 5). With P(Z <= z; a) = sum_k z^(a + k) e^-z / Gamma(a + k + 1) that is

    dz/da = -z/a sum_k r_k (log(z) - digamma(a + k + 1)),    r_0 = 1,  r_k = r_{k-1} z / (a + k)

Samples of small a are smaller than all numbers of a dtype; their logarithms are not: log(z) = log(y) + log(u) / a with
y of concentration a + 1 and u uniform (Marsaglia and Tsang 2000).

For a above 100,000 the series is long. There z = a + sqrt(a) n + (n^2 - 1) / 3 + ... with a normal n that does not
depend on a (Cornish and Fisher 1938), and dz/da = 1 + n / (2 sqrt(a)) up to a^(-3/2).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.function import Function, once_differentiable
from ..core.half import finfo
from ..core.tensor import Tensor
from ..devices.host import on_host
from ..ops.creation import empty_like
from ..ops.formula import clamp_min
from ..ops.math import digamma, log
from ..ops.random import randint

_LARGE = 1e5                        # the concentration from which the expansion is used


@on_host
def _draw(concentration: Any, seed: Any, out: Any) -> None:
    """Writes samples, drawn by NumPy from a stream that the two numbers of `seed` name."""
    stream = np.random.Generator(np.random.Philox(key=[int(s) for s in seed]))
    out[...] = stream.standard_gamma(concentration)


@on_host
def _draw_log(concentration: Any, seed: Any, out: Any) -> None:
    """Writes logarithms of samples."""
    stream = np.random.Generator(np.random.Philox(key=[int(s) for s in seed]))
    a = np.asarray(concentration, np.float64)
    out[...] = np.log(stream.standard_gamma(a + 1)) + np.log1p(-stream.random(a.shape)) / a


@on_host
def _slope(a: Any, psi: Any, log_z: Any, out: Any) -> None:
    """Writes d log(z) / da; `psi` is digamma(a + 1). All are float64."""
    with np.errstate(all="ignore"):
        z = np.exp(log_z)
        n = (z - a) / np.sqrt(a)
        n = n - (n * n - 1) / (3 * np.sqrt(a))
        out[...] = (1 + n / (2 * np.sqrt(a))) / z
        few = (a < _LARGE) & np.isfinite(log_z)
        a, psi, z, log_z = a[few], psi[few], z[few], log_z[few]
        ratio, k = np.ones_like(a), 0
        total = ratio * (log_z - psi)
        while ratio.size and ((z >= a + k) | (ratio > 1e-18)).any():
            k += 1
            ratio *= z / (a + k)
            psi = psi + 1 / (a + k)
            total += ratio * (log_z - psi)
        out[few] = -total / a


class _StandardGamma(Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor, logarithms: bool) -> Tensor:
        seed = randint(0, 1 << 62, (2,), device=concentration.device)
        given, out = concentration.detach().contiguous(), empty_like(concentration).contiguous()
        draw = _draw_log if logarithms else _draw
        out.device.host.call(draw, out.array.np, given.array.np, seed.array.np)
        if not logarithms:
            out = clamp_min(out, float(finfo(out.dtype).tiny))
        ctx.logarithms = logarithms
        ctx.save_for_backward(given, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        a, z = (t.double() for t in ctx.saved_tensors)
        log_z, slope = z if ctx.logarithms else log(z), empty_like(a)
        slope.device.host.call(_slope, slope.array.np, a.array.np, digamma(a + 1).array.np, log_z.array.np)
        return g * (slope if ctx.logarithms else z * slope).to(g.dtype), None


def standard_gamma(concentration: Tensor, logarithms: bool = False) -> Tensor:
    """Samples with density x^(a - 1) e^-x / Gamma(a), or their logarithms, one for each number a of `concentration`, in
    its shape and dtype, with their first derivative to a (RuntimeError for a second one). None is 0."""
    return _StandardGamma.apply(concentration, logarithms)
