"""`torch.autograd.profiler` of minigrad: a thin door to `study.profile`, with the names that PyTorch users know."""
from __future__ import annotations

from os import PathLike

from ..core.table import Table, duration
from ..study.profile import Profile, Row, grouped, op_of, record_function
from ..study.profile import profile as study_profile
from ..study.trace import shapes

__all__ = ["EventList", "FunctionEventAvg", "profile", "record_function"]

_SORTED_BY = ("self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "flops")


class FunctionEventAvg:
    """What the calls of one op, or of one part named with `record_function`, took in all, in microseconds.

    The time of an op is that of its kernels. The time of a named part is that on the clock, `self_cpu_time_total` of it
    that without kernels.
    """

    def __init__(self, key: str, count: int, total: float, own: float, flops: int = 0, input_shapes: str = "") -> None:
        self.key, self.count, self.flops, self.input_shapes = key, count, flops, input_shapes
        self.cpu_time_total, self.self_cpu_time_total, self.cpu_time = total, own, total / max(count, 1)

    def __repr__(self) -> str:
        return (f"<FunctionEventAvg key={self.key} self_cpu_time={duration(self.self_cpu_time_total * 1e3)} "
                f"cpu_time={duration(self.cpu_time * 1e3)} count={self.count}>")


def _average(row: Row) -> FunctionEventAvg:
    key, _, given = row.name.partition("\n")
    return FunctionEventAvg(key, row.calls, row.time / 1e3, row.time / 1e3, row.flops, given)


class EventList(list[FunctionEventAvg]):
    """Averages, with a table."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55,
              header: str | None = None) -> str:
        """The table, of at most `row_limit` rows (-1: all). `sort_by`: "self_cpu_time_total", "cpu_time_total",
        "cpu_time", "count" or "flops"; the largest come first."""
        if sort_by is not None and sort_by not in _SORTED_BY:
            raise ValueError(f"[profiler.table] sort_by must be one of {', '.join(_SORTED_BY)}; got {sort_by!r}")
        events = list(self) if sort_by is None else sorted(self, key=lambda e: -getattr(e, sort_by))
        own = sum(e.self_cpu_time_total for e in self)
        head = ["Name", "Self CPU %", "Self CPU", "CPU total", "CPU time avg", "# of Calls", "Input Shapes"]
        rows = [[e.key[:max_name_column_width], f"{e.self_cpu_time_total / (own or 1):.2%}",
                 *[duration(t * 1e3) for t in (e.self_cpu_time_total, e.cpu_time_total, e.cpu_time)], str(e.count),
                 e.input_shapes] for e in events[:None if row_limit < 0 else row_limit]]
        grouped_by_shape = any(e.input_shapes for e in self)
        made = Table(head, rows, title=header or "", numbers=head[1:6], cut=("Input Shapes", "Name"),
                     notes=[f"Self CPU time total: {duration(own * 1e3)}"])
        return (made if grouped_by_shape else made.without(("Input Shapes",))).text()

    def __str__(self) -> str:
        return self.table()


class profile:
    """Profiles its `with` block, as `torch.autograd.profiler.profile` does; `study.profile` shows more.

    Shapes, operations, memory, modules and the user's lines (`with_stack`) are always noted; the lines are in the file
    of `export_chrome_trace`. NotImplementedError for `use_cpu=False`.

    >>> with autograd.profiler.profile() as prof:
    ...     model(x).sum().backward()
    >>> print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))
    """

    def __init__(self, enabled: bool = True, *, record_shapes: bool = False, with_flops: bool = False,
                 profile_memory: bool = False, with_stack: bool = False, with_modules: bool = False,
                 use_cpu: bool = True) -> None:
        if not use_cpu:
            raise NotImplementedError("[profiler.profile] use_cpu=False is not supported; leave it out")
        self.enabled = enabled
        self.study: Profile = study_profile()

    def __enter__(self) -> profile:
        if self.enabled:
            self.study.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            self.study.__exit__(*error)

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """An average for each op (forward and backward apart) and each part named with `record_function`."""
        launches = self.study.launches
        rows = grouped(launches, lambda x: op_of(x) + (f"\n{shapes(x.operands)}" if group_by_input_shape else ""))
        found = EventList(map(_average, rows))
        names = dict.fromkeys(part.name for part in self.study.ranges)
        for name in names:
            parts = [part for part in self.study.ranges if part.name == name]
            inside = sum(x.time for part in parts for x in launches if part.start <= x.start < part.start + part.time)
            total = sum(part.time for part in parts)
            found.append(FunctionEventAvg(name, len(parts), total / 1e3, max(total - inside, 0) / 1e3))
        return found

    def total_average(self) -> FunctionEventAvg:
        """The sum over all ops."""
        return _average(Row("Total").add(self.study.launches))

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds in kernels."""
        return self.total_average().self_cpu_time_total

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55,
              header: str | None = None) -> str:
        """The table of `key_averages()`."""
        return self.key_averages().table(sort_by, row_limit, max_name_column_width, header)

    def export_chrome_trace(self, path: str | PathLike[str]) -> None:
        """Writes the launches for Perfetto (`study.trace`)."""
        self.study.save(path)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return repr(self.study)
