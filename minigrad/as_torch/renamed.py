"""Names that PyTorch renamed long ago: the old one warns and calls the new one."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from ..core.warning import warn


def renamed(module: ModuleType, old: str, new: str) -> Callable[..., Any]:
    """The function `old`, which is `new` of a module of minigrad. AttributeError if it has none of that name."""
    function = getattr(module, new, None)
    if function is None:
        raise AttributeError(old)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        warn(f"[{old}] is the old name of {new}", FutureWarning)
        return function(*args, **named)
    return call
