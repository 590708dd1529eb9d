"""Capture: a whole training step, recorded once and replayed as one native call, on a GPU as one CUDA graph.

    step = minigrad.capture(step)       # or as a decorator

The first call with a new signature runs eagerly. A launch hook writes down each launch: the kernel's address and its
arguments, 8 bytes each, in the form that `native/program.c` replays; a device with a `graph` (`devices/graph.py`)
makes one of the launches instead. Later calls copy the tensor arguments into the recorded buffers and replay.
Addresses stay valid for two reasons. The buffers of the recording come from a private pool that the program owns. And
it keeps alive whatever else a launch points to: parameters, optimiser state, plans.

What changes from replay to replay is in memory that the launches read: the counter of the random generator, the
learning rate and the step count of an optimiser. Checks of values (indices, labels) run at each replay; what those of
a GPU find is raised later (`devices/flags.py`).

Whatever a step reads besides its arguments is compared before a replay (`notes.py`), and the step is recorded anew if
it changed; or it is carried: a gradient that was filled outside is copied in and back out (`_Grad`), and so is what the
step does to its arguments in place. A step that changes what it reads, other than in place, is not replayed: if the
next recording finds the same change again, it raises. Other Python code of the function runs at a recording only.

Each thread has programs of its own. One thread records at a time; the launch hook and the private pool are the
recording thread's, so other threads may compute meanwhile. Both have one switch, which the `finally` of `_record` sets
by plain assignments: an interrupt at any line leaves the process whole. Read `devices/private.py`,
`devices/addresses.py` (which memory an address belongs to) and `modes.py` (`mode.recorder`, `changed`) first.
"""
from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial, update_wrapper
from itertools import chain, compress, count
from sys import getprofile, getrefcount, setprofile
from threading import Lock, get_ident
from types import CellType, MethodType
from typing import Any
from weakref import ref

import numpy as np

from ..devices import launch_hook, launch_hooked, memory, open_device
from ..devices.addresses import find
from ..devices.base import Kernel
from ..devices.memory import Array, External
from ..devices.memory import layout as layout_of
from ..devices.native import lib
from ..devices.private import private_pool
from .arrays import contiguous_copy, copy_array, mover
from .fusion import Launch, Uses, fused
from .modes import mode, no_grad, paused
from .notes import ATOMS, Notes, may_read, own_class, watching
from .shape import fail
from .tensor import Tensor, bump, new_tensor
from .warning import PACKAGE, warn

_PROGRAMS = 128                 # of one captured function; then those of the longest unused signature are dropped
_WASTED = 20                    # recordings in a row, without a replay, of which one warns
_VARIANTS = 8                   # of one signature
_one_at_a_time = Lock()         # the launch hook and the private pool are one each: a second recording waits
_uses = count(1)


class Recorder:
    """Writes down the launches of one run, and what a replay must do besides. Active as `mode.recorder`."""

    def __init__(self, pool: private_pool) -> None:
        self.segments: list[Any] = []           # a `_Segment` of native launches, or a Python callable
        self.launches: list[Launch] = []
        self.last: Launch | None = None
        self.descriptions: list[Any] = []            # what a study says of each of these launches, for those of replays
        self.pins: dict[int, Any] = {}          # what launches pointed to outside the private pool, by its id
        self.known: set[int] = set()            # addresses that were looked up
        self.inside: list[Any] = []             # the regions of the private pool
        self.written: set[int] = set()          # addresses that launches write to
        self.before_replay: list[Callable[[], None]] = []
        self.grads: dict[int, _Grad] = {}       # by the id of the leaf
        self.inputs: set[int] = set()           # the ids of the arguments
        self.begun: dict[int, Any] = {}         # leaves that the step made (weak), by their ids
        self.optimizers: dict[int, Any] = {}    # those that made a step
        self.refills: list[tuple[Launch, Array]] = []           # what fills arrays of the host's anew, see `made`
        self.notes = Notes()
        self.pool, self.thread = pool, get_ident()
        self.paused = False                     # launches are run and not written down

    def visit(self, kernel: Kernel, arguments: tuple) -> None:
        """The launch hook: runs a launch and writes it down."""
        if get_ident() != self.thread or self.paused:       # a launch of another thread is only run
            kernel.function(*arguments)
            return
        origin = kernel.origin or kernel
        if kernel.name == "host":
            out = arguments[1]
            interface = getattr(out, "__cuda_array_interface__", None) or out.__array_interface__
            self.written.add(interface["data"][0])
            self.python(lambda: origin.call(*arguments))
            kernel.function(*arguments)
            return
        if self.launches and self.launches[-1].kernel.device is not kernel.device:
            self._close()
        for kind, value in zip(kernel.signature, arguments, strict=True):
            if kind in "op" and value:
                self.hold(value)
                if kind == "o":
                    self.written.add(value)
        self._note_freed()
        self.last = Launch(origin, arguments, [])
        self.launches.append(self.last)
        self.descriptions.append(None)
        kernel.function(*arguments)

    def made(self, array: Array) -> None:
        """Notes an array that the host filled. If launches change it, each replay gives it these values first."""
        if self.paused or get_ident() != self.thread or not array.layout.size:
            return
        layout, ptr = array.layout, array.ptr
        kept = memory.alloc_outside_pool(layout_of(layout.device, layout.dtype, layout.shape))
        self.paused = True
        try:
            copy_array(kept, array)
        finally:
            self.paused = False
        seen, written = self.last, ptr in self.written
        copy_array(array, kept)
        if self.last is None or self.last is seen:      # without a kernel, a callable does it: it stays
            return
        self.refills.append((self.last, array))
        if not written:
            self.written.discard(ptr)

    def _left_out(self) -> set[int]:
        """The launches of `made`, by their ids, whose array no other launch changes, or somebody outside knows: he sees
        that the changes add up."""
        recorded = chain(*[segment.launches for segment in self.segments if not callable(segment)])
        written = self.written.union(*[launch.in_table() for launch in recorded])
        found = set()
        for launch, array in self.refills:
            region = find(array.ptr)
            low, high = (array.ptr, array.ptr + 1) if region is None else (region.ptr, region.ptr + region.nbytes)
            if not any([low <= w < high for w in written]) or self._known_outside(array):
                found.add(id(launch))
        return found

    def _known_outside(self, array: Array) -> bool:
        """Is its memory that of a NumPy array to which something else refers, or of an object that is no array?"""
        if type(array) is not External:
            return False
        if _referred(array) > _OF_NEW + (id(array.block.np) in self.pins):
            return True
        of = array.block.np
        while of.base is not None:
            if not isinstance(of.base, np.ndarray) or _to_base(of) > _OF_BASE:
                return True
            of = of.base
        return False

    def hold(self, address: int) -> None:
        """Keeps the memory at an address alive as long as the program."""
        if address in self.known:
            return
        region = find(address)
        owner = None if region is None else region()
        if region is None or owner is None:
            raise RuntimeError(f"[capture] a launch points to memory without a known owner ({address:#x})")
        self.known.add(address)
        if region.ptr in self.pool.regions:
            self.inside.append(region)          # kept alive by `finish`: until then the private pool may reuse it
        else:
            self.pins[id(owner)] = owner

    def python(self, action: Callable[[], Any]) -> None:
        """Adds `action`, which replay calls in Python at this place."""
        self._close()
        self.segments.append(action)

    def _note_freed(self) -> None:
        """Adds what became free since the last launch to it. What a callable reads it refers to: that is not freed."""
        if self.last is not None:
            self.last.freed.extend(self.pool.freed)
        self.pool.freed.clear()

    def _close(self) -> None:
        """Ends the current run of native launches."""
        self._note_freed()
        if self.launches:
            self.segments.append(_Segment(self.launches, self.descriptions))
            self.launches, self.descriptions = [], []

    # ---- what the step reads ----

    def used(self, module: Any) -> None:
        """Notes a module that runs, with its members as they are now."""
        self.notes.visit(module, type(module).__name__)

    def begins(self, leaf: Tensor) -> None:
        """Notes a leaf that requires gradients from now on. One that was not found before is of this run alone: each
        replay stands for another one, without a gradient."""
        if leaf.node is None and leaf._grad is None and id(leaf) not in self.notes.tensors \
                and id(leaf) not in self.inputs and get_ident() == self.thread:
            self.begun[id(leaf)] = ref(leaf)

    def reads_grad(self, leaf: Tensor) -> None:
        """Notes that the step reads `leaf.grad`, or adds to it.

        A gradient from outside is an argument and a result: a replay copies that of its time in, and back out.
        """
        if id(leaf) in self.begun and self.begun[id(leaf)]() is leaf:
            self.writes_grad(leaf)
        elif self._notes_grad(leaf):
            self.notes.visit(leaf, "a leaf")
            note = self.grads[id(leaf)] = _Grad(leaf, True)
            g = note.given
            if g is not None and g.node is None:
                own = new_tensor(memory.alloc_outside_pool(layout_of(g.device, g.dtype, g.shape)), None)
                self.paused = True              # this copy is not part of the program
                try:
                    note.enter(own)
                finally:
                    self.paused = False

    def writes_grad(self, leaf: Tensor) -> None:
        """Notes that the step replaces `leaf.grad`: a replay need not find it as it was, unless it was read before."""
        if self._notes_grad(leaf):
            self.grads[id(leaf)] = _Grad(leaf, False)

    def _notes_grad(self, leaf: Tensor) -> bool:
        """Is this the first that the step does to `leaf.grad`? RuntimeError for an argument."""
        if id(leaf) in self.inputs:
            fail("capture", "a captured function cannot read or fill .grad of an argument", leaf.array.layout,
                 "return autograd.grad(loss, argument) instead")
        return id(leaf) not in self.grads and (leaf.node is None or id(leaf) in self.notes.tensors)

    def points_to(self, value: Any) -> bool:
        """Does a launch point to the memory of a tensor or array?"""
        if isinstance(value, np.ndarray):
            address = value.__array_interface__["data"][0]
        elif isinstance(value, (Tensor, Array)):
            address = value.ptr if isinstance(value, Array) else value.array.ptr
        else:
            return False
        region = find(address)
        return region is not None and id(region()) in self.pins

    def written_outside(self) -> set[int]:
        """The addresses outside the private pool that launches write to."""
        return {a for a in self.written if (region := find(a)) is not None and region.ptr not in self.pool.regions}

    def refuse(self, what: str) -> None:
        """Raises RuntimeError: `what` reads a value."""
        raise RuntimeError(f"[capture] {what} reads a value while recording, which replay cannot do; "
                           f"at {_user_line()}; read it outside the captured function, from a returned tensor")

    def finish(self) -> None:
        """Ends the recording, and keeps the memory of the private pool alive."""
        self._close()
        if self.refills:
            left_out = self._left_out()
            for segment in self.segments:
                if not callable(segment):
                    segment.leave_out(left_out)
            self.segments = [s for s in self.segments if callable(s) or s.launches]
        segments = [s for s in self.segments if not callable(s)]
        uses, begin = Uses([launch for segment in segments for launch in segment.launches]), 0
        marks = iter(uses.needed(self.pool.regions))
        used = [list(compress(segment.launches, marks)) for segment in segments]
        uses = Uses(list(chain(*used)), uses.memory)
        for segment, launches in zip(segments, used, strict=True):
            segment.fuse(uses, begin, begin + len(launches))
            begin += len(launches)
        for region in self.inside:
            owner = region()
            if owner is not None:
                self.pins[id(owner)] = owner


class _Segment:
    """A run of native launches on one device, as they were recorded and as what replays them, `run`."""

    def __init__(self, launches: list[Launch], descriptions: list[Any]) -> None:
        self.launches, self.descriptions = launches, descriptions

    def leave_out(self, left_out: set[int]) -> None:
        """Removes launches; what became free after one did so after the one before."""
        kept: list[tuple[Launch, Any]] = []
        for launch, description in zip(self.launches, self.descriptions, strict=True):
            if id(launch) not in left_out:
                kept.append((launch, description))
            elif kept:
                kept[-1][0].freed.extend(launch.freed)
        self.launches, self.descriptions = [k[0] for k in kept], [k[1] for k in kept]

    def fuse(self, uses: Uses, begin: int, end: int) -> None:
        """Sets `run`; its launches that are used are those from number `begin` up to `end` of the program. It is the
        device's own, or native/program.c on words (`fusion.py`)."""
        graph = self.launches[0].kernel.device.graph
        if graph is None:
            self.words, self.count, self.lists = fused(uses, begin, end)
            self.run = partial(lib.mg_replay, self.words.__array_interface__["data"][0], self.count)
        else:
            self.run = graph(uses.launches[begin:end])

    def launch_each(self) -> None:
        """Replays launch by launch, so that launch hooks see it; `mode.replayed` says what is known of each."""
        try:
            for launch, description in zip(self.launches, self.descriptions, strict=True):
                mode.replayed = (description,)
                launch.kernel.call(*launch.arguments)
        finally:
            mode.replayed = None


def _user_line() -> str:
    """The newest line on the stack that is not in this package."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(PACKAGE):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "unknown line"


class _Grad:
    """What a step does to `.grad` of a leaf.

    read    does it read the `.grad` that is there before? Otherwise it replaces it first
    given   that `.grad`, where it must be the same object at a replay (None, or a gradient with a graph)
    own     the tensor that stands for a gradient from outside in the program, or None
    final   what the step leaves in `.grad`
    """

    __slots__ = ("leaf", "read", "given", "own", "final", "layout")
    given: Any
    own: Any
    final: Any

    def __init__(self, leaf: Tensor, read: bool) -> None:
        self.leaf, self.read, self.own = leaf, read, None
        self.given = leaf._grad if read else None
        self.layout = None if self.given is None else self.given.array.layout

    def fits(self) -> bool:
        """Can the program use the gradient that is there now?"""
        g = self.leaf._grad
        if self.own is None:
            return g is self.given
        return g is not None and g.array.layout is self.layout and g.node is None

    def enter(self, own: Tensor) -> None:
        """Puts the gradient of now into the program, where `own` stands for it."""
        self.given = self.leaf._grad
        if self.given.array is not own.array:
            copy_array(own.array, self.given.array)
            self.own = self.leaf._grad = own

    def leave(self) -> None:
        """Sets `.grad` to what the step leaves there. The values of a gradient from outside go into its own tensor.

        That copy is left out if nothing but the leaf knows that tensor: then the program's takes its place.
        """
        own, final, given = self.own, self.final, self.given
        self.given = None
        if final is None or final.array is not own.array or given.array is own.array:
            self.leaf._grad = final
        elif getrefcount(given) == _ALONE and getrefcount(given.array) == _ALONE and _unseen(given.array):
            self.leaf._grad = own
        else:
            copy_array(given.array, own.array)
            bump(given)
            self.leaf._grad = given


def _unseen(array: Any) -> bool:
    """Does no view refer to the memory of this array?"""
    return type(array) is memory.Buffer and array.block.alone()


def _counts(arrays: list[Array]) -> list[int]:
    return [getrefcount(a) for a in arrays]


def _usual() -> tuple[int, int]:
    t = Tensor.__new__(Tensor)
    t.array = Array.__new__(Array)
    return getrefcount(t), _counts([t.array])[0]


def _referred(array: Array) -> int:
    return getrefcount(array.block.np)


def _to_base(of: np.ndarray) -> int:
    return getrefcount(of.base)


_OF_NEW = _referred(memory.external(np.empty(0), layout_of(open_device("cpu"), np.dtype(bool), (0,)), 0))
_OF_BASE = _to_base(np.empty((1, 1)).reshape(1))     # the getrefcount of a base that only its view refers to
_ALONE, _HELD = _usual()    # the getrefcount of what a variable holds, and of an array that a tensor and a list hold


class _Program:
    """One recorded signature."""

    def __init__(self, recorder: Recorder, given: list[Tensor], inputs: list[Tensor], arrays: list[Array],
                 outputs: Any) -> None:
        # is the memory of an argument also in a tensor that was returned or kept? Then it may come back as an argument
        self.exposed = any([n > _HELD for n in _counts(arrays)])
        self.segments = recorder.segments
        self.pins, self.pool = list(recorder.pins.values()), recorder.pool.pools
        self.arrays, self.outputs = arrays, outputs
        flat = outputs if type(outputs) is tuple else (outputs,)            # else the caller may change what holds them
        self.renewed = not all([type(v) is Tensor or type(v) in ATOMS for v in flat])
        self.moves = [mover(mine.layout, t.array.layout) for mine, t in zip(arrays, given, strict=True)]
        self.before_replay = recorder.before_replay
        # the arguments that the step changed in place: their numbers, and the arrays that hold the new values
        self.changed = [(i, t.array) for i, (t, a) in enumerate(zip(inputs, arrays, strict=True))
                        if t.array is not a or any(a.ptr <= w < a.ptr + a.layout.nbytes for w in recorder.written)]
        grads = recorder.grads.values()
        for g in grads:
            g.final = g.leaf._grad
        self.read = [g for g in grads if g.read]
        self.given = [(g, g.own) for g in self.read if g.own is not None]
        self.left = [(g.leaf, g.final) for g in grads if g.own is None]
        self.carried: list[tuple] = []          # (table, name, tensor): what the step assigns, and each replay again
        self.storages = recorder.notes.rewritten()
        self.outside = recorder.written_outside()
        self.used = 0                           # when it was replayed last

    def compare(self, notes: Notes) -> None:
        """Sets what is compared before each replay."""
        self.changes = mode.changes
        self.always, self.counted = notes.compared()

    def lost(self) -> bool:
        """Is some object that the step read another one now?"""
        return self.always.lost() or self.counted.lost()

    def fits(self) -> bool:
        """Is what the step reads besides its arguments as it was at the recording?"""
        if self.read and not all([g.fits() for g in self.read]) or not self.always.same():
            return False
        now = mode.changes
        if now != self.changes:
            if not self.counted.same():
                return False
            self.changes = now
        return True

    def replay(self, given: list[Tensor]) -> Any:
        """Runs the launches on these arguments, and returns the tensors of the recording with their new values."""
        for t in given:
            if t.array.ptr in self.outside:
                _shared(t)
        if self.exposed:            # an argument may lie in the memory of another one
            for mine, source in zip(self.arrays, [contiguous_copy(t.array) for t in given], strict=True):
                copy_array(mine, source)
        else:
            for move, mine, t in zip(self.moves, self.arrays, given, strict=True):
                if mine is not t.array:
                    move(mine, 0, t.array)
        for g, own in self.given:
            g.enter(own)
        for prepare in self.before_replay:
            prepare()
        for segment in self.segments:
            if callable(segment):
                segment()
            elif launch_hooked():
                segment.launch_each()
            else:
                segment.run()
        for leaf, final in self.left:
            leaf._grad = final
        if self.given or self.changed:
            self.leave(given)
        for storage in self.storages:
            storage.version += 1
        for table, name, value in self.carried:
            _assign(table, name, value)
        return self.results()

    def results(self) -> Any:
        """What the step returned; lists, dicts and records are made anew for each call."""
        return mapped(self.outputs, _itself) if self.renewed else self.outputs

    def leave(self, given: list[Tensor]) -> None:
        """Carries what the step did in place to gradients from outside and to its arguments to those tensors."""
        for g, _ in self.given:
            g.leave()
        if self.changed and len({id(t.array.storage) for t in given}) < len(given):
            fail("capture", "a captured function that changes an argument in place needs arguments in separate memory",
                 [t.array.layout for t in given], "pass a clone() of one of them")
        for i, array in self.changed:
            copy_array(given[i].array, array)
            bump(given[i])


def _shared(t: Tensor) -> None:
    fail("capture", "an argument must not share memory with what the function uses otherwise, if one of them is "
         "changed in place", t.array.layout, "let the function close over it, or pass a clone()")


def _itself(t: Tensor) -> Tensor:
    return t


def _assign(table: Any, name: Any, value: Any) -> None:
    if isinstance(table, CellType):
        table.cell_contents = value
    else:
        table[name] = value


class Captured:
    """A function whose launches are recorded by signature and replayed. Made by `capture`."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.programs: dict[tuple, list[_Program]] = {}
        self.moved: dict[tuple, set] = {}       # what the last recording of a signature changed itself, if anything
        self.refused: dict[tuple, str] = {}     # signatures whose step cannot be replayed, and why
        self.last: _Program | None = None       # that was replayed since the last recording
        self.unused = 0                         # recordings in a row, without a replay
        update_wrapper(self, function)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A captured method: the instance is its first argument."""
        return self if instance is None else MethodType(self, instance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Captured:
        """A captured function without recordings, of the copied function."""
        return Captured(copy.deepcopy(self.function, memo))

    def __repr__(self) -> str:
        count = sum(map(len, self.programs.values()))
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"<captured {name}: {count} recording{'' if count == 1 else 's'}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.recorder is not None:           # inside another recording: part of that one
            return self.function(*args, **kwargs)
        tensors: list[Tensor] = []
        parts: list[Any] = [get_ident(), not paused or mode.grad, mode.autocast]
        for value in args:
            if type(value) is Tensor:
                tensors.append(value)
                parts += value.array.layout, value._requires_grad
            else:
                parts.append(_signature(value, tensors))
        key = (*parts, _signature(kwargs, tensors) if kwargs else None)
        try:
            known = self.programs.get(key, ())
        except TypeError:
            raise TypeError("[capture] arguments that are not tensors must be hashable: their values are part of the "
                            f"signature; got {key[3:]}; pass an array as a tensor (from_numpy)") from None
        for program in known:
            if program.fits():
                if program is not self.last:
                    self.last, program.used = program, next(_uses)
                return program.replay(tensors)
        if key in self.refused:                 # refused before anything of it runs
            raise RuntimeError(self.refused[key])
        with _one_at_a_time:
            return self._record(key, args, kwargs, tensors)

    def _record(self, key: tuple, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Runs the function, and keeps a program of what it did if a replay can do the same."""
        self.unused, self.last = self.unused + 1 if self.last is None else 1, None
        if self.unused == _WASTED:
            warn(f"[capture] {_WASTED} calls in a row were recorded and none replayed, which takes longer than without "
                 "capture: the step changes what it reads (pass that as an argument), or each call has other shapes or "
                 f"values; in {self!r}")
        pool = memory.private()
        recorder = Recorder(pool)
        hook, watch = launch_hook(recorder.visit), None
        try:
            with pool:
                inputs = [_input(t) for t in tensors]
                arrays, recorder.inputs = [t.array for t in inputs], {id(t) for t in inputs}
                it = iter(inputs)
                own_args, own_kwargs = mapped((args, kwargs), lambda _: next(it))
                recorder.notes.walk([(self.function, "the function"), *_objects((args, kwargs))])
                if may_read(recorder.notes) and getprofile() is None:       # another profiler is not disturbed
                    watch = watching(recorder, Captured._record.__code__)
                with hook:
                    mode.recorder = recorder
                    if watch is not None:
                        setprofile(watch)
                    outputs = mapped(self.function(*own_args, **own_kwargs), Tensor.detach)
                    if isinstance(outputs, Iterator):
                        raise RuntimeError("[capture] the function returns an iterator, which its first call would use "
                                           "up; return a list")
                    mode.recorder = None
        finally:                                # plain assignments: no interrupt can come between them
            mode.recorder = None
            hook.on = pool.on = False
            if watch is not None and getprofile() is watch:
                setprofile(None)
        recorder.finish()
        program = _Program(recorder, tensors, inputs, arrays, outputs)
        for i, t in enumerate(tensors):
            if t.array.ptr in program.outside or recorder.points_to(t) and i in [n for n, _ in program.changed]:
                _shared(t)
        program.leave(tensors)
        before = self.moved.pop(key, set())
        try:
            program.carried, moved = recorder.notes.settle(recorder.points_to, before)
        except RuntimeError as error:
            self.refused[key] = str(error)
            raise
        if moved:                               # the next call reads other values than this one did: no replay
            self.moved = {key: moved, **dict(list(self.moved.items())[:_PROGRAMS])}
        elif not recorder.notes.anew:
            for optimizer in recorder.optimizers.values():
                optimizer._noted_step(recorder.notes)
            program.compare(recorder.notes)
            self._keep(key, program)
        return program.results()

    def _keep(self, key: tuple, program: _Program) -> None:
        """Adds a program; drops those that cannot fit again, and the longest unused if there are too many."""
        program.used = next(_uses)
        known = self.programs.get(key, [])
        fitting = [p for p in known if not p.lost()][1 - _VARIANTS:]
        self.programs[key] = [*fitting, program]
        while sum(map(len, self.programs.values())) > _PROGRAMS:
            del self.programs[min(self.programs, key=lambda k: max(p.used for p in self.programs[k]))]


def _objects(value: Any) -> list[tuple[Any, str]]:
    """The arguments that are neither tensors nor values: their attributes may change."""
    if isinstance(value, (tuple, list)):
        return [found for v in value for found in _objects(v)]
    if isinstance(value, dict):
        return [found for v in value.values() for found in _objects(v)]
    if _is_record(value):
        return [found for f in fields(value) for found in _objects(getattr(value, f.name))]
    return [] if isinstance(value, Tensor) else [(value, "an argument")]


def _input(t: Tensor) -> Tensor:
    """A copy of an argument in the program's own memory."""
    with no_grad():
        copied = t.clone()      # type: ignore[attr-defined]
    copied._requires_grad = t._requires_grad
    return copied


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """The layouts of tensors and the values of the rest, as a key. Appends the tensors to `tensors`, in order."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.array.layout, value._requires_grad
    if isinstance(value, (tuple, list)):
        return type(value), *[_signature(v, tensors) for v in value]
    if isinstance(value, dict):
        return type(value), *[(type(k), k, _signature(v, tensors)) for k, v in value.items()]
    if _is_record(value):
        return type(value), *[_signature(getattr(value, f.name), tensors) for f in fields(value)]
    if isinstance(value, (float, complex, np.generic)):
        return type(value), repr(value)         # 0.0 == -0.0, and nan is not equal to itself
    kind: Any = type(value)
    if kind in ATOMS or kind.__eq__ is object.__eq__ or kind.__hash__ is None or not own_class(kind):
        return kind, value
    frozen = getattr(kind, "__dataclass_params__", None)
    return kind, value if frozen is not None and frozen.frozen else _Itself(value)


class _Itself:
    """An object in a key, where an equal one is another one: the attributes that are compared are those of this one."""

    __slots__ = ("object",)

    def __init__(self, of: Any) -> None:
        self.object = of

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Itself) and other.object is self.object

    def __hash__(self) -> int:
        return id(self.object)


def _is_record(value: Any) -> bool:
    """Is it a dataclass that holds tensors? It is taken apart, as a dict is; others are objects."""
    return (is_dataclass(value) and not isinstance(value, type)
            and any([isinstance(getattr(value, f.name, None), Tensor) for f in fields(value)]))


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function(t)` in the place of each of its tensors t, in order: in tuples, lists, dicts, records."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        items = [mapped(v, function) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        found = copy.copy(value)                # an OrderedDict, a defaultdict
        found.update({k: mapped(v, function) for k, v in value.items()})
        return found
    if _is_record(value):
        found = copy.copy(value)
        for f in fields(value):
            object.__setattr__(found, f.name, mapped(getattr(value, f.name), function))
        return found
    return value


def capture(function: Callable) -> Captured:
    """Makes `function` record its kernel launches at the first call with each signature, and replay them later.

    The signature is: shapes, dtypes, devices, `requires_grad` of the tensor arguments; types and values of the others
    (objects: which object); grad mode and autocast; the thread. `function` may contain forward, backward, clipping,
    optimiser and scheduler, and call other captured functions. The next call with that signature overwrites the
    returned tensors and the gradients.

    Before a replay, all else that the code of `function` can reach is compared with what it was: `requires_grad`,
    train/eval mode, memory, members, attributes and hooks of modules and tensors; groups, state and flags of
    optimisers; closed-over variables, globals, attributes that the code spells out (all, if it computes names), classes
    of objects, code and defaults of functions, containers (of more than 4096 elements: the length), NumPy arrays up to
    1 MB, context variables, `os.environ`, the default dtype and device. If something changed, it is recorded anew.
    The latest 128 recordings are kept, 8 of a signature. Carried are gradients filled outside, numbers of optimisers
    (lr, betas), random numbers, changes in place of arguments and other tensors, and tensors that `function` only keeps
    (`self.last = y`).

    RuntimeError, with the line, where `function` reads a value (`item()`, `bool(t)`, `numpy()`, `data_ptr()`), and
    where it rebinds what it reads again (`self.h = cell(x, self.h)`, `p.data = ...`, `self.calls += 1`), advances an
    iterator, draws from `random` or `numpy.random`, reads the clock or a file: change it in place, or make it an
    argument and a result.
    RuntimeError too for `.grad` of an argument, and for arguments that share memory if one is changed in place. What
    else `function` does in Python (print, append to a list) it does at a recording only.

    What `function` returns is outside the graph: call `backward` inside. TypeError for a generator or a coroutine.

    On a GPU the launches between two Python actions are one CUDA graph (Gray 2019, "Getting started with CUDA graphs").
    A check of an index or a label is part of it; what it found is raised after a later replay, or where the host waits.

    >>> step = minigrad.capture(step)
    >>> loss = step(x, y)
    """
    if (inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)
            or inspect.isasyncgenfunction(function)):
        raise TypeError("[capture] a generator or a coroutine cannot be captured: it runs after the call; capture the "
                        "function that it calls for each step")
    return Captured(function)
