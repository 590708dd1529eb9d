"""What is not a layer, an optimiser or a data set: checkpointing. `utils.data` is `minigrad.data`."""
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import checkpoint

__all__ = ["checkpoint"]

if TYPE_CHECKING:
    from . import data as data
else:
    def __getattr__(name: str) -> _Any:
        """Data sets are loaded when they are first asked for."""
        if name == "data":
            return _import_module(".data", __name__)
        raise AttributeError(f"module 'minigrad.utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is public."""
    return ["checkpoint", "data"]
