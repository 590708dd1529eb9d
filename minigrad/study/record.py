"""What happens in a `with` block, written down: launches, recorded nodes, and the backward of each node.

Every study reads a `Record`. It looks at the core through four public observers, which cost nothing while it is off:
`tape.observers` (each new node), `watch_backward` (each node's backward), `devices.launch_hook` (each launch, of
replays too) and `core/place.py` (modules and lines, read from the stack).

A launch of a replay has no stack. It is described as it was when it was recorded, if a record was on then
(`Recorder.descriptions`); otherwise only its kernel's name is known.
"""
from __future__ import annotations

import sys
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import get_ident
from time import perf_counter_ns
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ..core import engine
from ..core.hooks import RemovableHandle
from ..core.modes import mode, no_grad
from ..core.op import GradOp, Op, derived
from ..core.place import (
    Asked,
    Place,
    arrays,
    asked,
    asker,
    calls_module,
    doors,
    frames,
    is_own,
    next_call,
    note,
    places,
    short_line,
    variables,
)
from ..core.saved import contents
from ..core.tape import Node, observers
from ..core.tensor import Tensor
from ..core.watch import watch_backward
from ..devices import launch_hook, open_device, opened
from ..devices.addresses import find
from ..devices.base import Kernel, split
from ..devices.memory import Array, Layout
from ..devices.native import lib
from ..devices.work import TABLES, WORK, Arguments

if TYPE_CHECKING:
    from typing_extensions import Self

doors.add(__file__)


_NAMELESS = "replay; recorded while no study was on"


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
    of              a weak reference to the node whose backward asked for it, or None; `node` is that node, if it lives
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
    of: weakref.ref[Node] | None
    replayed: bool = False
    called_at: Place | None = None
    module: str = ""
    call: int = 0
    why: str = ""
    flops: int | None = None
    held: int = 0

    @property
    def node(self) -> Node | None:
        """The node whose backward asked for it, as long as it lives."""
        return None if self.of is None else self.of()

    @property
    def nameless(self) -> bool:
        """Is it of a replay of which only the kernel is known, since no record was on when the step was recorded?"""
        return self.why == _NAMELESS

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
    args: str | None = None


def line_of(place: Place | None) -> str:
    """The user's line that is nearest to a place, without the folder: "train.py:12"."""
    return short_line(*place.lines[0][:2]) if place is not None and place.lines else ""


@dataclass
class Backward:
    """The backward of one node: what flowed in and out, what it launched, what it gave free.

    op, place       the name of the node's op, and where it was recorded, None if no record saw that
    of              a weak reference to the node; `node` is that node, if it lives
    given, results  the gradients of its outputs and of its inputs, as `Record.look` sees them, None where there is none
    saved           the layouts of what was kept for it
    depth           0 for a node of the graph; more for nodes of a definition that a composite's backward ran again
    """

    op: str
    place: Place | None
    of: weakref.ref[Node]
    given: list[Any]
    results: list[Any]
    saved: list[Layout]
    depth: int
    start: int
    time: int = 0
    launches: list[Launch] = field(default_factory=list)

    @property
    def node(self) -> Node | None:
        """The node, as long as it lives."""
        return self.of()


@dataclass(frozen=True)
class Origin:
    """Where a node comes from, for as long as the node lives.

    place     modules and lines
    launches  those that made the node's outputs
    why       which path of its op ran, and why
    names     of leaves and saved tensors: (weak reference, the user's variable that holds the tensor)
    """

    place: Place
    launches: list[Launch]
    why: str
    names: list[tuple[weakref.ref, str]]


origins: weakref.WeakKeyDictionary[Node, Origin] = weakref.WeakKeyDictionary()     # every record adds to it


# of nodes recorded while someone looks: of each input that needs no gradient, a number as text, or its layout
constants: weakref.WeakKeyDictionary[Node, dict[int, Any]] = weakref.WeakKeyDictionary()


def note_constants(node: Node, frame: FrameType | None = None) -> None:
    """Notes the inputs of a new node that need no gradient: a node does not have those that its backward can do
    without. An observer of the tape; `frame` is that of `tape.recorded`."""
    caller = (frame or sys._getframe(1)).f_back
    if caller is None or None not in node.inputs:
        return
    known = caller.f_locals                         # the functions of `ops/dispatch.py` name two operands, or all
    inputs = known.get("inputs", (known.get("input"), known.get("other")))
    if "number" in known and type(known.get("index")) is int:
        inputs = (known["number"], known["input"])[::1 if known["index"] else -1]
    if isinstance(inputs, (tuple, list)) and len(inputs) == len(node.inputs):
        constants[node] = {i: number_of(x) or cast(Tensor, x).array.layout
                           for i, (x, edge) in enumerate(zip(inputs, node.inputs, strict=True))
                           if edge is None and isinstance(x, (Tensor, int, float))}


def number_of(x: Any) -> str:
    """The text of a number that an op was given; "" for other tensors."""
    if not isinstance(x, Tensor):
        return f"{x:.6g}"
    plain = not x.shape and x.node is None and x.device.type == "cpu"
    return f"{x.array.np.item():.6g}" if plain else ""


def _names_of(node: Node, frame: FrameType | None) -> list[tuple[weakref.ref, str]]:
    """The names of the variables that hold leaves or saved tensors of a node, in the user's innermost function."""
    kept = {id(t) for t in (*node.inputs, *[v for _, v in contents(node)]) if isinstance(t, Tensor)}
    user = next((f for f in frames(frame) if kept and not is_own(f)), None)
    held = variables(user) if user is not None else {}
    return [(weakref.ref(v), name) for name, v in held.items() if id(v) in kept]


def memory_of(node: Node) -> list[tuple[Array, bool]]:
    """The arrays that a node keeps for its backward, each memory once; and whether it is a tensor without a graph."""
    found: dict[int, tuple[Array, bool]] = {}
    for _, value in contents(node):
        array, given = (value.array, value.node is None) if isinstance(value, Tensor) else (value, False)
        if given or id(array.storage) not in found:
            found[id(array.storage)] = array, given
    return list(found.values())


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
    ranges      the parts that `record_function` named
    elapsed     nanoseconds from the begin of the block to its end

    `look(gradient)` says what is written down of a gradient, by default its layout. A record keeps no tensor, node or
    module alive: that would change what is freed and what is copied. `look` must not return the gradient or a view of
    it either, but `gradient.clone()`: backward goes on with its memory, and adds to it. What `look` launches is not
    written down. A record is used once: RuntimeError for a second time.
    """

    def __init__(self, look: Callable[[Tensor], Any] = lambda t: t.array.layout) -> None:
        self.look = look
        self.launches: list[Launch] = []
        self.backwards: list[Backward] = []
        self.ranges: list[Range] = []
        self.elapsed = 0
        self._running: list[tuple[Backward, Any, int]] = []    # those that have not returned: with op and `Launch.call`
        self._unclaimed: list[tuple[set[int], Launch]] = []     # whose node is not recorded yet: (numbers of calls, it)
        self._paths: dict[Any, str] = {}                # of modules, by their place
        self._replay: tuple[Launch, int] | None = None  # the last launch of a replay, and the number of its call
        self._hook: launch_hook | None = None
        self._watch: RemovableHandle | None = None
        self.began = self.thread = 0

    def __enter__(self) -> Self:
        if self.began:
            raise RuntimeError("[study] a record is used once; make a new one")
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

    def __repr__(self) -> str:
        return f"<record of {len(self.launches)} launches and {len(self.backwards)} steps of backward>"

    def doubts(self) -> list[str]:
        """What a reader should know that the record could not see, and what helps."""
        count = sum(x.nameless for x in self.launches)
        return [f"{count} launches are of a captured step that was recorded before this began: their ops, directions, "
                "modules and shapes are not known, and kernels' names stand there; make the first call of the captured "
                "function inside, for example minigrad.capture(step.function)(...), then call that again"
                ] if count else []

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
        if get_ident() != self.thread:
            return
        frame = sys._getframe(1)
        place = note(node, frame)
        note_constants(node, frame)
        _, call = asked(frame, place)
        same = call.op is node.op                           # else a `Function`, or a checkpoint: all that ran in it
        numbers = {call.call, call.entry} if same else {*place.wholes[:1]} or {call.entry}
        made = [x for calls, x in self._unclaimed if calls & numbers]
        self._unclaimed = [(calls - numbers, x) for calls, x in self._unclaimed if calls - numbers]
        why = _path(call, next((x.kernel for x in made if x.kernel.startswith("NumPy")), "")) if same else ""
        origins[node] = Origin(place, made, why, _names_of(node, frame))

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        """Notes the backward of a node."""
        if get_ident() != self.thread:
            return run()
        saved = [a.layout for a, _ in memory_of(node)]
        step = Backward(node.op.name, places.get(node), weakref.ref(node), self._seen(given), [], saved,
                        len(self._running), self.now())
        self.backwards.append(step)
        self._running.append((step, node.op, next_call()))
        try:
            results = run()
        finally:
            self._running.pop()
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
        launch, calls = self._launch(kernel, arguments, start - self.began, time, asker(sys._getframe(1)))
        self.launches.append(launch)
        recorder = mode.recorder
        if recorder is not None and not recorder.paused and kernel.name != "host" and recorder.thread == self.thread:
            recorder.descriptions[-1] = replace(launch, of=None, place=None, replayed=True)
        if self._running:
            self._running[-1][0].launches.append(launch)
        elif not launch.replayed:                       # the calls of others are over, and recorded no node
            self._unclaimed = [*[x for x in self._unclaimed if x[0] & calls], (calls, launch)]

    def _launch(self, kernel: Kernel, arguments: tuple, start: int, time: int,
                frame: FrameType | None) -> tuple[Launch, set[int]]:
        """What is known of a launch, and the numbers of the calls that it is in."""
        if mode.replayed is not None and mode.replayed[0] is not None:
            known: Launch = mode.replayed[0]
            return replace(known, start=start, time=time, call=self._replayed(known), held=_held()), set()
        replayed = mode.replayed is not None
        name, sizes, operands, nbytes, flops, update = self._arguments(kernel, arguments, None if replayed else frame)
        facts: dict[str, Any] = {"flops": flops, "held": _held(), "replayed": replayed}
        if replayed:
            direction = next((d for d in ("forward", "backward") if f"_{d}" in name), "update" if update else "")
            return Launch(name, _op_of_kernel(name), direction, operands, sizes, nbytes, start, time, None, None,
                          **facts, why=_NAMELESS), set()
        place = Place(frame)
        op, direction, called_at, call, why, calls = self._asked(frame, name, place)
        direction = "update" if update else direction
        of = self._running[-1][0].of if self._running else None
        return Launch(name, op, direction, operands, sizes, nbytes, start, time, place, of, **facts,
                      called_at=called_at, module=self.path(called_at), call=call, why=why), calls

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
            flops = None if work.flops is None else work.flops(k)
            if work.elements is not None:
                nbytes = work.elements(k) * (8 if suffix == "f64" else 4)
        return name, sizes, tuple(operands), nbytes, flops, work is not None and work.elements is not None

    def _asked(self, frame: FrameType | None, kernel: str,
               place: Place) -> tuple[str, str, Place | None, int, str, set[int]]:
        """Who asked for a launch: op, direction, place of the forward call, number of the call, path and reason; and
        the numbers of the calls whose nodes it may belong to."""
        if self._running:
            again, f = False, frame                     # does a definition run again?
            while f is not None and f.f_code is not Record._backward.__code__ and not calls_module(f):
                again = again or f.f_code is derived.__code__
                f = f.f_back
            if f is not None and not calls_module(f):
                at = len(self._running) - 1             # of the op whose definition runs: the outermost of such nodes
                while at and isinstance(self._running[at - 1][1], (Op, GradOp)):
                    at, again = at - 1, True
                step, op, call = self._running[at]
                why = "definition" if again else Asked(op).why
                return step.op, "backward", step.place, call, why, set()
        f, direction = frame, "forward"                 # here too: what a checkpoint computes again
        while f is not None and is_own(f) and not calls_module(f):
            direction = "backward" if f.f_code.co_filename == engine.__file__ else direction    # between nodes
            f = f.f_back
        outer, inner = asked(frame, place)
        why, calls = _path(outer, kernel if inner is outer else ""), {inner.call or inner.entry, *place.wholes}
        return outer.name(kernel), direction, place, outer.call or next_call(), why, calls

    def _replayed(self, known: Launch) -> int:
        """The number of the op's call that a launch of a replay belongs to."""
        last = self._replay
        same = last is not None and last[0].call == known.call and last[0].start < known.start
        number = last[1] if same and last is not None else next_call()
        self._replay = known, number
        return number


def _path(call: Asked, kernel: str) -> str:
    """Which path of an op ran, and why, by its call and a kernel that it launched itself."""
    if kernel.startswith("NumPy") and "NumPy" not in call.why:
        return "no kernel for this signature: NumPy"
    return call.why or f"kernel {kernel}"


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
