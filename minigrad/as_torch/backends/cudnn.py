"""`torch.backends.cudnn`."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

enabled, benchmark, deterministic, allow_tf32, benchmark_limit = False, False, True, False, 10


def is_available() -> bool:
    """False: minigrad does not use cuDNN."""
    return False


def version() -> None:
    """None: minigrad does not use cuDNN."""


def is_acceptable(tensor: Any) -> bool:
    """False: minigrad does not use cuDNN."""
    return False


@contextmanager
def flags(*args: Any, **named: Any) -> Iterator[None]:
    """A block that changes nothing."""
    yield
