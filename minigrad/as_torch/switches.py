"""What `torch` tells of its own state, and its functions of symbolic numbers, which are plain numbers here."""
from __future__ import annotations

import math
import operator
from contextlib import nullcontext
from functools import partial
from typing import Any

from .. import amp
from ..autograd import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from ..autograd import is_anomaly_enabled as is_anomaly_enabled
from ..autograd import set_detect_anomaly
from ..core.modes import mode
from ..core.tensor import Tensor

sym_float, sym_int, sym_max, sym_min, sym_sum = float, int, max, min, sum
sym_not, sym_sqrt = operator.not_, math.sqrt
set_anomaly_enabled = set_detect_anomaly
is_autocast_cpu_enabled = partial(amp.is_autocast_enabled, "cpu")
get_autocast_cpu_dtype = partial(amp.get_autocast_dtype, "cpu")
get_autocast_gpu_dtype = partial(amp.get_autocast_dtype, "cuda")


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


is_deterministic_algorithms_warn_only_enabled = is_warn_always_enabled
is_multithreading_enabled = is_warn_always_enabled


def is_inference_mode_enabled() -> bool:
    """Is this thread inside `inference_mode`? Tensors made there are as others."""
    return bool(mode.inference)


def set_multithreading_enabled(mode: bool) -> Any:
    """A block that changes nothing: one thread walks a graph."""
    return nullcontext()


def show() -> str:
    """What is running: `minigrad.show_config()`."""
    from .. import show_config
    return str(show_config())


parallel_info = show
