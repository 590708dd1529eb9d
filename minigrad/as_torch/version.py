"""`torch.version`: which release of PyTorch the names follow."""
from __future__ import annotations

from .. import __version__ as _ours

__version__ = f"2.13.0+minigrad{_ours}"
debug = False
cuda = hip = xpu = git_version = None
