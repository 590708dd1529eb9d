"""Parameters as one vector and back."""
from __future__ import annotations

from collections.abc import Iterable

from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...ops.join import cat


def _one_device(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list; TypeError if they are on different devices."""
    found = list(parameters)
    if len({str(p.device) for p in found}) > 1:
        raise TypeError("[parameters_to_vector] all parameters must be on one device; "
                        f"got {', '.join(sorted({str(p.device) for p in found}))}")
    return found


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All values of `parameters`, one after the other: shape (sum of sizes,). Differentiable."""
    return cat([p.reshape(-1) for p in _one_device(parameters)])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Writes slices of `vec`, of shape (sum of sizes,), into `parameters`, in order."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"[vector_to_parameters] vec must be a Tensor; got {type(vec).__name__}")
    start = 0
    with no_grad():
        for p in _one_device(parameters):
            p.copy_(vec[start:start + p.numel()].reshape(p.shape))
            start += p.numel()
