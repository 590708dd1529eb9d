"""`torch.hub`: where downloads are kept. Models are not loaded from it."""
from __future__ import annotations

import os
from pathlib import Path

_dir: str | None = None


def _get_torch_home() -> str:
    """The folder that PyTorch keeps downloads in."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder for models."""
    return os.path.join(_get_torch_home(), "hub") if _dir is None else _dir


def set_dir(d: str | Path) -> None:
    """Sets the folder for models."""
    global _dir
    _dir = os.path.expanduser(d)
