"""CUDA graphs: launches of a captured step, which a replay runs by one call of the driver. Read `cuda.py` first.

The launches have run before, so that everything is compiled and loaded. They are launched once more on a stream that
records: nothing runs, and the driver keeps the kernels with their arguments. That stream is used for nothing else, and
only this thread's launches go there, so other threads may compute meanwhile. The graph runs on the device's stream, in
order with all other launches.

Memory that launches take for themselves (copies of an operand of a product) comes from a pool that the graph keeps:
nobody else has it when the graph runs, and no array of the step either.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import memory


class Graph:
    """Launches of a device (kernel, arguments, ...), in order. Calling it runs them again, and raises what a check of
    values found, as far as that is known by then."""

    def __init__(self, device: Any, launches: Sequence[Any]) -> None:
        self.device, pool = device, memory.private()
        try:
            with device.capturing, pool, device.redirected() as stream:
                stream.begin_capture()
                try:
                    for kernel, arguments, *_ in launches:
                        kernel.function(*arguments)
                finally:
                    self.graph = stream.end_capture()
        finally:
            pool.on = False                     # whatever line an interrupt comes at
        self.memory = pool.pools

    def __call__(self) -> None:
        self.device.use()
        self.graph.launch(self.device.stream)
        if self.device.waits:
            self.device.synchronize()
        self.device.flags.verify()
