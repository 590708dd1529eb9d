"""`torch.nn.functional` beside `minigrad.nn.functional`: an old name, and one that minigrad has elsewhere."""
from __future__ import annotations

from typing import Any

from ..nn import functional
from ..ops.pairs import pdist as pdist
from .renamed import renamed

_NEW = {"upsample": "interpolate"}


def __getattr__(name: str) -> Any:
    """The functions that were renamed, and `relu_` and the like, which write into their argument."""
    pure = getattr(functional, name.removesuffix("_"), None) if name.endswith("_") and name[0] != "_" else None
    if pure is not None:
        return lambda input, *args, **named: input.copy_(pure(input, *args, **named))
    return renamed(functional, name, _NEW.get(name, ""))
