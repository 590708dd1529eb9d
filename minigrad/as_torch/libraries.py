"""What libraries written on PyTorch import of its inner modules: names.py says from which."""
from __future__ import annotations

import pickle as pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from enum import IntEnum
from os import PathLike
from typing import IO, Any, TypeVar
from typing import Optional as _Optional

import numpy as np

from ..autograd.function import Function
from ..core.tensor import Tensor
from ..distributions import Gamma
from ..distributions.transforms import _Inverse
from ..func import places_of, swapped
from ..nn import Linear, Module, ModuleList
from ..nn import functional as F
from ..nn.init import _fan
from ..ops.join import cat
from .device import device
from .top import layout

Dict, List, Tuple, Optional = dict, list, tuple, _Optional
_InverseTransform = _Inverse
InplaceFunction, NonDynamicallyQuantizableLinear = Function, Linear
StateDict, Number, _size, _ratio_any_t = dict[str, Any], int | float | bool, Sequence[int], float | tuple[float, ...]
_int, _float, _bool, MAP_LOCATION = int, float, bool, Any
_device, _dtype, _layout, _TensorOrTensors = device, np.dtype, layout, Tensor | Sequence[Tensor]
Device, FileLike = Any, str | PathLike[str] | IO[bytes]
DEFAULT_PROTOCOL = 2
T_co = TypeVar("T_co", covariant=True)
_collate_fn_t, _worker_init_fn_t = Callable[[list[Any]], Any], Callable[[int], None]
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


@contextmanager
def _reparametrize_module(module: Module, parameters_and_buffers: dict[str, Tensor], tie_weights: bool = False,
                          strict: bool = False, stack_weights: bool = False) -> Iterator[None]:
    """A block in which the module has other parameters and buffers. KeyError for names that it does not have."""
    with swapped(parameters_and_buffers, places_of(module)):
        yield


def _sample_dirichlet(input: Tensor, generator: Any = None) -> Tensor:
    """Numbers from Dirichlet distributions: each row of the concentrations gives one."""
    found = _standard_gamma(input)
    return found / found.sum(-1, keepdim=True)


def boolean_dispatch(arg_name: str, arg_index: int, default: bool, if_true: Any, if_false: Any, module_name: Any = None,
                     func_name: Any = None) -> Any:
    """A function that is one of two, by the value of one of its arguments."""
    def dispatched(*args: Any, **named: Any) -> Any:
        chosen = named.get(arg_name, args[arg_index] if arg_index < len(args) else default)
        return (if_true if chosen else if_false)(*args, **named)
    return dispatched


def _overload(func: Any) -> Any:
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
