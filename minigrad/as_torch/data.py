"""`torch.utils.data` beside `minigrad.data`."""
from __future__ import annotations

from ..data.distributed import DistributedSampler
from ..data.loader import default_collate

__all__ = ["DistributedSampler", "default_collate"]
