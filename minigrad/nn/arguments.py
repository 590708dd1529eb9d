"""The arguments of layers and of their functions: sizes, reductions, probabilities, `inplace=True`."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from minigrad.engine import mode, no_grad
from minigrad.shape import fail
from minigrad.tensor import Tensor, new_tensor


def check_probability(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) or not isinstance(shape, Sequence) else tuple(shape)


def check_batch_size(shape: Sequence[int], axis: int = 1) -> None:
    """A channel's variance needs more than one value: N times the space of (N, C, *)."""
    if math.prod(n for i, n in enumerate(shape) if i not in (axis, axis + len(shape))) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(shape)}")


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction's name, also from its old spelling."""
    if size_average is None and reduce is None:
        return reduction
    new = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, please use reduction='{new}' instead.", stacklevel=4)
    return new


def checked_reduction(reduction: str) -> str:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def write_back(name: str, input: Tensor, op: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """``inplace=True``: the result goes into ``input``'s memory. In a graph, the op is recorded on a copy of the old values and
    ``input`` takes the result's place in the graph; what was saved of it before is stale from then on, as in PyTorch."""
    if not (mode.grad and input.requires_grad):
        return input.copy_(op(input, *args, **options))
    if input.node is None:
        fail(name, "inplace=True cannot change a leaf that requires gradients", input.array.layout, "use inplace=False, or no_grad()")
    if input.array.storage is not input.array:
        raise NotImplementedError(f"[{name}] inplace=True changes a view of a tensor that is being recorded; use inplace=False, or clone()")
    with no_grad():
        before = input.clone()
    out = op(new_tensor(before.array, input.node), *args, **options)
    with no_grad():
        input.copy_(out)
    input.node = out.node
    return input


Size = int | Sequence[int]


def sizes_of(value: Size, dims: int, name: str = "", argument: str = "") -> tuple[int, ...]:
    """One number for all spatial dimensions, or one for each."""
    if isinstance(value, int):
        return (value,) * dims
    given = tuple(value)
    if len(given) == 1:
        given *= dims
    if len(given) != dims or not all(isinstance(n, int) for n in given):
        fail(name, f"{argument} must be a whole number or {dims} of them", f"{argument} {value}")
    return given


def hashable(value: Any) -> Any:
    """An argument in the form a function can be remembered by."""
    return tuple(value) if isinstance(value, list) else value
