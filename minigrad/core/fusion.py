"""Fusion: launches of a captured step that save a trip through memory, without new kernels and with the same bits.

Where a large array is written by one launch and changed element by element by the next, its elements go to memory and
come back. In a replay such a launch becomes a follower: it runs on each piece of the array as soon as that is written,
while it is in the caches (native/program.c). If nothing else reads what is in between (the output of a batch norm
before its relu: the graph keeps it, for a derivative of higher order that the step does not take), both write to the
same memory.

The rewrite, for a recorded list of launches (`Launch`):

    first  ...  then      becomes      (first, followed by then)  ...

if `first` is in `PRODUCERS` or an elementwise kernel, and `then` an elementwise kernel over the same elements that
reads what `first` writes; if the array is too large for the first-level cache; and if running `then` earlier changes
nothing: it writes to no memory that `first` and the launches in between touch, and reads none that they write, but for
that array. A launch can follow another follower: chains of any length run piece by piece. Launches whose results
nobody reads are left out before (`needed`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..devices.addresses import find
from ..devices.base import Kernel, split
from ..devices.launch import KERNELS
from ..devices.native import ffi
from ..devices.work import Arguments

# Kernels that say when a piece of their output is written (`mg_written`): the name of that output, and its elements.
PRODUCERS: dict[str, tuple[str, Callable[[Any], int]]] = {
    "layer_norm_forward": ("y", lambda k: k.rows * k.n),
    "rms_norm_forward": ("y", lambda k: k.rows * k.n),
    "batch_norm_forward": ("y", lambda k: k.batch * k.channels * k.inner),
    "batch_norm_eval_forward": ("y", lambda k: k.batch * k.channels * k.inner),
    "group_norm_forward": ("y", lambda k: k.batch * k.groups * k.cpg * k.inner),
    "max_pool_backward": ("gx", lambda k: k.geometry[0] * k.geometry[3] * k.geometry[4] * k.geometry[5]),
    "avg_pool_backward": ("gx", lambda k: k.geometry[0] * k.geometry[3] * k.geometry[4] * k.geometry[5]),
}
# Elementwise kernels that may follow, with operands of the kernel's element type. Those of LIGHT wait for memory; the
# others, and the rest of ops/activation.cu, compute so long that fetching what is beyond the caches is hidden: there
# they are faster alone.
LIGHT = frozenset("add sub mul div neg abs square reciprocal maximum minimum sqrt relu relu_backward leaky_relu "
                  "leaky_relu_backward relu6 relu6_backward hardtanh hardtanh_backward hardswish hardsigmoid".split())
HEAVY = frozenset("exp log tanh sigmoid".split())
NOT_IN_PLACE = frozenset(("tanh_backward", "sigmoid_backward"))     # they read operands after they wrote the output
_BYTES = {"f32": 4, "f64": 8}
_LARGE = 1 << 16            # bytes of an array from which on it pays
_CACHED = 1 << 22           # bytes that the caches keep from one launch to the next (CACHED_BYTES of native/loops.h)
_APART = 8                  # launches from the first to a follower, at most, that are not of the group


class Launch(NamedTuple):
    """A recorded launch. `freed`: the addresses of arrays that nothing refers to any more when the next one comes."""

    kernel: Kernel
    arguments: tuple
    freed: list[int]

    def words(self) -> list[int]:
        """The arguments as words of 8 bytes."""
        return [int(np.float64(value).view(np.int64)) if kind == "d" else value
                for kind, value in zip(self.kernel.signature, self.arguments, strict=True)]

    def memory(self, kinds: str) -> set[int]:
        """Which memory the arguments of these kinds point to: the first addresses of its regions; 0 if unknown."""
        found = [find(value) for kind, value in zip(self.kernel.signature, self.arguments, strict=True)
                 if kind in kinds and value]
        return {0 if region is None else region.ptr for region in found}


class _Array(NamedTuple):
    """What a launch writes, element by element: address, number of elements, their bytes."""

    ptr: int
    elements: int
    size: int


def _strides(launch: Launch) -> tuple[_Array, list[list[int]], int] | None:
    """What an elementwise launch writes, the strides of its operands in each dimension, the output's first, and which
    argument its plan is. None for other launches, and for arrays that it walks in another order than that of memory."""
    kernel, (name, suffix) = launch.kernel, split(launch.kernel.name)
    of_activations = name in KERNELS and KERNELS[name].file == "ops/activation.cu"
    if suffix not in _BYTES or "plan" not in kernel.names or not (name in LIGHT or name in HEAVY or of_activations):
        return None
    plan_at = list(kernel.names).index("plan")
    pointers = [i for i, kind in enumerate(kernel.signature) if kind in "op" and i != plan_at]
    dims, elements = (plan := ffi.cast("int64_t *", launch.arguments[plan_at]))[0], plan[1]
    if name not in LIGHT and elements * _BYTES[suffix] > _CACHED:
        return None
    strides = [[plan[2 + dims * (k + 1) + d] for d in range(dims)] for k in range(len(pointers))]
    whole = [prod([plan[2 + e] for e in range(d + 1, dims)]) for d in range(dims)]
    if strides[0] != whole or any([s[-1] not in (0, 1) for s in strides if s]):
        return None
    return _Array(launch.arguments[pointers[0]], elements, _BYTES[suffix]), strides, plan_at


class _Follower(NamedTuple):
    """An elementwise launch over one dimension, `out[i] = f(operands[i], ...)`.

    `out` and `places` are the numbers of the arguments, `steps` what native/program.c calls steps.
    """

    launch: Launch
    out: _Array
    places: list[int]       # of the operands that have an element for each i; the output's is the first
    steps: list[int]

    def operands(self) -> list[int]:
        return [self.launch.arguments[i] for i in self.places[1:]]


def _follower(launch: Launch) -> _Follower | None:
    """How a launch walks its operands, if it is elementwise over one dimension."""
    walks = _strides(launch)
    if walks is None or len(walks[1][0]) != 1:
        return None
    out, strides, plan_at = walks
    pointers = [i for i, kind in enumerate(launch.kernel.signature) if kind in "op" and i != plan_at]
    steps = [0] * len(launch.kernel.signature)
    steps[plan_at] = -3 - len(pointers)
    places = [i for i, stride in zip(pointers, strides, strict=True) if stride == [1]]
    for i in places:
        steps[i] = out.size
    return _Follower(launch, out, places, steps)


def _written(launch: Launch) -> _Array | None:
    """What a launch writes, if it says so piece by piece: an elementwise one, or one of `PRODUCERS`."""
    name, suffix = split(launch.kernel.name)
    if name not in PRODUCERS:
        walks = _strides(launch)
        return walks and walks[0]
    output, elements = PRODUCERS[name]
    k = Arguments(dict(zip(launch.kernel.names, launch.arguments, strict=True)))
    return _Array(getattr(k, output), elements(k), _BYTES[suffix])


class _Group:
    """A launch and its followers, and their numbers. `arrays`: what each of them writes, the first launch first."""

    def __init__(self, first: Launch, number: int, writes: _Array) -> None:
        self.first, self.number, self.arrays = first, number, [writes]
        self.followers: list[_Follower] = []
        self.numbers: list[int] = []
        self.unused: list[bool] = []        # does nothing but the next follower read each of the arrays but the last?

    def takes(self, follower: _Follower, others: list[Launch]) -> bool:
        """May it run on the pieces? `others`: the launches from the first of the group on that are not of the group."""
        known, out = {a.ptr for a in self.arrays}, follower.out
        if out[1:] != self.arrays[-1][1:] or self.arrays[-1].ptr not in follower.operands():
            return False
        if len(others) > _APART or any(["table" in q.kernel.names for q in others]):
            return False                        # a table holds addresses of more memory
        mine, between = follower.launch.memory("o"), {r.ptr for p in known if (r := find(p)) is not None}
        reads = follower.launch.memory("p") - between
        touched = set().union(*[q.memory("op") for q in others])
        inside = [self.first, *[f.launch for f in self.followers]]
        free = {a.ptr for a, unused in zip(self.arrays, self.unused, strict=False) if unused}
        if 0 in mine | reads | touched or mine & touched or between & touched:
            return False
        if any([mine & q.memory("op") for q in inside]) and out.ptr not in free:
            return False
        written = set().union(*[q.memory("o") for q in [*others, *inside]])
        return not reads & written and out.ptr not in follower.operands()

    def add(self, follower: _Follower, number: int, later: Iterable[Launch]) -> None:
        """`number`: which launch it is; `later`: the launches after it."""
        self.numbers.append(number)
        self.unused.append(split(follower.launch.kernel.name)[0] not in NOT_IN_PLACE
                           and _unread(self.arrays[-1].ptr, follower.launch, later))
        self.followers.append(follower)
        self.arrays.append(follower.out)

    def places(self) -> list[int]:
        """Where each of the arrays is: one that only the next follower reads is where the next one is."""
        found = [self.arrays[-1].ptr]
        for array, unused in zip(reversed(self.arrays[:-1]), reversed(self.unused), strict=True):
            found.insert(0, found[0] if unused else array.ptr)
        return found

    def program(self) -> tuple[list[int], np.ndarray]:
        """The words of the first launch, and the list of its followers, as native/program.c reads them."""
        where = self.places()
        first = [where[0] if kind == "o" and word == self.arrays[0].ptr else word
                 for kind, word in zip(self.first.kernel.signature, self.first.words(), strict=True)]
        rest = [where[0], self.arrays[0].size, len(self.followers)]
        for k, follower in enumerate(self.followers):
            words = follower.launch.words()
            for i in follower.places[1:]:
                if words[i] == self.arrays[k].ptr:
                    words[i] = where[k]
            words[follower.places[0]] = where[k + 1]
            rest += [follower.launch.kernel.row, len(words), *words, *follower.steps]
        return [self.first.kernel.row, *first], np.array([_signed(w) for w in rest], np.int64)


def needed(launches: list[Launch], own: set[int]) -> list[bool]:
    """Which launches of a step a replay needs: the others write only to memory of the recording (`own` has its first
    addresses) that nothing reads before it is freed. Of an array that is not freed somebody outside may know."""
    read = {region for launch in launches for region in launch.memory("o")}         # later, or by somebody outside
    found: list[bool] = []
    for launch in reversed(launches):
        read -= {region.ptr for ptr in launch.freed if (region := find(ptr)) is not None}
        writes = launch.memory("o")
        found.append(not writes or "table" in launch.kernel.names or not writes <= own or bool(writes & read))
        if found[-1]:
            read |= launch.memory("op")
    return found[::-1]


def _unread(ptr: int, launch: Launch, later: Iterable[Launch]) -> bool:
    """Is the array freed, after `launch`, before a later launch reads or writes its memory?"""
    region = find(ptr)
    if region is None or ptr in launch.freed:
        return region is not None
    for q in later:
        if "table" in q.kernel.names or region.ptr in q.memory("op"):
            return False
        if ptr in q.freed:
            return True
    return False


def _signed(word: int) -> int:
    return word if word < 1 << 63 else word - (1 << 64)


def groups(launches: list[Launch], later: list[Launch]) -> list[_Group]:
    """The launches that others may follow, with those that do. `later`: the launches of the step after these."""
    found: list[_Group] = []
    member: dict[int, _Group] = {}              # the group of each launch, by its number
    for i, launch in enumerate(launches):
        follower = _follower(launch)
        writes = _written(launch)
        if writes is None or writes.elements * writes.size < _LARGE:
            continue
        group = _group_for(follower, i, launches, found, member) if follower is not None else None
        if group is not None and follower is not None:
            group.add(follower, i, chain(launches[i + 1:], later))
        else:
            found.append(group := _Group(launch, i, writes))
        member[i] = group
    return found


def fused(launches: list[Launch], later: list[Launch]) -> tuple[np.ndarray, int, list[np.ndarray]]:
    """The words of a program, as native/program.c reads them, how many launches they have, and what they point to."""
    with_followers = [group for group in groups(launches, later) if group.followers]
    first_of = {group.number: group for group in with_followers}
    left_out = {i for group in with_followers for i in group.numbers}
    words: list[int] = []
    lists: list[np.ndarray] = []
    for i, launch in enumerate(launches):
        if i in first_of:
            first, followers = first_of[i].program()
            lists.append(followers)
            words += [followers.__array_interface__["data"][0] + 1, *first]
        elif i not in left_out:
            words += [launch.kernel.row, *launch.words()]
    return np.array([_signed(w) for w in words], np.int64), len(launches) - len(left_out), lists


def _group_for(follower: _Follower, i: int, launches: list[Launch], groups: list[_Group],
               member: dict[int, _Group]) -> _Group | None:
    """The group that launch number i can follow: the latest that wrote one of its operands, or None."""
    for group in reversed(groups):
        if group.arrays[-1].ptr in follower.operands():
            others = [launches[j] for j in range(group.number + 1, i) if member.get(j) is not group]
            return group if group.takes(follower, others) else None
    return None
