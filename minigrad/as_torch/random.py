"""`torch.random`: `fork_rng`."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import default_generator
from ..devices import opened

__all__ = ["fork_rng"]


@contextmanager
def fork_rng(devices: Iterable[Any] | None = None, enabled: bool = True, *args: Any, **named: Any) -> Iterator[None]:
    """After the block the default generators, all or those of the CPU and of `devices`, are as they were before."""
    on = opened() if devices is None else ["cpu", *devices]
    states = [(default_generator(d), default_generator(d).get_state()) for d in on] if enabled else []
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
