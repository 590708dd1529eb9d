"""What PyTorch's dtypes tell, on NumPy's, which take no attributes but in the table that the interpreter keeps."""
from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np

from ..core.shape import is_float

_TOLD: dict[str, Any] = {"is_floating_point": property(is_float), "is_complex": property(lambda self: self.kind == "c"),
                         "is_signed": property(lambda self: self.kind not in "bu")}


def _table() -> Any:
    """The names of `numpy.dtype`: behind the view that `vars` gives."""
    return gc.get_referents(vars(np.dtype))[0]


def put_on() -> None:
    """`x.dtype.is_floating_point` and the like, in the whole process."""
    _table().update(_TOLD)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(np.dtype))


def take_off() -> None:
    """`numpy.dtype` as it was before."""
    for name in _TOLD:
        _table().pop(name, None)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(np.dtype))
