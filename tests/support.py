"""What tests of several folders share: where things lie, kernels against definitions, a fresh process, the search for cycles."""
from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import testing
from minigrad.core.tape import Node, Slot
from minigrad.core.tensor import Tensor
from minigrad.ops.dispatch import set_fused

ROOT = Path(__file__).resolve().parent.parent           # of the repository
HEADER = ROOT / "native" / "minigrad.h"


def both_paths(op, args, attrs, tolerance=1e-11) -> None:
    """Outputs and gradients of the kernels against those of the definition."""
    with set_fused("require"):
        got = testing.evaluate(op, args, attrs)
    with set_fused("off"):
        want = testing.evaluate(op, args, attrs)
    for a, b in zip([*got[0], *got[1]], [*want[0], *want[1]], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()), err_msg=str(attrs))


def numbers(dims: int, low: int, high: int) -> st.SearchStrategy:
    """A hypothesis strategy: a whole number for each of `dims` dimensions."""
    return st.tuples(*[st.integers(low, high)] * dims)


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python in a fresh process, outside the source folder (whose minigrad may not be built)."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment},
                          cwd=tempfile.gettempdir())


def started_python(folder: Path, *arguments: str, path: str = "", **environment: str) -> subprocess.Popen:
    """Starts Python in a folder, with the minigrad that this process has, and folders `path`; what it says is one text."""
    places = os.pathsep.join(filter(None, (str(Path(mg.__file__).parent.parent), path)))
    return subprocess.Popen([sys.executable, *arguments], text=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env={**os.environ, "PYTHONPATH": places, "MINIGRAD_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment})


def tensors_in_cycles() -> list[str]:
    """The tensors and nodes that only the garbage collector frees because they refer to themselves, through whatever else. Those that
    merely hang off a cycle (of an exception's traceback, say) do not count."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        garbage, suspects = {id(o): o for o in gc.garbage}, []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    for group in components(garbage, [i for i, o in garbage.items() if isinstance(o, (Tensor, Node, Slot))]):
        found = [o for o in group if isinstance(o, (Tensor, Node, Slot))]
        if found and (len(group) > 1 or any(other is found[0] for other in gc.get_referents(found[0]))):
            suspects += [f"{type(o).__name__} of {o.node if isinstance(o, Tensor) else o}" for o in found]
    return suspects


def components(objects: dict[int, Any], roots: list[int]) -> Iterator[list[Any]]:
    """The strongly connected components of objects (by id) that refer to each other, of those that can be reached from the roots:
    Tarjan 1972, without recursion."""
    number: dict[int, int] = {}                     # in order of discovery
    low: dict[int, float] = {}                      # the lowest number reached; infinite once the component is complete
    open_ones: list[int] = []
    for root in roots:
        path = [] if root in number else [(root, iter([root]))]
        while path:
            here, others = path[-1]
            if here not in number:
                number[here] = low[here] = len(number)
                open_ones.append(here)
                path[-1] = here, others = here, iter([id(o) for o in gc.get_referents(objects[here]) if id(o) in objects])
            for other in others:
                if other not in number:
                    path.append((other, iter(())))
                    break
                low[here] = min(low[here], low[other])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[here])
                if low[here] == number[here]:
                    at = len(open_ones) - 1
                    while open_ones[at] != here:
                        at -= 1
                    for done in open_ones[at:]:
                        low[done] = math.inf
                    yield [objects[done] for done in open_ones[at:]]
                    del open_ones[at:]
