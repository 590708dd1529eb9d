"""`torch.optim.lr_scheduler` beside minigrad's: the old name of the base class."""
from __future__ import annotations

from ..optim.lr_scheduler import LRScheduler

_LRScheduler = LRScheduler
