"""What the kernels of a GPU find wrong in values, such as an index out of range, told to the host without waiting.

Nothing to read first. A kernel that finds a wrong value writes it, and the number of the check, to two words in host
memory that the GPU reaches too (`Flags.ptr`), unless an earlier one is still there. The host looks at them where it
waits for the GPU anyway (`item()`, `cpu()`, `tolist()`, `minigrad.cuda.synchronize()`) and after each replay of a
captured step, and raises what the check says: later than on the CPU, and in whichever thread looks first. The kernel
goes on with an index that is in range; what it and later kernels compute is of no use then.

MINIGRAD_CUDA_SYNC=1 makes the host look after each launch (`cuda.py`).
"""
from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np

from .addresses import register


class Flags:
    """The words [number of the check that failed or 0, the value], in `memory`: pinned memory, as CuPy gives it."""

    def __init__(self, memory: Any) -> None:
        self.memory, self.ptr = memory, int(memory.ptr)
        words: Any = np.frombuffer(memory, np.int64)
        self.words = memoryview(words)
        self.words[0] = 0
        self.checks, self.numbering = dict[tuple, int](), Lock()
        register(self, self.ptr, 16)

    def number(self, *check: Any) -> int:
        """The number of a check: (exception type, text, arguments of the text after the value)."""
        found = self.checks.get(check)
        if found is None:
            with self.numbering:                # two checks may never get one number
                found = self.checks.setdefault(check, len(self.checks) + 1)
        return found

    def verify(self) -> None:
        """Raises the error of the check that failed, if one did, and forgets it."""
        number = self.words[0]
        if number > 0:                          # -1: a kernel is about to write the value
            value = self.words[1]
            self.words[0] = 0
            kind, text, *rest = list(self.checks)[number - 1]
            raise kind(text.format(value, *rest))
