"""minigrad: a small tensor-and-autograd framework with normalization as a first-class op.

`dir(minigrad)` lists what is public. Type checkers and editors read the names in `__init__.pyi`, which
`tests/project/stubs.py` writes.
"""
from importlib import import_module as _import_module
from math import e, inf, nan, pi
from types import ModuleType as _ModuleType
from typing import Any as _Any

import numpy as _np

from . import ops as _ops
from .amp import autocast, get_autocast_dtype, is_autocast_enabled
from .core.capture import capture
from .core.display import set_printoptions
from .core.half import finfo
from .core.inference import inference_mode
from .core.messages import NoAttribute as _NoAttribute
from .core.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .core.op import op
from .core.shape import default_float as get_default_dtype
from .core.shape import set_default_float as set_default_dtype
from .core.tensor import Size, Tensor
from .devices import device, get_default_device, set_default_device
from .devices.base import Device
from .devices.memory import empty_cache
from .devices.native import get_num_threads, set_num_threads, simd_level
from .ops import *
from .ops.dispatch import set_fused

__version__ = "0.1.0"

float16 = half = _np.dtype("float16")
float32 = _np.dtype("float32")
float64 = double = _np.dtype("float64")
int8, int16, int32, int64 = (_np.dtype(f"int{_n}") for _n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (_np.dtype(f"uint{_n}") for _n in (8, 16, 32, 64))
short, long = int16, int64
dtype = _np.dtype
iinfo = _np.iinfo
newaxis = None
# these names hide Python's own, so they come last
float, int, bool = float32, int32, _np.dtype("bool")

_LAZY_NAMES = {**dict.fromkeys(("load", "save"), ".io"),
               **dict.fromkeys(("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"), ".nn.toplevel")}
_LAZY_MODULES = ("amp", "as_torch", "autograd", "bench", "cuda", "data", "distributed", "distributions", "func", "io",
                 "linalg", "masked", "nn", "optim", "signal", "special", "study", "testing", "utils")


def show_config() -> str:
    """Version, SIMD level, threads, and the GPU or the reason why there is none."""
    try:
        gpu = device("cuda").describe()          # type: ignore[attr-defined]
    except RuntimeError as reason:
        gpu = f"none: {reason}"
    return f"minigrad {__version__}\nSIMD level: {simd_level()}\nthreads: {get_num_threads()}\nGPU: {gpu}"


def __getattr__(name: str) -> _Any:
    """Submodules and ops that are imported when they are first asked for, `sin_(x)` for `x.sin_()`, and bfloat16,
    which needs ml_dtypes."""
    if name in _LAZY_MODULES:
        return _import_module(f".{name}", __name__)
    if name in _LAZY_NAMES:
        return getattr(_import_module(_LAZY_NAMES[name], __name__), name)
    if name == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            raise AttributeError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
        return _np.dtype(bfloat16)
    if name in _ops.later:
        globals()[name] = found = getattr(_ops, name)
        return found
    if name[-1:] == "_" != name[:1] and callable(getattr(Tensor, name, None)):
        return getattr(Tensor, name)
    raise _NoAttribute("module 'minigrad'", name, __dir__)


def __dir__() -> list[str]:
    """What is public: each name above without an underscore (the ops' too) that is no module, and what is lazy."""
    here = [name for name, value in globals().items() if name[0] != "_" and not isinstance(value, _ModuleType)]
    return list({*here, *_LAZY_MODULES, *_LAZY_NAMES, *_ops.later, "bfloat16"})
