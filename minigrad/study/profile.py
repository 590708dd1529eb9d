"""`study.profile`: time, bandwidth and operations per op and per module, and their share of the machine's roof."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, wraps
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..core.table import Table, at_least_one, duration
from ..devices.base import split
from ..devices.native import get_num_threads
from .record import Launch, Range, Record, active, unseen
from .trace import Trace

_ROWS = 40              # of one part of the table
Function = TypeVar("Function", bound=Callable[..., Any])


class Roof(NamedTuple):
    """What the machine can do at most: GFLOP/s in float32 and in float64 on the threads in use, GB/s of a copy."""

    float32: float
    float64: float
    bandwidth: float

    def __str__(self) -> str:
        return (f"roof: {self.float32:.0f} GFLOP/s of multiply-adds in float32, {self.float64:.0f} in float64; "
                f"{self.bandwidth:.1f} GB/s of a copy")


@cache
def _measured(threads: int) -> Roof:
    from ..bench import copy_bandwidth, fma_peak  # only here: few need it
    with unseen():
        peaks = [threads * fma_peak(np.dtype(name)) for name in ("float32", "float64")]
        return Roof(peaks[0], peaks[1], copy_bandwidth(blocks=5))


def roof() -> Roof:
    """What the CPU can do at most; measured once per process and number of threads, when it is first asked for (about
    a second).

    The peak is that of `bench.fma_peak` times the threads, the bandwidth that of `bench.copy_bandwidth`.
    """
    return _measured(get_num_threads())


@dataclass
class Row:
    """What an op (or a module) did in all: calls, launches, nanoseconds in kernels, bytes, floating-point operations.

    `bound`: nanoseconds that the roof would need, by the operations and by the bytes, each kernel for itself.
    """

    name: str
    calls: int = 0
    launches: int = 0
    time: int = 0
    nbytes: int = 0
    flops: int = 0
    counted: list[Launch] = field(default_factory=list, repr=False)

    def add(self, launches: Iterable[Launch]) -> Row:
        """Adds launches to it."""
        calls: set[int] = set()
        for x in launches:
            calls.add(x.call or -len(calls) - 1)            # without a number each launch counts as a call
            self.launches, self.time, self.nbytes = self.launches + 1, self.time + x.time, self.nbytes + x.nbytes
            self.flops += x.flops or 0
            self.counted.append(x)
        self.calls += len(calls)
        return self

    def share(self, of: Roof) -> tuple[float, str]:
        """The time at the roof as a share of the time it took, and what bounds it there: "compute" or "memory".

        A kernel cannot be faster than its operations at the peak, nor than its bytes at the bandwidth. More than 1:
        its arrays were in caches, which are faster than memory.
        """
        best = {"compute": 0.0, "memory": 0.0}
        for x in self.counted:
            peak = of.float64 if split(x.kernel)[1] == "f64" else of.float32
            compute, memory = (x.flops or 0) / peak, x.nbytes / of.bandwidth
            best["compute" if compute > memory else "memory"] += max(compute, memory)
        kind = max(best, key=lambda k: best[k])
        return (sum(best.values()) / self.time if self.time else 0.0), kind


def grouped(launches: Iterable[Launch], key: Callable[[Launch], str | None]) -> list[Row]:
    """The launches by a key, the longest time first; without those whose key is None."""
    groups: dict[str, list[Launch]] = {}
    for x in launches:
        name = key(x)
        if name is not None:
            groups.setdefault(name, []).append(x)
    return sorted([Row(name).add(found) for name, found in groups.items()], key=lambda r: -r.time)


def op_of(x: Launch) -> str:
    """What `Profile.ops` calls the op of a launch: "linear", "linear backward"."""
    return x.op if x.direction != "backward" else f"{x.op} backward"


class Profile(Trace):
    """What a `with` block spent its time on. Made by `profile`; it has all that a trace has."""

    def ops(self) -> list[Row]:
        """A row for each op, forward and backward apart, the longest time first."""
        return grouped(self.launches, op_of)

    def modules(self) -> list[Row]:
        """A row for each module, by its path, forward and backward together; a module counts in those around it too."""
        paths = {x.module for x in self.launches if x.module}
        every = {".".join(path.split(".")[:i + 1]) for path in paths for i in range(path.count(".") + 1)}
        found = [(path, [x for x in self.launches if f"{x.module}.".startswith(f"{path}.")]) for path in every]
        return sorted([Row(path).add(launches) for path, launches in found], key=lambda r: r.name)

    def as_table(self, limit: int | None = _ROWS) -> Table:
        """Ops, then modules, with their rates and shares of the roof; at most `limit` rows of each. ValueError if it
        is below 1."""
        at_least_one("table", "limit", limit)
        of, every = roof(), Row("all").add(self.launches)
        rows: list[list[str]] = []
        for found, kind in ((self.ops(), "op"), (self.modules(), "module")):
            rows += [[f"per {kind}:", *[""] * 8]] if found else []
            rows += [self._line(row, every, of) for row in found[:limit]]
            if limit is not None and len(found) > limit:
                rows.append([f"... {len(found) - limit} more", *[""] * 8])
        rows.append(self._line(every, every, of))
        left = any(row[0].startswith("...") for row in rows)
        notes = ["table(limit=None) shows all rows"] if left else []
        notes += [*self.doubts(), str(of),
                  f"{duration(every.time)} in kernels of {duration(self.elapsed)} in all; the rest is Python, "
                  "and the profile itself, about 50 us a launch",
                  "roof: the time that the bound needs (operations at the peak, or bytes at the bandwidth), as a part "
                  "of the time taken; above 100%: the arrays were in caches, or the roof was measured while others ran"]
        return Table(["name", "calls", "launches", "time", "share", "GB/s", "GFLOP/s", "roof", "bound"], rows,
                     numbers=("calls", "launches", "time", "share", "GB/s", "GFLOP/s", "roof"), cut=("name",),
                     notes=notes)

    def _line(self, row: Row, every: Row, of: Roof) -> list[str]:
        share, bound = row.share(of)
        seconds = max(row.time, 1) / 1e9
        return [row.name, str(row.calls), str(row.launches), duration(row.time),
                f"{row.time / max(every.time, 1):.1%}", f"{row.nbytes / seconds / 1e9:.3g}",
                f"{row.flops / seconds / 1e9:.3g}" if row.flops else "-", f"{share:.0%}", bound]

    def __repr__(self) -> str:
        return f"<profile of {len(self.launches)} launches>"


def profile() -> Profile:
    """A context manager that sums up its block per op and per module: calls, time, GB/s, GFLOP/s, share of the roof.

    Time is that in kernels, without Python. Bytes are those of the arrays that a kernel was given, each counted once;
    operations are counted by the rule that stands beside each op (`devices/work.py`): a multiply-add is two, a
    comparison or a function such as exp is one. `print(p)` shows it; `p.ops()` and `p.modules()` have the rows,
    `p.table()`, `p.save(path)` and `p.launches` are as of a trace (`study.trace`).

    >>> with study.profile() as p:
    ...     step(x, y)
    >>> print(p)
    """
    return Profile()


class record_function:
    """Names a part of the program: a slice in the file of a trace, a row in `autograd.profiler`'s tables. A context
    manager, or a decorator of a function; outside of a trace or profile it does nothing. `args` is a text that the
    slice shows beside its name.

    >>> with study.profile() as p:
    ...     with study.record_function("loss"):
    ...         loss = criterion(model(x), y)
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args
        self._begun: list[tuple[Record, int]] = []

    def __enter__(self) -> record_function:
        self._begun = [(r, r.now()) for r in active()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for record, start in self._begun:
            record.ranges.append(Range(self.name, start, record.now() - start, self.args))
        self._begun = []

    def __call__(self, function: Function) -> Function:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):         # a new one for each call: they may be nested
                return function(*args, **kwargs)
        return run      # type: ignore[return-value]
