"""`torch.profiler`, on `minigrad.autograd.profiler`."""
from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from time import time_ns
from typing import Any

from ..autograd import profiler
from ..core.warning import warn

__all__ = ["ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "schedule", "tensorboard_trace_handler"]


class ProfilerActivity(Enum):
    """What is observed. minigrad's profiler sees all launches, wherever they run."""

    CPU = 0
    XPU = 1
    CUDA = 2


class ProfilerAction(Enum):
    """What a schedule says of a step. `profile` observes all steps."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def kineto_available() -> bool:
    """False: minigrad has a profiler of its own."""
    return False


def schedule(*, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
             skip_first_wait: int = 0) -> dict[str, int]:
    """Which steps are observed: accepted, but `profile` observes all, and warns."""
    return {"wait": wait, "warmup": warmup, "active": active, "repeat": repeat, "skip_first": skip_first}


def tensorboard_trace_handler(dir_name: str, worker_name: str | None = None,
                              use_gzip: bool = False) -> Callable[[profile], None]:
    """A function for `on_trace_ready` that writes the trace, a JSON file for Perfetto, into a folder."""
    def write(made: profile) -> None:
        folder = Path(dir_name)
        folder.mkdir(parents=True, exist_ok=True)
        made.export_chrome_trace(folder / f"{worker_name or 'minigrad'}.{time_ns()}.pt.trace.json")
    return write


class profile(profiler.profile):
    """`torch.autograd.profiler.profile` with `step()`. The whole block is observed; at its end `on_trace_ready` gets
    the profile."""

    def __init__(self, *, activities: Any = None, schedule: Any = None,
                 on_trace_ready: Callable[[profile], None] | None = None, record_shapes: bool = False,
                 profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
                 with_modules: bool = False, **named: Any) -> None:
        super().__init__(record_shapes=record_shapes, profile_memory=profile_memory, with_stack=with_stack,
                         with_flops=with_flops, with_modules=with_modules, **named)
        if schedule is not None:
            warn("[profiler.profile] all steps are observed, whatever the schedule says")
        self.on_trace_ready, self.step_num = on_trace_ready, 0

    def step(self) -> None:
        """Counts a step."""
        self.step_num += 1

    def start(self) -> None:
        """Begins to observe, as entering the block does."""
        self.__enter__()

    def stop(self) -> None:
        """Ends it, as leaving the block does."""
        self.__exit__(None, None, None)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)
