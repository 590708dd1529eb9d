"""What is not a layer, an optimiser or a data set: checkpointing. ``utils.data`` is ``minigrad.data``."""
from importlib import import_module as _import_module
from typing import Any

from . import checkpoint

__all__ = ["checkpoint"]


def __getattr__(name: str) -> Any:
    """Data sets are loaded when they are first asked for."""
    if name == "data":
        return _import_module(".data", __name__)
    raise AttributeError(f"module 'minigrad.utils' has no attribute {name!r}")
