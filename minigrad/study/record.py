"""What happens in a `with` block, written down: launches, recorded nodes, and the backward of each node.

Every study reads a `Record`. It looks at the core through four public observers, which cost nothing while it is off:
`tape.observers` (each new node), `watch_backward` (each node's backward), `devices.launch_hook` (each launch, of
replays too) and `core/place.py` (modules and lines, read from the stack).
"""
from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from threading import get_ident
from time import perf_counter_ns
from types import FrameType
from typing import Any

from ..core import capture
from ..core.half import Wide
from ..core.hooks import RemovableHandle
from ..core.modes import no_grad
from ..core.op import Op
from ..core.place import Place, arrays, calls, frames, is_own, op_name, variables
from ..core.tape import FREED, Node, observers
from ..core.tensor import Tensor
from ..core.watch import watch_backward
from ..devices import launch_hook, open_device
from ..devices.addresses import find
from ..devices.base import Kernel, split
from ..devices.memory import Array, Layout
from ..devices.native import signatures

_BETWEEN = (sys.modules[launch_hook.__module__].__file__, capture.__file__, __file__)   # between an op and this hook


@cache
def _names() -> dict[str, list[str]]:
    """The names of each kernel's arguments."""
    return {name: signature.names for name, signature in signatures().items()}


@dataclass(frozen=True)
class Launch:
    """One kernel that ran.

    op, direction   the op that asked for it ("layer_norm", "forward" or "backward")
    operands        the layouts of the arrays it was given, None for other memory; an address appears once
    sizes           its numbers by name: {"rows": 64, "n": 512}
    nbytes          of all that memory
    start, time     nanoseconds: since the record began, and of the kernel alone
    place           modules and lines; None for a launch of a replay
    node            the node whose backward asked for it, or None
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
        if f.f_code in calls:
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


def saved_arrays(node: Node) -> list[Array]:
    """The arrays that a node keeps for its backward, each memory once."""
    found: dict[int, Array] = {}
    stack: list[Any] = [node.out, () if node.saved is FREED else node.saved]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            value = value.array
        if isinstance(value, Array):
            found.setdefault(id(value.storage), value)
        elif isinstance(value, (tuple, list)):
            stack += value
    return list(found.values())[::-1]


class Record:
    """In its `with` block, everything that this thread does is written down.

    launches    each kernel that ran, in order
    backwards   the backward of each node, in the order in which they began
    places      where each node was recorded, as long as the node lives
    made_by     the launches that made a node's outputs

    `look(gradient)` says what is written down of a gradient, by default its layout. A record keeps no tensor alive:
    that would change what is freed and what is copied. What `look` launches is not written down.
    """

    def __init__(self, look: Callable[[Tensor], Any] = lambda t: t.array.layout) -> None:
        self.look, self._looking = look, False
        self.launches: list[Launch] = []
        self.backwards: list[Backward] = []
        self.places: weakref.WeakKeyDictionary[Node, Place] = weakref.WeakKeyDictionary()
        self.made_by: weakref.WeakKeyDictionary[Node, list[Launch]] = weakref.WeakKeyDictionary()
        self._running: list[Backward] = []              # those that have not returned, outermost first
        self._unclaimed: list[Launch] = []              # forward launches whose node is not recorded yet
        self._undo: list[Callable[[], Any]] = []
        self.began = self.thread = 0

    def __enter__(self) -> Record:
        open_device("cpu")                              # a launch hook sees the devices that are open
        self.began, self.thread = perf_counter_ns(), get_ident()
        observers.append(self._recorded)
        watch: RemovableHandle = watch_backward(self._backward)
        hook = launch_hook(self._launched)
        hook.__enter__()
        self._undo = [lambda: hook.__exit__(), watch.remove, lambda: observers.remove(self._recorded)]
        return self

    def __exit__(self, *_: object) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def _recorded(self, node: Node) -> None:
        """Notes where a node was recorded, and which launches made its output."""
        if get_ident() == self.thread:
            place = self.places[node] = Place(sys._getframe(1))
            made = [x for x in self._unclaimed if x.place is not None and x.place.lines == place.lines]
            self.made_by[node], self._unclaimed = made, []
            origins[node] = _origin(node, place, made, sys._getframe(1))

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        """Notes the backward of a node."""
        if get_ident() != self.thread:
            return run()
        saved = [a.layout for a in saved_arrays(node)]
        step = Backward(node, self._seen(given), [], saved, len(self._running), perf_counter_ns() - self.began)
        self.backwards.append(step)
        self._running.append(step)
        try:
            results = run()
        finally:
            self._running.pop()
        step.time = perf_counter_ns() - self.began - step.start
        step.results = self._seen(results)
        return results

    def _seen(self, gradients: Sequence[Tensor | None]) -> list[Any]:
        self._looking = True
        try:
            with no_grad():
                return [None if g is None else self.look(g) for g in gradients]
        finally:
            self._looking = False

    def _launched(self, kernel: Kernel, arguments: tuple) -> None:
        """Runs a launch, and notes it."""
        start = perf_counter_ns()
        kernel.function(*arguments)
        time = perf_counter_ns() - start
        if self._looking or get_ident() != self.thread:
            return
        launch = self._launch(kernel, arguments, start - self.began, time, sys._getframe(1))
        self.launches.append(launch)
        if self._running:
            self._running[-1].launches.append(launch)
        elif launch.place is not None:
            self._unclaimed.append(launch)

    def _launch(self, kernel: Kernel, arguments: tuple, start: int, time: int, frame: FrameType | None) -> Launch:
        """What is known of a launch."""
        replayed = False
        while frame is not None and frame.f_code.co_filename in _BETWEEN:
            replayed = replayed or frame.f_code is capture._launch_each.__code__
            frame = frame.f_back
        name, sizes, operands, nbytes = kernel.name, {}, [], 0
        if name == "host":
            name = f"NumPy {getattr(arguments[0], '__name__', 'function')}"
            nbytes = sum(getattr(a, "nbytes", 0) for a in arguments[1:])
        else:
            known = {} if replayed else arrays(frame)
            seen = set()
            for kind, argument, value in zip(kernel.signature, _names()[name], arguments, strict=True):
                if kind not in "op":
                    sizes[argument] = value
                elif value and value not in seen:
                    seen.add(value)
                    array = known.get(value)
                    operands.append(None if array is None else array.layout)
                    nbytes += _size(value) if array is None else array.layout.nbytes
        node = self._running[-1].node if self._running else None
        if node is not None:
            op, direction = node.op.name, "backward"
        else:
            op = _op_of_kernel(name) if replayed else op_name(frame, name)
            direction = "backward" if replayed and "_backward" in name else "forward"
        return Launch(name, op, direction, tuple(operands), sizes, nbytes, start, time,
                      None if replayed else Place(frame), node, replayed)


def _size(address: int) -> int:
    """The bytes of the memory at an address, as far as it is known."""
    region = find(address)
    return 0 if region is None else region.ptr + region.nbytes - address


def _op_of_kernel(name: str) -> str:
    """The op that a kernel belongs to, by the kernel's name."""
    return split(name)[0].removesuffix("_forward").partition("_backward")[0]
