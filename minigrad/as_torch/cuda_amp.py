"""`torch.cuda.amp`: `torch.amp` with the device "cuda" in front."""
from __future__ import annotations

from typing import Any

from .. import amp

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


class autocast(amp.autocast):
    """`torch.amp.autocast("cuda", ...)`."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """`torch.amp.GradScaler("cuda", ...)`."""

    def __init__(self, init_scale: float = 2.0 ** 16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


def custom_fwd(fwd: Any = None, **named: Any) -> Any:
    """The function itself; also with arguments."""
    return fwd if callable(fwd) else lambda function: function


def custom_bwd(bwd: Any = None, **named: Any) -> Any:
    """The function itself; also with arguments."""
    return custom_fwd(bwd)
