"""What only the host computes: LAPACK, and functions of NumPy's that CuPy lacks or that differ there. Read `cuda.py`
first."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from .memory import Layout


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `function(*arrays, out)` for `host` launches: it gets NumPy arrays on any device. On a GPU these are
    copies, which the launch waits for, and the result is copied back."""
    @wraps(function)
    def run(*arrays: Any, out: Any) -> None:
        if isinstance(out, np.ndarray):
            function(*arrays, out=out)
        else:
            result = np.empty(out.shape, out.dtype)
            function(*[a.get() for a in arrays], out=result)
            out.set(result)
    return run


def on_host_if_bfloat16(function: Callable[..., Any], *inputs: Layout) -> Callable[..., Any]:
    """The same for functions that CuPy has, but not for each type: only where an input is of bfloat16."""
    return on_host(function) if any([x.dtype.name == "bfloat16" for x in inputs]) else function
