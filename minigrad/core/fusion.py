"""Fusion: launches of a captured step that save a trip through memory, without new kernels and with the same bits.

Where a large array is written by one launch and changed element by element by the next, its elements go to memory and
come back. In a replay such a launch becomes a follower: it runs on each piece of the array as soon as that is written,
while it is in the caches (native/program.c). If nothing else reads what is in between (the output of a batch norm
before its relu: the graph keeps it, for a derivative of higher order that the step does not take), both write to the
same memory.

The rewrite, for a recorded list of launches (`Launch`):

    first  ...  then      becomes      (first, followed by then)  ...

if `first` tells of its pieces (`pieces` beside its op) or is elementwise, and `then` a kernel that `follows` over the
same elements, and reads what `first` writes; if the array is too large for the first-level cache; and if running `then`
earlier changes nothing: it writes to no memory that `first` and the launches in between touch, and reads none that they
write, but for that array, of which it reads the elements of its own piece only. A launch can follow another follower:
chains of any length run piece by piece. Launches whose results nobody reads are left out before (`Uses.needed`).
"""
from __future__ import annotations

from bisect import bisect_right
from math import prod
from typing import NamedTuple

import numpy as np

from ..devices import open_device
from ..devices.addresses import find
from ..devices.base import Kernel, split
from ..devices.cpu import ALIGN
from ..devices.native import CACHED_BYTES, ffi
from ..devices.work import FOLLOWS, PIECES, Arguments

_BYTES = {"f32": 4, "f64": 8}
_LARGE = 1 << 16            # bytes of an array from which on it pays
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

    def addresses(self, kinds: str) -> list[int]:
        """The pointers among the arguments that are of these kinds, and not null."""
        return [value for kind, value in zip(self.kernel.signature, self.arguments, strict=True)
                if kind in kinds and value]

    def in_table(self) -> list[int]:
        """The addresses in its table, if it has one; the table is the program's own, and nothing changes it."""
        if "table" not in self.kernel.names:
            return []
        ptr = self.arguments[list(self.kernel.names).index("table")]
        if (region := find(ptr)) is None:
            return []
        held = self.kernel.device.constants.get(ptr)
        words = (held.ravel().tolist() if held is not None else
                 ffi.unpack(ffi.cast("int64_t *", ptr), (region.ptr + region.nbytes - ptr) // 8))
        return [word for word in words if find(word) is not None]


class Uses:
    """What each launch of a program reads and writes. Memory is named by the first of its addresses, 0 if unknown.

    launches  of the whole program, in order; elsewhere they are named by their numbers
    memory    which memory an address is in; regions that overlap (two views that came in one by one) are one
    reads     the memory that each launch may read, by the kinds of its arguments, and all that its table names
    writes    ... and write
    """

    def __init__(self, launches: list[Launch], memory: dict[int, int] | None = None) -> None:
        self.launches = launches
        named = [launch.in_table() for launch in launches]
        self.memory = memory or _memory({address for launch, more in zip(launches, named, strict=True)
                                         for address in (*launch.addresses("op"), *more)})
        self.reads, self.writes = ([{self.memory[a] for a in (*launch.addresses(kind), *more)}
                                    for launch, more in zip(launches, named, strict=True)] for kind in "po")
        self.used: dict[int, list[int]] = {}        # the launches that use a memory
        self.freed: dict[int, list[int]] = {}       # the launches after which an address is freed
        self.tables: list[int] = []                 # the launches that read a table: it holds addresses of more memory
        for i, launch in enumerate(launches):
            for name in self.reads[i] | self.writes[i]:
                self.used.setdefault(name, []).append(i)
            for address in launch.freed:
                self.freed.setdefault(address, []).append(i)
            if "table" in launch.kernel.names:
                self.tables.append(i)

    def needed(self, own: set[int]) -> list[bool]:
        """Which launches a replay needs: the others write only to memory of the recording (`own` has its first
        addresses) that nothing reads before it is freed. Of an array that is not freed somebody outside may know."""
        read = set().union(*self.writes)            # later, or by somebody outside
        found: list[bool] = []
        for launch, reads, writes in reversed(list(zip(self.launches, self.reads, self.writes, strict=True))):
            read -= {self.memory[ptr] for ptr in launch.freed if ptr in self.memory}
            found.append(not writes or "table" in launch.kernel.names or not writes <= own or bool(writes & read))
            if found[-1]:
                read |= reads | writes
        return found[::-1]

    def unread(self, ptr: int, number: int) -> bool:
        """Is the array freed, after launch `number`, before a later launch reads or writes its memory?"""
        if ptr in self.launches[number].freed:
            return True
        freed = _after(number, self.freed.get(ptr, []))
        uses = [_after(number, of) for of in (self.used.get(self.memory[ptr], []), self.tables)]
        return freed is not None and all([use is None or use > freed for use in uses])


def _after(number: int, numbers: list[int]) -> int | None:
    """The first of ascending numbers that is larger, or None."""
    at = bisect_right(numbers, number)
    return numbers[at] if at < len(numbers) else None


def _memory(addresses: set[int]) -> dict[int, int]:
    """The memory of each address, as `Uses` names it."""
    regions = {address: find(address) for address in addresses}
    found, first, end = {0: 0}, 0, 0
    for ptr, stop in sorted({(r.ptr, r.ptr + r.nbytes) for r in regions.values() if r is not None}):
        if ptr >= end:
            first = ptr
        found[ptr], end = first, max(end, stop)
    return {address: 0 if region is None else found[region.ptr] for address, region in regions.items()}


class _Array(NamedTuple):
    """What a launch writes, element by element: address, number of elements, their bytes."""

    ptr: int
    elements: int
    size: int


def _name(kernel: Kernel) -> tuple[str, str]:
    """The name and the type suffix of a kernel of the package; a kernel of a user may have the same name."""
    name, suffix = split(kernel.name)
    return (name, suffix) if getattr(open_device("cpu").kernels, name).member(suffix) is kernel else ("", "")


def elementwise(kernel: Kernel) -> bool:
    """Is it one of those that may follow?"""
    name, suffix = _name(kernel)
    return suffix in _BYTES and "plan" in kernel.names and name in FOLLOWS


def _strides(launch: Launch) -> tuple[_Array, list[list[int]], int] | None:
    """What an elementwise launch writes, the strides of its operands in each dimension, the output's first, and which
    argument its plan is. None for other launches, and for arrays that it walks in another order than that of memory."""
    if not elementwise(launch.kernel):
        return None
    kernel, (name, suffix) = launch.kernel, split(launch.kernel.name)
    plan_at = list(kernel.names).index("plan")
    pointers = [i for i, kind in enumerate(kernel.signature) if kind in "op" and i != plan_at]
    dims, elements = (plan := ffi.cast("int64_t *", launch.arguments[plan_at]))[0], plan[1]
    if not FOLLOWS[name].light and elements * _BYTES[suffix] > CACHED_BYTES:
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
        """The addresses of those that have an element for each i."""
        return [self.launch.arguments[i] for i in self.places[1:]]

    def shared(self) -> list[int]:
        """The addresses of those of which all i read one element."""
        launch = self.launch
        return [ptr for i, (kind, ptr) in enumerate(zip(launch.kernel.signature, launch.arguments, strict=True))
                if kind == "p" and ptr and i not in self.places]


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
    """What a launch writes, if it says so piece by piece: an elementwise one, or one of `PIECES`."""
    name, suffix = _name(launch.kernel)
    if name not in PIECES:
        walks = _strides(launch)
        return walks and walks[0]
    output, elements = PIECES[name]
    k = Arguments(dict(zip(launch.kernel.names, launch.arguments, strict=True)))
    return _Array(getattr(k, output), elements(k), _BYTES[suffix])


class _Group:
    """A launch and its followers, and their numbers. `arrays`: what each of them writes, the first launch first."""

    def __init__(self, uses: Uses, number: int, writes: _Array) -> None:
        self.uses, self.first, self.number, self.arrays = uses, uses.launches[number], number, [writes]
        self.followers: list[_Follower] = []
        self.numbers: list[int] = []
        self.unused: list[bool] = []        # does nothing but the next follower read each of the arrays but the last?
        self.others: list[int] = []         # the launches up to the last follower that are not of the group
        self.known, self.free = {writes.ptr}, set[int]()        # the addresses of the arrays, and of the unused ones
        self.between = {uses.memory[writes.ptr]}                # the memory of the arrays
        self.read, self.written = set(uses.reads[number]), set(uses.writes[number])     # the memory of all of them

    def since(self, number: int) -> list[int]:
        """The launches before this one, from the first of the group on, that are not of the group."""
        return [*self.others, *range((self.numbers or [self.number])[-1] + 1, number)]

    def takes(self, follower: _Follower, number: int) -> bool:
        """May launch `number` run on the pieces?"""
        uses, out, last = self.uses, follower.out, self.arrays[-1]
        if (out.elements, out.size) != (last.elements, last.size) or last.ptr not in follower.operands():
            return False
        if number - self.number - 1 - len(self.numbers) > _APART:
            return False
        others = self.since(number)
        if any(["table" in uses.launches[i].kernel.names for i in others]):
            return False                        # it holds addresses of more memory
        mine, between = uses.writes[number], self.between
        if any([uses.memory[ptr] in between and ptr not in self.known for ptr in follower.operands()]):
            return False                        # other elements than those of its own piece
        if any([uses.memory[ptr] in between for ptr in follower.shared()]):
            return False                        # one element, which all pieces need
        reads = uses.reads[number] - between
        read, written = (set().union(*[of[i] for i in others]) for of in (uses.reads, uses.writes))
        if 0 in mine | reads | read | written or mine & (read | written) or between & (read | written):
            return False
        if (mine & self.read or mine & self.written) and out.ptr not in self.free:
            return False
        return not (reads & written or reads & self.written) and out.ptr not in follower.operands()

    def add(self, follower: _Follower, number: int) -> None:
        """`number`: which launch it is."""
        last, uses = self.arrays[-1].ptr, self.uses
        self.others = self.since(number)
        self.numbers.append(number)
        self.unused.append(FOLLOWS[split(follower.launch.kernel.name)[0]].in_place and uses.unread(last, number))
        self.free.discard(last)                 # of several arrays, one after the other, at this address
        if self.unused[-1]:
            self.free.add(last)
        self.followers.append(follower)
        self.arrays.append(follower.out)
        self.known.add(follower.out.ptr)
        self.between.add(uses.memory[follower.out.ptr])
        self.read |= uses.reads[number]
        self.written |= uses.writes[number]

    def places(self) -> list[int]:
        """Where each of the arrays is: one that only the next follower reads is where the next one is."""
        found = [self.arrays[-1].ptr]
        for array, unused in zip(reversed(self.arrays[:-1]), reversed(self.unused), strict=True):
            found.append(found[-1] if unused else array.ptr)
        return found[::-1]

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


def _signed(word: int) -> int:
    return word if word < 1 << 63 else word - (1 << 64)


def groups(uses: Uses, begin: int, end: int) -> list[_Group]:
    """The launches from number `begin` up to `end` that others may follow, with those that do."""
    found: list[_Group] = []
    latest: dict[int, _Group] = {}              # the group that wrote an array last, by its address
    for i in range(begin, end):
        launch = uses.launches[i]
        writes = _written(launch)
        if writes is None or writes.elements * writes.size < _LARGE:
            continue
        follower = _follower(launch)
        before = [latest[ptr] for ptr in follower.operands() if ptr in latest] if follower is not None else []
        group = max(before, key=lambda group: group.number, default=None)
        if group is not None and follower is not None and group.takes(follower, i):
            group.add(follower, i)
        else:
            found.append(group := _Group(uses, i, writes))
        latest[writes.ptr] = group
    return found


def _copied_whole(uses: Uses, product: int, copy: int) -> bool:
    """Does launch `copy` copy all that the matrix product `product` writes, to a place that it may write to instead?

    So it is if nothing else reads what the product writes, nothing uses either place in between, and vectors begin at
    the same elements there."""
    (to, source, plan_at), first = uses.launches[copy].arguments, uses.launches[product]
    k, plan = dict(zip(first.kernel.names, first.arguments, strict=True)), ffi.cast("int64_t *", plan_at)
    if plan[0] != 1 or [plan[1], plan[3], plan[4]] != [k["m"] * k["n"], 1, 1] or k["crs"] != k["n"] or k["batch"] != 1:
        return False
    if k["accumulate"] or (to - source) % ALIGN or not uses.unread(source, copy):
        return False
    places, others = {uses.memory[to], uses.memory[source]}, range(product + 1, copy)
    if len(others) > _APART or any(["table" in uses.launches[i].kernel.names for i in others]):
        return False
    used = uses.reads[product].union(*[uses.reads[i] | uses.writes[i] for i in others])
    return not used & places and 0 not in used | places


def placed(uses: Uses, begin: int, end: int) -> tuple[dict[int, int], set[int]]:
    """Where products write instead whose output is only copied, by their numbers; and the numbers of those copies."""
    where: dict[int, int] = {}
    copies: set[int] = set()
    latest: dict[int, int] = {}                 # the product that wrote an array last, by its address
    for i in range(begin, end):
        launch = uses.launches[i]
        name = _name(launch.kernel)[0]
        if name == "gemm":
            latest[launch.arguments[0]] = i
        elif name == "copy" and launch.arguments[1] in latest:
            product = latest.pop(launch.arguments[1])
            if _copied_whole(uses, product, i):
                where[product] = launch.arguments[0]
                copies.add(i)
    return where, copies


def fused(uses: Uses, begin: int, end: int) -> tuple[np.ndarray, int, list[np.ndarray]]:
    """The words for native/program.c of the launches from `begin` up to `end`, how many of them they name, and what
    they point to."""
    with_followers = [group for group in groups(uses, begin, end) if group.followers]
    first_of = {group.number: group for group in with_followers}
    where, left_out = placed(uses, begin, end)
    left_out |= {i for group in with_followers for i in group.numbers}
    words: list[int] = []
    lists: list[np.ndarray] = []
    for i in range(begin, end):
        if i in first_of:
            first, followers = first_of[i].program()
            lists.append(followers)
            words += [followers.__array_interface__["data"][0] + 1, *first]
        elif i not in left_out:
            launch = uses.launches[i]
            row, own = launch.kernel.row, launch.words()
            words += [row, where[i], *own[1:]] if i in where else [row, *own]
    return np.array([_signed(w) for w in words], np.int64), end - begin - len(left_out), lists
