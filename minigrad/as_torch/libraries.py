"""What libraries written on PyTorch import of its inner modules: names.py says from which."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from enum import IntEnum
from typing import Any, TypeVar

from ..autograd.function import Function
from ..core.tensor import Tensor
from ..distributions import Gamma
from ..distributions.transforms import _Inverse
from ..nn import Linear, Module, ModuleList
from ..nn import functional as F
from ..nn.init import _fan
from ..ops.join import cat

Dict, List, Tuple = dict, list, tuple
_InverseTransform = _Inverse
InplaceFunction, NonDynamicallyQuantizableLinear = Function, Linear
StateDict, Number, _size, _ratio_any_t = dict[str, Any], int | float | bool, Sequence[int], float | tuple[float, ...]
_int, _float, _bool, MAP_LOCATION = int, float, bool, Any
T_co = TypeVar("T_co", covariant=True)
_calculate_correct_fan = _fan


class _DatasetKind(IntEnum):
    """Has a data set items by number, or does it give them in its own order?"""

    Map = 0
    Iterable = 1


def _flatten_dense_tensors(tensors: Any) -> Tensor:
    """The elements of all tensors, one after the other."""
    return cat([t.reshape(-1) for t in tensors])


def _unflatten_dense_tensors(flat: Tensor, tensors: Any) -> tuple[Tensor, ...]:
    """Parts of `flat` in the shapes of `tensors`."""
    parts = flat.split([t.numel() for t in tensors])
    return tuple(part.view(*t.shape) for part, t in zip(parts, tensors, strict=True))


def _get_clones(module: Module, N: int) -> ModuleList:
    """N copies of a module."""
    return ModuleList([deepcopy(module) for _ in range(N)])


def _get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    """relu or gelu, by name."""
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return F.relu if activation == "relu" else F.gelu


def _addindent(s_: str, numSpaces: int) -> str:
    """The text with all lines but the first moved to the right."""
    return s_.replace("\n", "\n" + " " * numSpaces)


def _sum_rightmost(value: Tensor, dim: int) -> Tensor:
    """The sum over the last `dim` dimensions."""
    return value.sum(tuple(range(-dim, 0))) if dim else value


def _standard_gamma(concentration: Tensor, generator: Any = None) -> Tensor:
    """Numbers from the gamma distribution of rate 1."""
    return Gamma(concentration, 1.0).rsample()


def default_restore_location(storage: Any, location: str) -> Any:
    """What was read, where it is."""
    return storage


def _use_grad_for_differentiable(func: Any) -> Any:
    """The function itself."""
    return func


def legacy_get_string(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    """The `reduction` that two older options mean."""
    return "none" if reduce is False else "sum" if size_average is False else "mean"


# ---- torch.cuda.nvtx ----

def range_push(msg: str) -> int:
    """Nothing: no ranges are marked."""
    return 0


def range_pop() -> int:
    """Nothing: no ranges are marked."""
    return 0


mark = range_push


@contextmanager
def _range(msg: str, *args: Any, **named: Any) -> Iterator[None]:
    """A block that changes nothing."""
    yield


def __getattr__(name: str) -> Any:
    """`range`, which is Python's in this file."""
    if name == "range":
        return _range
    raise AttributeError(name)
