"""`study.trace`: every launch of a block, as a table, and as a file for Perfetto."""
from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from ..core.table import Shown, Table, at_least_one, duration, size
from ..devices.memory import Layout
from .record import Launch, Record

_SHOWN = 200            # launches that `str` shows
_LETTERS = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "bool": "bool"}


def shapes(operands: tuple[Layout | None, ...]) -> str:
    """The shapes of what a kernel was given, the outputs first, and their dtype: "f32 64x512 64x512 512"; a dtype is
    named where it changes, and a scalar is "()". "?" is other memory."""
    words, dtype = [], ""
    for x in operands:
        if x is None:
            continue
        now = _LETTERS.get(x.dtype.name, x.dtype.name.replace("uint", "u").replace("int", "i"))
        words += [now] if now != dtype else []
        words.append("x".join(map(str, x.shape)) or "()")
        dtype = now
    return " ".join(words)


class Trace(Record, Shown):
    """The launches of a `with` block. Made by `trace`."""

    def as_table(self, limit: int | None = _SHOWN) -> Table:
        """The launches, one a line; with more than `limit`, the first and the last ones. ValueError if it is below 1.
        """
        at_least_one("table", "limit", limit)
        shown: list[Launch] = self.launches
        last = 0 if limit is None else limit // 4
        if limit is not None and len(shown) > limit:
            shown = [*shown[:limit - last], *shown[len(shown) - last:]]
        rows = [[duration(x.start), x.op, x.direction, x.module, x.kernel, shapes(x.operands), size(x.nbytes),
                 duration(x.time)] for x in shown]
        left = len(self.launches) - len(shown)
        if left:
            rows.insert(len(shown) - last, ["...", f"{left} more", "", "", "", "", "", ""])
        total = sum(x.time for x in self.launches)
        notes = [f"{len(self.launches)} launches, {duration(total)} in kernels of {duration(self.elapsed)} in all; at "
                 f"most {size(max((x.held for x in self.launches), default=0))} of tensors in use"]
        notes += [f"{left} launches are left out; table(limit=None) shows all"] if left else []
        notes += self.doubts()
        return Table(["start", "op", "direction", "module", "kernel", "shapes", "bytes", "time"], rows,
                     numbers=("start", "bytes", "time"), cut=("shapes", "kernel", "module", "op"), notes=notes,
                     spare=("start",))

    def table(self, width: int | None = None, limit: int | None = None) -> str:
        """The table as text of `width` columns (default: the terminal's), of at most `limit` launches."""
        return self.as_table(limit).text(width)

    def __repr__(self) -> str:
        return f"<trace of {len(self.launches)} launches>"

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the trace as Chrome trace events in JSON, which https://ui.perfetto.dev and chrome://tracing show.

        Slices are nested: the module, in it the op, in it the kernel. A module's and an op's slice begin with their
        first kernel and end with their last. A counter shows the memory of tensors in use.

        ValueError unless the path ends with .json.
        """
        if Path(path).suffix != ".json":
            raise ValueError(f"[{type(self).__name__.lower()}] save writes JSON, so the path must end with .json; got "
                             f"{str(path)!r}; table() is the text, and launches has the numbers")
        self.write(path)

    def write(self, path: str | PathLike[str]) -> None:
        """`save` to a path with any suffix. TypeError for anything but a path (`open` would take a file's number)."""
        with Path(path).open("w", encoding="utf-8") as file:
            json.dump({"traceEvents": list(self.events()), "displayTimeUnit": "ns"}, file)

    def events(self) -> Iterator[dict[str, Any]]:
        """The Chrome trace events: names of process and threads, slices, and the memory counter."""
        yield _event("M", "process_name", None, args={"name": "minigrad"})
        yield _event("M", "thread_name", None, args={"name": "launches"})
        if self.ranges:                         # on a line of their own: a module's slice may go on where a part ends
            yield _event("M", "thread_name", None, tid=2, args={"name": "named parts"})
            for part in self.ranges:
                told = {} if part.args is None else {"args": part.args}
                yield {**_slice(part.name, "user", part.start, part.time, **told), "tid": 2}
        yield from _nested(self.launches)
        for x in self.launches:
            yield _event("C", "memory in use", x.start + x.time, args={"bytes": x.held})


def _event(kind: str, name: str, at: int | None, **more: Any) -> dict[str, Any]:
    """One event; `at` in nanoseconds, microseconds in the file."""
    when = {} if at is None else {"ts": at / 1e3}
    return {"name": name, "ph": kind, "pid": 1, "tid": 1, **when, **more}


def _slice(name: str, category: str, start: int, time: int, **args: Any) -> dict[str, Any]:
    return _event("X", name, start, cat=category, dur=time / 1e3, args=args)


def _levels(x: Launch) -> list[tuple[str, str, Any]]:
    """The slices that a launch lies in, outermost first: category, name, and what tells it from the one before."""
    names = x.module.split(".") if x.module else []
    backward = " backward" if x.direction == "backward" else ""
    outer = [("module", ".".join(names[:i + 1]) + backward, None) for i in range(len(names))]
    return [*outer, ("op", x.op + backward, x.call or (x.op, x.direction))]


def _nested(launches: list[Launch]) -> list[dict[str, Any]]:
    """The slices of modules, ops and kernels, the outer ones first. A slice of a module or op goes on while the next
    launch is in it too."""
    slices: list[dict[str, Any]] = []
    opened: list[tuple[tuple[str, str, Any], dict[str, Any]]] = []
    for x in launches:
        levels = _levels(x)
        same = 0
        while same < min(len(levels), len(opened)) and levels[same] == opened[same][0]:
            same += 1
        del opened[same:]
        for level in levels[same:]:
            slices.append(_slice(level[1], level[0], x.start, 0))
            opened.append((level, slices[-1]))
        facts = {"op": x.op, "direction": x.direction, "shapes": shapes(x.operands), "bytes": x.nbytes, "line": x.line,
                 "path": x.why, **({} if x.flops is None else {"flops": x.flops})}
        slices.append(_slice(x.kernel, "kernel", x.start, x.time, **facts))
        for _, outer in opened:
            outer["dur"] = (x.start + x.time) / 1e3 - outer["ts"]
    return slices


def trace() -> Trace:
    """A context manager that writes down every launch of its block: op, direction, module, kernel, shapes, bytes, time.

    `print(t)` shows a table, `t.save("trace.json")` writes a file for Perfetto, and `t.launches` has the records. Only
    the thread that enters the block is traced. A captured step shows the launches of its replays; their ops, modules
    and directions are known if the step was recorded in a trace (its first call), else the kernel's name stands there
    and a note says so.
    A traced launch takes about 50 microseconds more, one of a replay 15, which `time` leaves out.

    >>> with study.trace() as t:
    ...     loss = criterion(model(x), y)
    ...     loss.backward()
    >>> print(t)
    """
    return Trace()
