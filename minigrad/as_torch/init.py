"""`torch.nn.init` beside `minigrad.nn.init`: names from before functions that write ended in `_`."""
from __future__ import annotations

from typing import Any

from ..nn import init
from .renamed import renamed


def __getattr__(name: str) -> Any:
    """`xavier_uniform` for `xavier_uniform_`, and so on."""
    return renamed(init, name, "" if name.startswith("_") else name + "_")
