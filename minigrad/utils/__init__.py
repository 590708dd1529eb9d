"""`torch.utils` of minigrad: `utils.checkpoint`, and `utils.data`, which is `minigrad.data`."""
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from ..core.messages import NoAttribute as _NoAttribute
from . import checkpoint

__all__ = ["checkpoint"]

if TYPE_CHECKING:
    from . import data as data
else:
    def __getattr__(name: str) -> _Any:
        """Imports `utils.data` when it is first used: importing minigrad then does not import the data sets."""
        if name == "data":
            return _import_module(".data", __name__)
        raise _NoAttribute("module 'minigrad.utils'", name, __dir__)


def __dir__() -> list[str]:
    """What is public."""
    return ["checkpoint", "data"]
