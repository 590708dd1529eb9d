"""What `torch` tells of its own state, and its functions of symbolic numbers, which are plain numbers here."""
from __future__ import annotations

import math
import operator
from builtins import sum
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from .. import amp
from ..autograd import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from ..autograd import is_anomaly_enabled as is_anomaly_enabled
from ..autograd import set_detect_anomaly
from ..core.tensor import Tensor
from ..ops.creation import from_numpy, tensor

sym_float, sym_int, sym_max, sym_min, sym_not, sym_sqrt = float, int, max, min, operator.not_, math.sqrt
set_anomaly_enabled = set_detect_anomaly
is_autocast_cpu_enabled = partial(amp.is_autocast_enabled, "cpu")
get_autocast_cpu_dtype = partial(amp.get_autocast_dtype, "cpu")
get_autocast_gpu_dtype = partial(amp.get_autocast_dtype, "cuda")


def sym_sum(args: Iterable[Any]) -> Any:
    """The sum of the numbers."""
    return sum(args)


def sym_ite(b: bool, t: Any, f: Any) -> Any:
    """`t` if `b` holds, else `f`."""
    return t if b else f


def is_conj(input: Tensor) -> bool:
    """False: there are no complex numbers."""
    return False


is_neg = is_distributed = is_storage = is_conj


def is_warn_always_enabled() -> bool:
    """False: how often a warning is shown is up to Python's `warnings`."""
    return False


is_deterministic_algorithms_warn_only_enabled = is_autocast_cache_enabled = is_vulkan_available = is_warn_always_enabled


def from_file(filename: str, shared: bool | None = None, size: int | None = 0, *, dtype: Any = None,
              requires_grad: bool = False, **options: Any) -> Tensor:
    """The first `size` numbers of a file. With `shared`, changes are written into it, and a shorter file becomes
    longer; else they are a copy."""
    kind = np.dtype(dtype or tensor(0.0).dtype)
    if not shared:
        return tensor(np.fromfile(filename, kind, size or 0), requires_grad=requires_grad)
    with open(filename, "ab") as file:
        file.truncate(max(file.tell(), (size or 0) * kind.itemsize))
    values = np.memmap(filename, kind, "r+", shape=(size or 0,)).view(np.ndarray)
    return from_numpy(values).requires_grad_(requires_grad)


def set_multithreading_enabled(mode: bool) -> Any:
    """A block that changes nothing: one thread walks a graph."""
    from contextlib import nullcontext
    return nullcontext()


def show() -> str:
    """What is running: `minigrad.show_config()`."""
    from .. import show_config
    return str(show_config())


parallel_info = show
