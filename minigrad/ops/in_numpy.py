"""Computations that only NumPy has, for tensors on any device."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def in_numpy(function: Callable[..., None]) -> Callable[..., None]:
    """`function(*arrays, out)` of NumPy arrays, as one for the arrays of any device: those of a GPU are copied to the
    host, and the result back. For what CuPy lacks, or does in another way."""
    def run(*arrays: Any, out: Any) -> None:
        if isinstance(out, np.ndarray):
            function(*arrays, out=out)
            return
        made = np.empty(out.shape, out.dtype)
        function(*[a.get() for a in arrays], out=made)
        out.set(made)
    return run
