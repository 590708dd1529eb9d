"""Windows for spectra, with the names of `torch.signal.windows` (Harris 1978, "On the use of windows for harmonic
analysis with the discrete Fourier transform").

A window has M values w(k), k = 0 to M - 1. N below is M - 1, or M with `sym=False`: then it is one period of a periodic
window. All are computed in float64; `dtype` is float32 or float64, the default float dtype by default. ValueError for
another dtype, M < 0, or a parameter that has no sense; TypeError for what is no number.

>>> hann(4, sym=False)
tensor([0.0000, 0.5000, 1.0000, 0.5000])
"""
from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..core.shape import default_float, fail
from ..core.tensor import Tensor
from ..ops.arguments import is_number
from ..ops.creation import tensor

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming",
           "hann", "kaiser", "nuttall"]


class _NoFloat(ValueError, RuntimeError):
    """PyTorch raises the one in `signal.windows`, the other in `hann_window` and its like."""


def _window(shape: Callable[..., Any]) -> Callable[..., Tensor]:
    """A function of M and options from `shape(k, N, sym, **options)`, which gives the values."""
    own = list(signature(shape).parameters.values())[3:]
    known = [p.name for p in own]

    @wraps(shape)
    def window(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, **options: Any) -> Tensor:
        name, kind = shape.__name__, default_float() if dtype is None else np.dtype(dtype)
        if not hasattr(M, "__index__"):
            fail(name, "M must be a whole number", repr(M), "use int(M)", TypeError)
        M = operator.index(M)
        if M < 0:
            fail(name, "M must not be negative", M, kind=ValueError)
        if kind not in (np.dtype("float32"), np.dtype("float64")) or str(layout) not in ("None", "torch.strided"):
            fail(name, "dtype must be float32 or float64, and layout None", [kind, layout], kind=_NoFloat)
        if not options.keys() <= {*known}:
            raise TypeError(f"[{name}] its options are {', '.join(known)}, sym, dtype, device and requires_grad")
        for p in own:
            value = options.get(p.name, p.default)
            if p.default is not p.empty and value is not p.default and not is_number(value):
                fail(name, f"{p.name} must be a number", repr(value), "use float()", TypeError)
        values = shape(np.arange(M, dtype=np.float64), max(M - sym, 1), sym, **options)
        return tensor(np.ones(1) if M == 1 else values, dtype=kind, device=device, requires_grad=requires_grad)
    common = [p for p in signature(window, follow_wrapped=False).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
    window.__signature__ = signature(window, follow_wrapped=False).replace(             # type: ignore[attr-defined]
        parameters=[common[0], *[p.replace(kind=Parameter.KEYWORD_ONLY) for p in own], *common[1:]])
    return window


def _cosines(k: Any, N: int, a: Any) -> Any:
    return sum((-1) ** i * c * np.cos(2 * math.pi * i * k / N) for i, c in enumerate(a))


def _positive(name: str, value: float) -> float:
    if not value > 0:
        fail(name, "its parameter must be positive", value, kind=ValueError)
    return value


@_window
def general_cosine(k: Any, N: int, sym: bool, a: Any) -> Any:
    """w(k) = sum over i of (-1)^i a[i] cos(2 pi i k / N)."""
    if not hasattr(a, "__len__") or isinstance(a, str):
        raise TypeError(f"[general_cosine] a must be a list of numbers; got {type(a).__name__}")
    if not len(a):
        fail("general_cosine", "a must have at least one number", a, kind=ValueError)
    return _cosines(k, N, a)


@_window
def general_hamming(k: Any, N: int, sym: bool, alpha: float = 0.54) -> Any:
    """w(k) = alpha - (1 - alpha) cos(2 pi k / N)."""
    return _cosines(k, N, (alpha, 1 - alpha))


@_window
def hamming(k: Any, N: int, sym: bool) -> Any:
    """w(k) = 0.54 - 0.46 cos(2 pi k / N)."""
    return _cosines(k, N, (0.54, 0.46))


@_window
def hann(k: Any, N: int, sym: bool) -> Any:
    """w(k) = (1 - cos(2 pi k / N)) / 2."""
    return _cosines(k, N, (0.5, 0.5))


@_window
def blackman(k: Any, N: int, sym: bool) -> Any:
    """w(k) = 0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)."""
    return _cosines(k, N, (0.42, 0.5, 0.08))


@_window
def nuttall(k: Any, N: int, sym: bool) -> Any:
    """w(k) = 0.3635819 - 0.4891775 cos(2 pi k / N) + 0.1365995 cos(4 pi k / N) - 0.0106411 cos(6 pi k / N): the minimum
    window of four terms (Nuttall 1981, "Some windows with very good sidelobe behavior", figure 12)."""
    return _cosines(k, N, (0.3635819, 0.4891775, 0.1365995, 0.0106411))


@_window
def bartlett(k: Any, N: int, sym: bool) -> Any:
    """w(k) = 1 - |2 k / N - 1|: a triangle."""
    return 1 - np.abs(2 * k / N - 1)


@_window
def cosine(k: Any, N: int, sym: bool) -> Any:
    """w(k) = sin(pi (k + 1/2) / (N + 1))."""
    return np.sin(math.pi * (k + 0.5) / (N + 1))


@_window
def exponential(k: Any, N: int, sym: bool, center: float | None = None, tau: float = 1.0) -> Any:
    """w(k) = e^(-|k - center| / tau); center is N / 2 by default, and always with `sym`."""
    if sym and center is not None:
        fail("exponential", "a symmetric window has its center in the middle", center, "sym=False", ValueError)
    return np.exp(-np.abs(k - (N / 2 if center is None else center)) / _positive("exponential", tau))


@_window
def gaussian(k: Any, N: int, sym: bool, std: float = 1.0) -> Any:
    """w(k) = e^(-(k - N / 2)^2 / (2 std^2))."""
    return np.exp(-((k - N / 2) / _positive("gaussian", std)) ** 2 / 2)


@_window
def kaiser(k: Any, N: int, sym: bool, beta: float = 12.0) -> Any:
    """w(k) = i0(beta sqrt(1 - (2 k / N - 1)^2)) / i0(beta) (Kaiser and Schafer 1980)."""
    if not 0 <= beta < math.inf:
        fail("kaiser", "beta must be finite and not negative", beta, kind=ValueError)
    from ..ops.special import scaled_i
    root = np.sqrt(np.maximum(1 - (2 * k / N - 1) ** 2, 0))
    return np.exp(beta * (root - 1)) * scaled_i(0, beta * root) / scaled_i(0, np.array([float(beta)]))
