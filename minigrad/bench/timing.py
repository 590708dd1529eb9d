"""How long functions take, measured in turn."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

BLOCKS = 15
BLOCK_SECONDS = 0.02
Run: TypeAlias = Callable[[], Any]


class Times(NamedTuple):
    """Seconds for one call."""

    minimum: float
    median: float


def interleaved(*contestants: Run, blocks: int = BLOCKS, wait: Run = lambda: None) -> list[Times]:
    """The times of each function, measured in alternating blocks of about `BLOCK_SECONDS`. A block ends when `wait`
    returns: on a GPU, when what was launched is done."""
    counts = []
    for run in contestants:
        run()
        wait()
        start = time.perf_counter()
        run()
        wait()
        once = max(time.perf_counter() - start, 1e-7)
        counts.append(max(1, min(5000, int(BLOCK_SECONDS / once))))
    seen: list[list[float]] = [[] for _ in contestants]
    for _ in range(blocks):
        for run, count, times in zip(contestants, counts, seen, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            wait()
            times.append((time.perf_counter() - start) / count)
    return [Times(min(t), statistics.median(t)) for t in seen]


def us(seconds: float) -> str:
    """In microseconds, as tables show it."""
    return f"{seconds * 1e6:.1f} us"
