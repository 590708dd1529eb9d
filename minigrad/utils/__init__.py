"""`torch.utils` of minigrad: `utils.checkpoint`, and `utils.data`, which is `minigrad.data`."""
from importlib import import_module as _import_module
from typing import Any

from . import checkpoint

__all__ = ["checkpoint"]


def __getattr__(name: str) -> Any:
    """Imports `utils.data` when it is first used: importing minigrad then does not import the data sets."""
    if name == "data":
        return _import_module(".data", __name__)
    raise AttributeError(f"module 'minigrad.utils' has no attribute {name!r}")
