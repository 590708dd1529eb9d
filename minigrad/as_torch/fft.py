"""What `torch.fft` has for real numbers: the order of frequencies."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.arrange import roll
from ..ops.creation import arange

__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]


def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The halves along `dim`, all if None, exchanged: the frequency 0 comes to the middle."""
    return _shifted(input, dim, 0)


def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The reverse of `fftshift`."""
    return _shifted(input, dim, 1)


def _shifted(input: Any, dim: Any, up: int) -> Tensor:
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return roll(input, [(input.shape[d] + up) // 2 for d in dims], list(dims)) if len(dims) else input.clone()


def fftfreq(n: int, d: float = 1.0, **options: Any) -> Tensor:
    """The frequencies 0, 1, ..., -2, -1 of a transform of n numbers, over n d."""
    k: Any = arange(n, **options)
    return (k - n * (k >= (n + 1) // 2)) / (n * d)      # type: ignore[no-any-return]


def rfftfreq(n: int, d: float = 1.0, **options: Any) -> Tensor:
    """The frequencies 0, 1, ..., n // 2, over n d."""
    return arange(n // 2 + 1, **options) / (n * d)      # type: ignore[return-value, operator]
