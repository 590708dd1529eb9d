"""Samples of the standard gamma distribution, with their gradient to the concentration.

A sample z of concentration a moves with a so that P(Z <= z; a) stays: dz/da = -(dP/da) / p(z) (Figurnov, Mohamed and
Mnih 2018, eq. 5). With P(Z <= z; a) = sum_k z^(a + k) e^-z / Gamma(a + k + 1) that is

    dz/da = -z/a sum_k r_k (log(z) - digamma(a + k + 1)),    r_0 = 1,  r_k = r_{k-1} z / (a + k)

For a above 100,000 the series is long. There z = a + sqrt(a) n + (n^2 - 1) / 3 + ... with a normal n that does not
depend on a (Cornish and Fisher 1938), and dz/da = 1 + n / (2 sqrt(a)) up to a^(-3/2).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.function import Function, once_differentiable
from ..core.tensor import Tensor
from ..devices.host import on_host
from ..ops.creation import empty_like
from ..ops.math import digamma
from ..ops.random import randint

_LARGE = 1e5                        # the concentration from which the expansion is used


@on_host
def _draw(concentration: Any, seed: Any, out: Any) -> None:
    """Writes samples, drawn by NumPy from a stream that the two numbers of `seed` name."""
    stream = np.random.Generator(np.random.Philox(key=[int(s) for s in seed]))
    out[...] = stream.standard_gamma(concentration)


@on_host
def _slope(a: Any, psi: Any, z: Any, out: Any) -> None:
    """Writes dz/da; `psi` is digamma(a + 1). All are float64."""
    with np.errstate(all="ignore"):
        n = (z - a) / np.sqrt(a)
        n = n - (n * n - 1) / (3 * np.sqrt(a))
        out[...] = 1 + n / (2 * np.sqrt(a))
        few = (a < _LARGE) & (z > 0) & np.isfinite(z)
        a, psi, z = a[few], psi[few], z[few]
        ratio, log_z, k = np.ones_like(a), np.log(z), 0
        total = ratio * (log_z - psi)
        while ratio.size and ((z >= a + k) | (ratio > 1e-18)).any():
            k += 1
            ratio *= z / (a + k)
            psi = psi + 1 / (a + k)
            total += ratio * (log_z - psi)
        out[few] = -z / a * total


class _StandardGamma(Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor) -> Tensor:
        seed = randint(0, 1 << 62, (2,), device=concentration.device)
        given, out = concentration.detach().contiguous(), empty_like(concentration).contiguous()
        out.device.host.call(_draw, out.array.np, given.array.np, seed.array.np)
        ctx.save_for_backward(given, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        a, z = (t.double() for t in ctx.saved_tensors)
        slope = empty_like(a)
        slope.device.host.call(_slope, slope.array.np, a.array.np, digamma(a + 1).array.np, z.array.np)
        return g * slope.to(g.dtype)


def standard_gamma(concentration: Tensor) -> Tensor:
    """Samples with density x^(a - 1) e^-x / Gamma(a), one for each number a of `concentration`, in its shape and dtype,
    with their first derivative to a (RuntimeError for a second one)."""
    return _StandardGamma.apply(concentration)
