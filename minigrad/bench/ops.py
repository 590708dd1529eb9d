"""Times of one op: its kernels and its definition, on its samples."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

import minigrad as mg

from ..core import engine
from ..core.op import Op, registry
from ..devices import open_device
from ..testing import enlarged, op_of, samples_of
from .timing import Run, Times, interleaved, us

OP_BLOCKS = 7           # of calls that a sample is measured in
_ELEMENTS = 1 << 18     # of a sample that can be made longer: 1 MB of float32, where memory counts and calls do not


def find_op(name: str) -> Any:
    """An op by its name, or by `module:name`. ValueError if there is none."""
    module, colon, own = name.rpartition(":")
    if not colon:
        if name not in registry:
            raise ValueError(f"unknown op {name!r}; choose from {', '.join(registry)}, or give module:name")
        return registry[name]
    try:
        found = getattr(import_module(module), own)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"unknown op {name!r}: {error}") from None
    return op_of(found)


def time_op(name: str | Any, blocks: int = OP_BLOCKS, device: str = "cpu") -> list[str]:
    """Times the samples of an op (or of the op of that name) in float32: the op with its kernels, and its definition as
    a function without them, in turn; forward, and forward with backward. The lines of a table. On "cuda" too, where a
    time is that of launches in a row, until the last one is done.

    Where it can be told how (`testing.enlarged`), a sample gets so long a first dimension that it has 262,144 elements:
    samples are small because they are checked, and on small arrays all functions take as long as a call. Others are
    timed as they are; to time a larger one, yield it in the op's samples.
    """
    op = find_op(name) if isinstance(name, str) else op_of(name)
    rows: list[tuple[str, ...]] = [(op.name, "kernel", "definition", "GB/s", "with backward: kernel", "definition")]
    wait = getattr(open_device(device), "synchronize", lambda: None)
    for args, attrs in samples_of(op, np.float32, device=device):
        given = enlarged(op, args, attrs, _ELEMENTS) or args
        moved, forward, both = _runs(op.public, given, attrs)
        plain = _runs(op.definition, given, attrs)[1:] if isinstance(op, Op) else (None, None)
        runs: tuple[Run | None, ...] = (forward, plain[0], both, plain[1])
        if isinstance(op, Op) and isinstance(op.plan(given, attrs), str):
            runs = (None, plain[0], None, plain[1])             # there was no kernel for it: the definition ran
        timed = [run for run in runs if run is not None]
        found: dict[Any, Times] = dict(zip(timed, interleaved(*timed, blocks=blocks, wait=wait),
                                           strict=True))
        cells = [us(found[run].minimum) if run in found else "-" for run in runs]
        cells.insert(2, f"{moved / found[timed[0]].minimum / 1e9:.2f}")
        shapes = ", ".join(str(list(a.shape)) if isinstance(a, mg.Tensor) else str(a) for a in given)
        rows.append((shapes + "".join(f", {k}={v}" for k, v in attrs.items()), *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *[cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]])
            for row in rows]


def _runs(function: Callable[..., Any], args: Sequence[Any], attrs: dict[str, Any]) -> tuple[int, Run, Run | None]:
    """The bytes that forward reads and writes; forward; and forward with backward, or None."""
    own = [a.detach().requires_grad_() if isinstance(a, mg.Tensor) and a.is_floating_point() else a for a in args]
    leaves = [a for a in own if isinstance(a, mg.Tensor) and a.requires_grad]

    def outputs() -> list[Any]:
        result = function(*own, **attrs)
        return [r for r in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(r, mg.Tensor)]
    made = outputs()
    seeds = [mg.ones_like(r) for r in made if r.requires_grad]

    def backward() -> None:
        engine.grad([r for r in outputs() if r.requires_grad], leaves, seeds, allow_unused=True)
    moved = sum(t.nbytes for t in (*args, *made) if isinstance(t, mg.Tensor))
    return moved, mg.no_grad()(partial(function, *args, **attrs)), backward if seeds else None
