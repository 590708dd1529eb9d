"""What tests of several folders share: where things lie, a fresh process, the search for cycles."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from minigrad.core.tape import Node, Slot
from minigrad.core.tensor import Tensor

ROOT = Path(__file__).resolve().parent.parent           # of the repository
HEADER = ROOT / "native" / "minigrad.h"


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python in a fresh process, outside the source folder (whose minigrad may not be built)."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment},
                          cwd=tempfile.gettempdir())


def tensors_in_cycles():
    """The tensors and nodes that only the garbage collector frees because they refer to themselves, through whatever else. Those that
    merely hang off a cycle (of an exception's traceback, say) do not count."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        garbage, suspects = {id(o): o for o in gc.garbage}, []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    for suspect in garbage.values():
        if isinstance(suspect, (Tensor, Node, Slot)) and reaches(suspect, suspect, garbage):
            suspects.append(f"{type(suspect).__name__} of {suspect.node if isinstance(suspect, Tensor) else suspect}")
    return suspects


def reaches(start, goal, among):
    seen, todo = set(), [start]
    while todo:
        for other in gc.get_referents(todo.pop()):
            if other is goal:
                return True
            if id(other) in among and id(other) not in seen:
                seen.add(id(other))
                todo.append(other)
    return False
