"""`LocalResponseNorm` (Krizhevsky, Sutskever and Hinton 2012)."""
from __future__ import annotations

from ..core.half import rounds_once
from ..core.tensor import Tensor
from ..ops.arrange import pad
from .module import Module
from .pooling import avg_pool1d


@rounds_once
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha mean(x^2))^beta, the mean over `size` neighbouring channels; those outside count as 0 (Krizhevsky,
    Sutskever and Hinton 2012, section 3.3, with alpha as PyTorch divides it).

    Shapes: (N, C, *) -> same. ValueError for fewer than 3 dimensions.
    """
    if input.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    if not input.numel():
        return input
    squares = (input * input).flatten(2).movedim(1, -1)             # (N, space, C)
    mean = avg_pool1d(pad(squares, (size // 2, (size - 1) // 2)), size, 1).movedim(-1, 1).reshape(input.shape)
    return input / (mean * alpha + k) ** beta


class LocalResponseNorm(Module):
    """x / (k + alpha mean(x^2))^beta, the mean over `size` neighbouring channels (Krizhevsky et al. 2012)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> same"""
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
