"""`torch.fx`: nothing is traced."""
from __future__ import annotations

from typing import Any


def wrap(fn_or_name: Any) -> Any:
    """The function itself: what tracing would leave as it is."""
    return fn_or_name
