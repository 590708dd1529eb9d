"""How much a kernel computes, from the names of its arguments; `study.profile` reads it.

Each op states it beside its launches on CUDA:

    work("gemm", lambda k: 2 * k.batch * k.m * k.n * k.k)

A rule counts floating-point operations: a multiply-add is two; a comparison or a function such as exp is one. It reads
the arguments of a launch by the names that native/minigrad.h gives them. Arrays of int64 that say how to walk operands
(a plan, a geometry, a table) are read element by element (`k.plan[1]`). A kernel that only moves or draws values has no
rule, and is named without one: work("take gather").
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from .native import ffi

Rule = Callable[[Any], int]
TABLES = frozenset(("plan", "geometry", "table", "program"))        # the names of such arrays


class Arguments:
    """The arguments of a launch by name. `constants`: the tables of a GPU by address; None: they are in host memory."""

    def __init__(self, values: Mapping[str, Any], constants: Mapping[int, Any] | None = None) -> None:
        self.values, self.constants = values, constants

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__["values"][name]
        if name not in TABLES:
            return value
        return ffi.cast("int64_t *", value) if self.constants is None else self.constants[value].reshape(-1)


class Work(NamedTuple):
    """What one kernel does: floating-point operations, None if it counts none; how many elements it reads and writes
    where not all of them are in its arguments (an optimiser's are in its table)."""

    flops: Rule | None
    elements: Rule | None = None


WORK: dict[str, Work] = {}      # filled by `work` as the ops are imported


def work(names: str, flops: Rule | None = None, elements: Rule | None = None) -> None:
    """Says what kernels do; `names` are separated by spaces."""
    for name in names.split():
        WORK[name] = Work(flops, elements)


class Pieces(NamedTuple):
    """A kernel that tells when a piece of its output is written (`mg_written`): the output's name, and its elements."""

    output: str
    elements: Rule


PIECES: dict[str, Pieces] = {}      # filled by `pieces` as the ops are imported


def pieces(names: str, output: str, elements: Rule) -> None:
    """Says that kernels tell of the pieces of an output; `names` are separated by spaces."""
    for name in names.split():
        PIECES[name] = Pieces(output, elements)


class Follows(NamedTuple):
    """An elementwise kernel that may run on each piece of an array as soon as that is written, with operands of its
    element type. `light`: it waits for memory; others compute so long that fetching what is beyond the caches is
    hidden, and are faster alone there. `in_place`: its output may have the memory of any operand."""

    light: bool
    in_place: bool


FOLLOWS: dict[str, Follows] = {}    # filled by `follows` as the ops are imported


def follows(names: str, light: bool = False, in_place: bool = True) -> None:
    """Says that kernels may follow the launch that writes their operand; `names` are separated by spaces."""
    for name in names.split():
        FOLLOWS[name] = Follows(light, in_place)


# ---- rules that several ops use --------------------------------------------------------------------------------------

def each(count: int) -> Rule:
    """So many operations for each element of an elementwise kernel: its plan holds their number."""
    return lambda k: count * int(k.plan[1])


def reduced(count: int) -> Rule:
    """So many for each element that a reduction reads: its plan has {kept, reduced, sizes...}."""
    def rule(k: Any) -> int:
        plan = k.plan
        return count * prod(int(plan[2 + i]) for i in range(plan[0] + plan[1]))
    return rule
