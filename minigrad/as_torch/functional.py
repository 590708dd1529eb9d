"""`torch.nn.functional` beside `minigrad.nn.functional`: an old name, and one that minigrad has elsewhere."""
from __future__ import annotations

from typing import Any

from ..nn import functional
from ..ops.pairs import pdist as pdist
from .renamed import renamed

_NEW = {"upsample": "interpolate"}


def __getattr__(name: str) -> Any:
    """The functions that were renamed."""
    return renamed(functional, name, _NEW.get(name, ""))
