"""What happens in a `with` block, written down: launches, recorded nodes, and the backward of each node.

Every study reads a `Record`. It looks at the core through four public observers, which cost nothing while it is off:
`tape.observers` (each new node), `watch_backward` (each node's backward), `devices.launch_hook` (each launch, of
replays too) and `core/place.py` (modules and lines, read from the stack).

A launch of a replay has no stack. It is described as it was when it was recorded, if a record was on then
(`Recorder.descriptions`); otherwise only its kernel's name is known.
"""
from __future__ import annotations

import itertools
import sys
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import get_ident
from time import perf_counter_ns
from types import FrameType
from typing import Any

from ..core import capture, engine
from ..core.half import Wide
from ..core.hooks import RemovableHandle
from ..core.modes import mode, no_grad
from ..core.op import GradOp, Op, derived
from ..core.place import Place, arrays, calls_module, frames, is_own, op_frame, op_name, places, variables
from ..core.tape import FREED, Node, observers
from ..core.tensor import Tensor
from ..core.watch import watch_backward
from ..devices import launch_hook, open_device, opened
from ..devices.addresses import find
from ..devices.base import Kernel, split
from ..devices.memory import Array, Layout
from ..devices.native import lib
from ..devices.work import TABLES, WORK, Arguments

_BETWEEN = (sys.modules[launch_hook.__module__].__file__, capture.__file__, __file__)   # between an op and this hook


@dataclass(frozen=True)
class Launch:
    """One kernel that ran.

    op              the op that asked for it ("layer_norm")
    direction       "forward", "backward", "update" (of an optimiser or of gradients), or "" where it is not known
    operands        the layouts of the arrays it was given, None for other memory; an address appears once
    sizes           its numbers by name: {"rows": 64, "n": 512}
    nbytes          of all that memory
    start, time     nanoseconds: since the record began, and of the kernel alone
    place           modules and lines; None for a launch of a replay
    node            the node whose backward asked for it, or None
    called_at       the place of the op's forward call: for a backward that of its node, else `place`; None: not known
    module          the path of its module ("model.0"), or ""
    call            a number: the launches of one call of an op, or of one node's backward, have the same
    why             which path of the op ran, and why: "fused kernel on cpu", "definition: no fused kernel is defined"
    flops           floating-point operations by the rule beside the op (`devices/work.py`); None without a rule
    held            the bytes of tensors that were in use after it
    """

    kernel: str
    op: str
    direction: str
    operands: tuple[Layout | None, ...]
    sizes: dict[str, Any]
    nbytes: int
    start: int
    time: int
    place: Place | None
    node: Node | None
    replayed: bool = False
    called_at: Place | None = None
    module: str = ""
    call: int = 0
    why: str = ""
    flops: int | None = None
    held: int = 0

    @property
    def line(self) -> str:
        """The user's line of the op's forward call, such as "train.py:12"; "" if it is not known."""
        return line_of(self.called_at)


@dataclass(frozen=True)
class Range:
    """A part of the block that the user named with `record_function`; times as those of a launch."""

    name: str
    start: int
    time: int


def line_of(place: Place | None) -> str:
    """The user's line that is nearest to a place, without the folder: "train.py:12"."""
    if place is None or not place.lines:
        return ""
    file, line, _ = place.lines[0]
    return f"{file.replace(chr(92), '/').rpartition('/')[2]}:{line}"


@dataclass
class Backward:
    """The backward of one node: what flowed in and out, what it launched, what it gave free.

    given, results  the gradients of its outputs and of its inputs, as `Record.look` sees them, None where there is none
    saved           the layouts of what was kept for it
    depth           0 for a node of the graph; more for nodes of a definition that a composite's backward ran again
    """

    node: Node
    given: list[Any]
    results: list[Any]
    saved: list[Layout]
    depth: int
    start: int
    time: int = 0
    launches: list[Launch] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """Where a node comes from, for as long as the node lives. It keeps no module alive, whose gradients may hold nodes.

    modules   the modules being called, outermost first: (weak reference, name of the type, a number for the call)
    root      the name of the outermost one
    lines     the user's lines, as in `Place`
    within    the ops whose definition was running, outermost first: name, the reason why, a number for the call
    launches  the names of the kernels that made the node's outputs
    names     of leaves and saved tensors, by `id`: the user's variables that hold them
    """

    modules: tuple[tuple[weakref.ref, str, int], ...]
    root: str
    lines: list[tuple[str, int, str]]
    within: tuple[tuple[str, str, int], ...]
    launches: list[str]
    names: dict[int, str]


origins: weakref.WeakKeyDictionary[Node, Origin] = weakref.WeakKeyDictionary()     # every record adds to it


_MARK = "the number of this call"
_next_call = itertools.count(1).__next__


def _call(frame: FrameType) -> int:
    """A number for the call that a frame runs. It is kept among the frame's variables: frames have no other identity,
    since the next call may get the same memory."""
    found = frame.f_locals
    if _MARK not in found:
        found[_MARK] = _next_call()
    return found[_MARK]


def _origin(node: Node, place: Place, launches: list[Launch], frame: FrameType | None) -> Origin:
    """The origin of a node that is recorded in a frame."""
    modules, ops = [], []
    for f in frames(frame):
        if calls_module(f):
            module = f.f_locals["self"]
            modules.append((weakref.ref(module), type(module).__name__, _call(f)))
        elif f.f_code is Op.__call__.__code__ and type(f.f_locals.get("plan")) is str:
            ops.append((f.f_locals["self"].name.strip("_"), f.f_locals["plan"], _call(f)))
        elif f.f_code is Wide.at.__code__:
            ops.append((f.f_locals["self"].op.name.strip("_"), f.f_locals["self"].why, _call(f)))
    return Origin(tuple(modules[::-1]), place.root, place.lines, tuple(ops[::-1]), [x.kernel for x in launches],
                  _names_of(node, frame))


def _names_of(node: Node, frame: FrameType | None) -> dict[int, str]:
    """The names of the variables that hold leaves or saved tensors of a node, in the user's innermost function."""
    saved = node.saved[1] if isinstance(node.op, Op) else node.saved
    kept = {id(t) for t in (*node.inputs, *(saved if type(saved) is tuple else ())) if isinstance(t, Tensor)}
    user = next((f for f in frames(frame) if kept and not is_own(f)), None)
    return {id(v): n for n, v in variables(user).items() if id(v) in kept} if user is not None else {}


def kept_by(node: Node) -> list[tuple[Array, bool]]:
    """The arrays that a node keeps for its backward, each memory once; and whether it is a tensor without a graph."""
    found: dict[int, tuple[Array, bool]] = {}
    stack: list[Any] = [node.out, () if node.saved is FREED else node.saved]
    while stack:
        value, given = stack.pop(), False
        if isinstance(value, Tensor):
            given, value = value.node is None, value.array
        if isinstance(value, Array):
            if given or id(value.storage) not in found:         # a kernel keeps arrays, its op also the tensors
                found[id(value.storage)] = value, given
        elif isinstance(value, (tuple, list)):
            stack += value
    return list(found.values())[::-1]


def saved_arrays(node: Node) -> list[Array]:
    """The arrays that a node keeps for its backward, each memory once."""
    return [array for array, _ in kept_by(node)]


_active: list[Record] = []              # the records that are on, in all threads
_looking: set[int] = set()              # the threads whose launches are a study's own


@contextmanager
def unseen() -> Iterator[None]:
    """In this block, records do not write down what the thread launches."""
    me = get_ident()
    before = me in _looking
    _looking.add(me)
    try:
        yield
    finally:
        if not before:
            _looking.discard(me)


def active() -> list[Record]:
    """The records of this thread that are on, outermost first."""
    return [r for r in _active if r.thread == get_ident()]


class Record:
    """In its `with` block, everything that this thread does is written down.

    launches    each kernel that ran, in order
    backwards   the backward of each node, in the order in which they began
    places      where each node was recorded, as long as the node lives
    made_by     the launches that made a node's outputs
    ranges      the parts that `record_function` named
    elapsed     nanoseconds from the begin of the block to its end

    `look(gradient)` says what is written down of a gradient, by default its layout. A record keeps no tensor alive:
    that would change what is freed and what is copied. `look` must not return the gradient or a view of it either, but
    `gradient.clone()`: backward goes on with its memory, and adds to it. What `look` launches is not written down.
    """

    def __init__(self, look: Callable[[Tensor], Any] = lambda t: t.array.layout) -> None:
        self.look = look
        self.launches: list[Launch] = []
        self.backwards: list[Backward] = []
        self.places = places
        self.made_by: weakref.WeakKeyDictionary[Node, list[Launch]] = weakref.WeakKeyDictionary()
        self.ranges: list[Range] = []
        self.elapsed = 0
        self._running: list[Backward] = []              # those that have not returned, outermost first
        self._calls: list[int] = []                     # their numbers, as `Launch.call`
        self._unclaimed: list[Launch] = []              # forward launches whose node is not recorded yet
        self._paths: dict[Any, str] = {}                # of modules, by their place
        self._replay: tuple[Launch, int] | None = None  # the last launch of a replay, and the number of its call
        self._hook: launch_hook | None = None
        self._watch: RemovableHandle | None = None
        self.began = self.thread = 0

    def __enter__(self) -> Record:
        open_device("cpu")                              # a launch hook sees the devices that are open
        self.began, self.thread = perf_counter_ns(), get_ident()
        try:
            _active.append(self)
            observers.append(self._recorded)
            self._watch = watch_backward(self._backward)
            self._hook = launch_hook(self._launched)
            self._hook.__enter__()
            return self
        except BaseException:                           # Ctrl-C may come at any line
            self._off()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.elapsed = self.now()
            self._off()
        except BaseException:
            self._off()
            raise

    def _off(self) -> None:
        """Switches everything off, whatever of it is on."""
        if self._hook is not None:
            self._hook.__exit__()
        if self._watch is not None:
            self._watch.remove()
        if self._recorded in observers:
            observers.remove(self._recorded)
        if self in _active:
            _active.remove(self)
        self._hook = self._watch = None

    def now(self) -> int:
        """Nanoseconds since the record began."""
        return perf_counter_ns() - self.began

    def path(self, place: Place | None) -> str:
        """The path of the innermost module of a place, or ""."""
        if place is None or not place.refs:
            return ""
        key = (place.root, *place.refs)
        found = self._paths.get(key)
        if found is None:
            found = self._paths[key] = place.path()
        return found

    def _recorded(self, node: Node) -> None:
        """Notes where a node was recorded, and which launches made its output."""
        if get_ident() == self.thread:
            place = places.get(node)                    # a record around this one has noted it
            if place is None:
                place = places[node] = Place(sys._getframe(1))
            made = [x for x in self._unclaimed if x.place is not None and x.place.lines == place.lines]
            self.made_by[node], self._unclaimed = made, []
            origins[node] = _origin(node, place, made, sys._getframe(1))

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        """Notes the backward of a node."""
        if get_ident() != self.thread:
            return run()
        saved = [a.layout for a in saved_arrays(node)]
        step = Backward(node, self._seen(given), [], saved, len(self._running), self.now())
        self.backwards.append(step)
        self._running.append(step)
        self._calls.append(_next_call())
        try:
            results = run()
        finally:
            self._running.pop()
            self._calls.pop()
        step.time = self.now() - step.start
        step.results = self._seen(results)
        return results

    def _seen(self, gradients: Sequence[Tensor | None]) -> list[Any]:
        with unseen(), no_grad():
            return [None if g is None else self.look(g) for g in gradients]

    # ---- a launch ----

    def _launched(self, kernel: Kernel, arguments: tuple) -> None:
        """Runs a launch, and notes it."""
        start = perf_counter_ns()
        kernel.function(*arguments)
        if not _in_c(kernel) and kernel.name != "host":
            _wait()
        time = perf_counter_ns() - start
        if get_ident() != self.thread or get_ident() in _looking:
            return
        launch = self._launch(kernel, arguments, start - self.began, time, sys._getframe(1))
        self.launches.append(launch)
        recorder = mode.recorder
        if recorder is not None and not recorder.paused and _in_c(kernel) and recorder.thread == self.thread:
            recorder.descriptions[-1] = replace(launch, node=None, place=None, replayed=True)
        if self._running:
            self._running[-1].launches.append(launch)
        elif launch.place is not None:
            self._unclaimed.append(launch)

    def _launch(self, kernel: Kernel, arguments: tuple, start: int, time: int, frame: FrameType | None) -> Launch:
        """What is known of a launch."""
        replayed = False
        while frame is not None and frame.f_code.co_filename in _BETWEEN:
            if frame.f_code is capture.launch_each.__code__:
                replayed = True
                known = frame.f_locals["description"]
                if known is not None:
                    return replace(known, start=start, time=time, call=self._replayed(known), held=_held())
            frame = frame.f_back
        name, sizes, operands, nbytes, flops, update = self._arguments(kernel, arguments, None if replayed else frame)
        facts: dict[str, Any] = {"flops": flops, "held": _held(), "replayed": replayed}
        if replayed:
            direction = next((d for d in ("forward", "backward") if f"_{d}" in name), "update" if update else "")
            return Launch(name, _op_of_kernel(name), direction, operands, sizes, nbytes, start, time, None, None,
                          **facts, why="replay; recorded while no study was on")
        place = Place(frame)
        op, direction, called_at, call, why = self._asked(frame, name, place)
        direction = "update" if update else direction
        node = self._running[-1].node if self._running else None
        return Launch(name, op, direction, operands, sizes, nbytes, start, time, place, node, **facts,
                      called_at=called_at, module=self.path(called_at), call=call, why=why)

    def _arguments(self, kernel: Kernel, arguments: tuple, frame: FrameType | None) -> tuple:
        """The name, numbers, operands, bytes and operations of a launch; is it an optimiser's?"""
        name = kernel.name
        if name == "host":
            name = f"NumPy {getattr(arguments[0], '__name__', 'function')}"
            return name, {}, (), sum(getattr(a, "nbytes", 0) for a in arguments[1:]), None, False
        named = dict(zip(kernel.names, arguments, strict=True))
        sizes: dict[str, Any] = {}
        addresses: dict[int, None] = {}
        for kind, (argument, value) in zip(kernel.signature, named.items(), strict=True):
            if kind not in "op":
                sizes[argument] = value
            elif value and argument not in TABLES:
                addresses[value] = None
        known = arrays(frame, set(addresses))
        operands = [known[a].layout if a in known else None for a in addresses]
        nbytes = sum(_size(a) if x is None else x.nbytes for a, x in zip(addresses, operands, strict=True))
        family, suffix = split(name)
        work, flops = WORK.get(family), None
        if work is not None:
            k = Arguments(named, _constants(kernel))
            flops = work.flops(k)
            if work.elements is not None:
                nbytes = work.elements(k) * (8 if suffix == "f64" else 4)
        return name, sizes, tuple(operands), nbytes, flops, work is not None and work.elements is not None

    def _asked(self, frame: FrameType | None, kernel: str, place: Place) -> tuple[str, str, Place | None, int, str]:
        """Who asked for a launch: op, direction, place of the forward call, number of the call, path and reason."""
        if self._running:
            again, f = False, frame                     # does a definition run again?
            while f is not None and f.f_code is not Record._backward.__code__ and not calls_module(f):
                again = again or f.f_code is derived.__code__
                f = f.f_back
            if f is not None and not calls_module(f):
                at = len(self._running) - 1             # of the op whose definition runs: the outermost of such nodes
                while at and isinstance(self._running[at - 1].node.op, (Op, GradOp)):
                    at, again = at - 1, True
                op = self._running[at].node.op
                why = "definition" if again else _why(None, op)
                return op.name.strip("_"), "backward", places.get(self._running[at].node), self._calls[at], why
        found = op_frame(frame)                         # here too: what a checkpoint computes again
        f, direction = frame, "forward"
        while f is not None and is_own(f) and not calls_module(f):
            direction = "backward" if f.f_code.co_filename == engine.__file__ else direction    # between nodes
            f = f.f_back
        if found is None:
            return op_name(frame, kernel), direction, place, _next_call(), ""
        known, number = found.f_locals, _call(found)
        why = _why(known.get("plan"), known.get("self", known.get("op")))
        return op_name(found, kernel), direction, place, number, why

    def _replayed(self, known: Launch) -> int:
        """The number of the op's call that a launch of a replay belongs to."""
        last = self._replay
        same = last is not None and last[0].call == known.call and last[0].start < known.start
        number = last[1] if same and last is not None else _next_call()
        self._replay = known, number
        return number


def _why(plan: Any, op: Any) -> str:
    """Which path of an op ran, and why, by what it decided."""
    if isinstance(plan, str):
        return f"definition: {plan}"
    return getattr(plan, "why", "") or ("fused kernel" if isinstance(op, Op) else "primitive")


def _in_c(kernel: Kernel) -> bool:
    """Is it a C kernel, which captured steps replay?"""
    return kernel.row > 0


def _held() -> int:
    """The bytes of all tensors in use whose memory comes from the pools."""
    held: int = lib.mg_pools_held() - lib.mg_pools_unused()
    return held


def _wait() -> None:
    """Waits for the GPUs, so that a launch's time is the kernel's."""
    for device in opened():
        if device.type != "cpu":
            device.synchronize()            # type: ignore[attr-defined]


def _constants(kernel: Kernel) -> Mapping[int, Any] | None:
    """The tables that kernels of a GPU read, by address; None for the CPU's."""
    if _in_c(kernel):
        return None
    gpus: list[Any] = [device for device in opened() if device.type != "cpu"]
    return ChainMap(*[gpu.constants for gpu in gpus])


def _size(address: int) -> int:
    """The bytes of the memory at an address, as far as it is known."""
    region = find(address)
    return 0 if region is None else region.ptr + region.nbytes - address


def _op_of_kernel(name: str) -> str:
    """The op that a kernel belongs to, by the kernel's name."""
    return split(name)[0].removesuffix("_forward").partition("_backward")[0]
