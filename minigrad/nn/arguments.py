"""What layers and their functions share about arguments: types, sizes, reductions, probabilities and `inplace=True`."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import numpy as np

from ..core.inplace import change, involved
from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices.base import Device

Size = int | Sequence[int]                      # one number for all spatial dimensions, or one for each
DeviceLike = Device | str | None                # None: the default device
DtypeLike = np.dtype | type | str | None        # None: the default dtype


def as_shape(shape: Size) -> tuple[int, ...]:
    """`normalized_shape` as a tuple: a number is one dimension."""
    return (shape,) if isinstance(shape, int) or not isinstance(shape, Sequence) else tuple(shape)


def check_batch_size(shape: Sequence[int], axis: int = 1) -> None:
    """Raises ValueError if a channel of an input (N, C, *) has one value only: its variance needs more."""
    if math.prod(shape[:axis]) * math.prod(shape[axis:][1:]) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(shape)}")


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The name of the reduction; PyTorch's old spelling, `size_average` and `reduce`, still works and warns."""
    if size_average is None and reduce is None:
        return reduction
    if isinstance(size_average, Tensor):
        raise TypeError("[loss] size_average must be None, True or False; got a Tensor; a loss is made first and then "
                        "called: nn.MSELoss()(input, target)")
    new = "none" if reduce is False else "sum" if size_average is False else "mean"
    warn(f"size_average and reduce are the old spelling of a reduction; use reduction='{new}' instead")
    return new


def checked_reduction(reduction: str) -> str:
    """`reduction` if it is "none", "mean" or "sum"; else raises ValueError."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction; use 'none', 'mean' or 'sum'")
    return reduction


def write_back(name: str, input: Tensor, op: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """What `inplace=True` does: `op(input, *args, **options)` is written into the memory of `input`, which is returned.

    In a graph, `input` becomes the op's result. What other ops saved of `input` before is stale from then on, as in
    PyTorch. RuntimeError for a leaf that requires gradients.
    """
    if involved(input):
        return change(name, input, lambda old: op(old, *args, **options))
    return input.copy_(op(input, *args, **options))


def sizes_of(value: Size, dims: int, name: str = "", argument: str = "") -> tuple[int, ...]:
    """A size for each of `dims` spatial dimensions: one number stands for all of them."""
    if isinstance(value, int):
        return (value,) * dims
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(given) == 1:
        given *= dims
    whole = all(hasattr(n, "__index__") for n in given)         # NumPy's numbers, too
    if whole:
        given = tuple(map(index, given))
    if len(given) != dims or not whole:
        fail(name, f"{argument} must be a whole number or {dims} of them", f"{argument} {value!r}",
             kind=RuntimeError if whole else TypeError)
    return given


def hashable(value: Any) -> Any:
    """An argument as a key of `lru_cache`: lists become tuples."""
    return tuple(value) if isinstance(value, list) else value
