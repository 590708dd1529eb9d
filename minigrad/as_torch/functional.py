"""`torch.nn.functional` beside `minigrad.nn.functional`: an old name, and one that minigrad has elsewhere."""
from __future__ import annotations

from typing import Any

from ..nn import functional
from ..ops.pairs import pdist as pdist
from .renamed import renamed


def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    """`conv1d` of (time, batch, channels) with a weight (width, channels in, channels out)."""
    return functional.conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


_NEW = {"upsample": "interpolate"}


def __getattr__(name: str) -> Any:
    """The functions that were renamed."""
    return renamed(functional, name, _NEW.get(name, ""))
