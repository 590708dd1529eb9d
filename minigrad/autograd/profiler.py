"""`torch.autograd.profiler` of minigrad: a thin door to `study.profile`, with the names that PyTorch users know."""
from __future__ import annotations

from os import PathLike
from typing import Any, NamedTuple

from ..core.shape import fail, left_out
from ..core.table import Table, duration
from ..study.profile import Profile, Row, grouped, op_of, record_function
from ..study.profile import profile as study_profile
from ..study.record import Launch, Range
from ..study.trace import shapes

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "profile", "record_function"]

_SORTED_BY = ("self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "flops")


class FunctionEventAvg:
    """What the calls of one op, or of one part named with `record_function`, took in all, in microseconds.

    The time of an op is that of its kernels. The time of a named part is that on the clock, `self_cpu_time_total` of it
    that without kernels. `top_level`: the first call was in no named part.
    """

    def __init__(self, key: str, count: int, total: float, own: float, flops: int = 0, input_shapes: str = "",
                 top_level: bool = True) -> None:
        self.key, self.count, self.flops, self.input_shapes = key, count, flops, input_shapes
        self.top_level = top_level
        self.cpu_time_total, self.self_cpu_time_total, self.cpu_time = total, own, total / max(count, 1)

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} key={self.key} self_cpu_time={duration(self.self_cpu_time_total * 1e3)} "
                f"cpu_time={duration(self.cpu_time * 1e3)} count={self.count}>")


class Interval(NamedTuple):
    """From when to when, in microseconds since the profile began."""

    start: float
    end: float


class FunctionEvent(FunctionEventAvg):
    """One call of an op, or of a named part: `name`, and `time_range` on the clock."""

    def __init__(self, average: FunctionEventAvg, time_range: Interval) -> None:
        self.__dict__.update(vars(average))
        self.name, self.time_range = self.key, time_range


class EventList(list[FunctionEventAvg]):
    """Events or averages, with a table."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_src_column_width: int = 75,
              max_name_column_width: int = 55, max_shapes_column_width: int = 80, header: str | None = None,
              top_level_events_only: bool = False) -> str:
        """The table, of at most `row_limit` rows (-1: all). `sort_by`: "self_cpu_time_total", "cpu_time_total",
        "cpu_time", "count" or "flops"; the largest come first. `top_level_events_only`: without what ran in named
        parts. There is no column of sources: `max_src_column_width` has no effect."""
        sort_by = sort_by and sort_by.replace("cuda", "cpu").replace("device", "cpu")     # wherever they run
        if sort_by is not None and sort_by not in _SORTED_BY:
            raise ValueError(f"[profiler.table] sort_by must be one of {', '.join(_SORTED_BY)}; got {sort_by!r}")
        events = [e for e in self if e.top_level or not top_level_events_only]
        if sort_by is not None:
            events.sort(key=lambda e: -getattr(e, sort_by))
        own = sum(e.self_cpu_time_total for e in self)
        head = ["Name", "Self CPU %", "Self CPU", "CPU total", "CPU time avg", "# of Calls", "Input Shapes"]
        rows = [[e.key[:max_name_column_width], f"{e.self_cpu_time_total / (own or 1):.2%}",
                 *[duration(t * 1e3) for t in (e.self_cpu_time_total, e.cpu_time_total, e.cpu_time)], str(e.count),
                 e.input_shapes[:max_shapes_column_width]] for e in events[:None if row_limit < 0 else row_limit]]
        grouped_by_shape = any(e.input_shapes for e in self)
        made = Table(head, rows, title=header or "", numbers=head[1:6], cut=("Input Shapes", "Name"),
                     notes=[f"Self CPU time total: {duration(own * 1e3)}"])
        return (made if grouped_by_shape else made.without(("Input Shapes",))).text()

    def __str__(self) -> str:
        return self.table()


def _covers(part: Range, x: Launch | Range) -> bool:
    """Did it begin in this named part?"""
    return part.start <= x.start < part.start + part.time


class profile:
    """Profiles its `with` block, as `torch.autograd.profiler.profile` does; `study.profile` shows more.

    Shapes, operations, memory, modules and the user's lines (`with_stack`) are always noted, and launches on CUDA are
    timed too; the lines are in the file of `export_chrome_trace`. `use_cuda` and `use_device` ask for no more than
    that, and `use_kineto` chooses one of PyTorch's implementations: they have no effect. NotImplementedError for
    `use_cpu=False` and for the options `experimental_config`, `acc_events`, `custom_trace_id_callback`,
    `post_processing_timeout_s` and `activity_filters`, unless they are False or None. A profile can be entered once:
    RuntimeError.

    >>> with autograd.profiler.profile() as prof:
    ...     model(x).sum().backward()
    >>> print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))
    """

    def __init__(self, enabled: bool = True, *, use_cuda: bool = False, use_device: str | None = None,
                 record_shapes: bool = False, with_flops: bool = False, profile_memory: bool = False,
                 with_stack: bool = False, with_modules: bool = False, use_kineto: bool = False, use_cpu: bool = True,
                 experimental_config: Any = None, acc_events: bool = False, custom_trace_id_callback: Any = None,
                 post_processing_timeout_s: float | None = None, activity_filters: Any = None) -> None:
        refused = {"experimental_config": experimental_config, "acc_events": acc_events,
                   "custom_trace_id_callback": custom_trace_id_callback,
                   "post_processing_timeout_s": post_processing_timeout_s, "activity_filters": activity_filters}
        for name, value in refused.items():
            left_out("profiler.profile", name, value)
        if not use_cpu:
            raise NotImplementedError("[profiler.profile] use_cpu=False is not supported; leave it out")
        self.enabled, self.entered = enabled, False
        self.study: Profile = study_profile()

    def __enter__(self) -> profile:
        if self.enabled:
            if self.entered:
                fail("profiler.profile", "a profile can be entered once", "", "make another one for another block")
            self.entered = True
            self.study.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            self.study.__exit__(*error)

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """An average for each op (forward and backward apart) and each part named with `record_function`."""
        launches = self.study.launches
        rows = grouped(launches, lambda x: op_of(x) + (f"\n{shapes(x.operands)}" if group_by_input_shape else ""))
        names = dict.fromkeys(part.name for part in self.study.ranges)
        return EventList([*map(self._average, rows),
                          *[self._named([p for p in self.study.ranges if p.name == name]) for name in names]])

    @property
    def function_events(self) -> EventList:
        """An event for each call of an op and each named part, in the order in which they began."""
        calls: dict[Any, list[Launch]] = {}
        for i, x in enumerate(self.study.launches):
            calls.setdefault((x.call or -i - 1, op_of(x)), []).append(x)
        found = [FunctionEvent(self._average(Row(f"{name}\n{shapes(xs[0].operands)}").add(xs)),
                               Interval(xs[0].start / 1e3, (xs[-1].start + xs[-1].time) / 1e3))
                 for (_, name), xs in calls.items()]
        found += [FunctionEvent(self._named([part]), Interval(part.start / 1e3, (part.start + part.time) / 1e3))
                  for part in self.study.ranges]
        found.sort(key=lambda e: e.time_range)
        return EventList(found)

    def _average(self, row: Row) -> FunctionEventAvg:
        """Of an op. Its shapes stand in the second line of the row's name."""
        key, _, given = row.name.partition("\n")
        top = not row.counted or self._top_level(row.counted[0])
        return FunctionEventAvg(key, row.calls, row.time / 1e3, row.time / 1e3, row.flops, given, top)

    def _named(self, parts: list[Range]) -> FunctionEventAvg:
        """Of the parts of one name."""
        inside = sum(x.time for part in parts for x in self.study.launches if _covers(part, x))
        total = sum(part.time for part in parts)
        return FunctionEventAvg(parts[0].name, len(parts), total / 1e3, max(total - inside, 0) / 1e3,
                                top_level=self._top_level(parts[0]))

    def _top_level(self, x: Launch | Range) -> bool:
        return not any(part is not x and _covers(part, x) for part in self.study.ranges)

    def total_average(self) -> FunctionEventAvg:
        """The sum over all ops."""
        return self._average(Row("Total").add(self.study.launches))

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds in kernels."""
        return self.total_average().self_cpu_time_total

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_src_column_width: int = 75,
              max_name_column_width: int = 55, max_shapes_column_width: int = 80, header: str | None = None,
              top_level_events_only: bool = False) -> str:
        """The table of `key_averages()`."""
        return self.key_averages().table(sort_by, row_limit, max_src_column_width, max_name_column_width,
                                         max_shapes_column_width, header, top_level_events_only)

    def export_chrome_trace(self, path: str | PathLike[str]) -> None:
        """Writes the launches for Perfetto (`study.trace`)."""
        self.study.write(path)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return repr(self.study)
