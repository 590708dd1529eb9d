"""Where in the user's program something happens: the modules being called, the user's lines, the op that launches.

Anomaly detection and study ask for it while they are on; nothing else does. It is read from the frames on the stack.
An op's own frames are read by the names of their variables: `self` or `op` is the op, `plan` what it decided.
"""
from __future__ import annotations

import itertools
import linecache
import sys
import weakref
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from sys import getrefcount
from types import CodeType, FrameType
from typing import Any

from ..devices import launch_hook
from ..devices.memory import Array
from . import capture
from .engine import reachable
from .half import Wide
from .op import Documented, Op
from .own_kernels import launchers
from .tape import Node, edge_of
from .tensor import Tensor
from .warning import PACKAGE, warn

_LINES = 2                          # how many of the user's lines a place keeps
_OP_CALL, _WIDE_CALL = Op.__call__.__code__, Wide.at.__code__
calls: set[CodeType] = set()        # of the functions that call a module; `nn/module.py` adds its own
wholes: set[int] = set()            # the ids of the codes that record one node for all that runs: `Function.apply`
doors: set[str] = {str(sys.modules[launch_hook.__module__].__file__), capture.__file__}     # see `asker`
places: weakref.WeakKeyDictionary[Node, Place] = weakref.WeakKeyDictionary()    # of nodes recorded while someone looks


# ---- frames ----------------------------------------------------------------------------------------------------------

def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def asker(frame: FrameType | None) -> FrameType | None:
    """The frame that asked for a launch: without those between it and a launch hook, whose files are `doors`."""
    return next((f for f in frames(frame) if f.f_code.co_filename not in doors), None)


def calls_module(frame: FrameType) -> bool:
    """Is it the call of a module?"""
    code = frame.f_code
    return code.co_name == "__call__" and code in calls         # a look-up hashes all of the code, which is slow


def is_own(frame: FrameType) -> bool:
    """Does it run a function of this package, or one of a user's op that launches kernels?"""
    return frame.f_code.co_filename.startswith(PACKAGE) or id(frame.f_code) in launchers


def _count_lone() -> int:
    kept = sys._getframe().f_locals
    return getrefcount(kept)


_LONE = _count_lone()       # the getrefcount of `f_locals` that only its frame and one local variable refer to


def variables(frame: FrameType) -> dict[str, Any]:
    """The variables of a function of the user's. Until Python 3.13 a frame keeps what `f_locals` gave, and with it
    tensors that the function has dropped; so that is emptied, but not where somebody else refers to it: it is what the
    function got from `locals()`. Of a module it is no copy, and a debugger writes it back.
    """
    kept = frame.f_locals
    found = dict(kept)
    if (sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED and frame.f_trace is None
            and getrefcount(kept) <= _LONE):
        kept.clear()
    return found


_MARK = "the number of this call"
next_call = itertools.count(1).__next__


def call_number(frame: FrameType) -> int:
    """A number for the call that a frame of this package runs. It is kept among the frame's variables: frames have no
    other identity, since the next call may get the same memory."""
    found = frame.f_locals
    if _MARK not in found:
        found[_MARK] = next_call()
    return found[_MARK]


# ---- places ----------------------------------------------------------------------------------------------------------

class Place:
    """A place in the program, read from the stack in one pass.

    refs    weak references to the modules being called, outermost first: a module may hold a tensor whose node has
            this place. `modules` are those that still live
    types   the names of their types
    calls   a number for the call of each of them
    root    the name of the variable that holds the outermost one
    lines   the user's lines, innermost first: (file, number, function)
    within  the ops whose definition was running, outermost first: name, the reason why, a number for the call
    wholes  numbers for the calls of `wholes`, innermost first
    """

    __slots__ = ("refs", "types", "calls", "root", "lines", "within", "wholes")

    def __init__(self, frame: FrameType | None) -> None:
        modules: list[Any] = []
        numbers: list[int] = []
        lines: list[tuple[str, int, str]] = []
        within: list[tuple[str, str, int]] = []
        self.wholes: list[int] = []
        above: FrameType | None = None          # the caller of the outermost module
        for f in frames(frame):
            code = f.f_code
            if calls_module(f):
                modules.append(f.f_locals["self"])
                numbers.append(call_number(f))
                above = f.f_back
            elif not is_own(f):
                if len(lines) < _LINES:
                    lines.append((code.co_filename, f.f_lineno, code.co_name))
            elif code is _OP_CALL and type(f.f_locals.get("plan")) is str:
                within.append((f.f_locals["self"].name, f.f_locals["plan"], call_number(f)))
            elif code is _WIDE_CALL:
                within.append((f.f_locals["self"].op.name, f.f_locals["self"].why, call_number(f)))
            elif id(code) in wholes:
                self.wholes.append(call_number(f))
        self.refs, self.calls = tuple([weakref.ref(m) for m in reversed(modules)]), tuple(reversed(numbers))
        self.types = tuple([type(m).__name__ for m in reversed(modules)])
        self.lines, self.within = lines, tuple(reversed(within))
        self.root = _name_of(modules[-1], above) if modules else ""

    @property
    def modules(self) -> list[Any]:
        """The modules being called, outermost first, without those that are gone."""
        return [m for ref in self.refs if (m := ref()) is not None]

    def path(self) -> str:
        """The path of the innermost module, such as model.encoder.0.norm. The first name is that of the variable that
        holds the outermost module, or its type's name."""
        modules = self.modules
        if not modules:
            return ""
        names = [self.root]
        for outer, inner in zip(modules, modules[1:], strict=False):
            names.append(next((n for n, m in outer.named_modules() if m is inner), type(inner).__name__))
        return ".".join(n for n in names if n)

    def __str__(self) -> str:
        inside = f"in {self.path()} ({type(self.modules[-1]).__name__})" if self.modules else ""
        shown = [f"{_cell(file) or file}:{line} in {function}: {linecache.getline(file, line).strip()}"
                 for file, line, function in self.lines]
        return ", ".join(part for part in (inside, "at " + ", called from ".join(shown) if shown else "") if part)


def _name_of(module: Any, frame: FrameType | None) -> str:
    """The name of the variable that holds a module in the frame, or the name of the module's type."""
    if frame is not None and not is_own(frame):
        for names in (variables(frame), frame.f_globals):
            for name, value in names.items():
                if value is module:
                    return name
    return type(module).__name__


def _cell(file: str) -> str:
    """The cell of a notebook, "In [4]", whose code IPython compiled under the name of this file; "" for another one."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return f"In [{cells[file]}]" if file in cells else ""


def short_line(file: str, line: int) -> str:
    """A line of a file, without the folder: "train.py:12"; of a notebook "In [4]:12"."""
    return f"{_cell(file) or file.replace(chr(92), '/').rpartition('/')[2]}:{line}"


def note(node: Node, frame: FrameType | None) -> Place:
    """Notes where a node is recorded, unless somebody has noted it."""
    found = places.get(node)
    if found is None:
        found = places[node] = Place(frame)
    return found


# ---- ops -------------------------------------------------------------------------------------------------------------

class Asked:
    """Which op asked for a launch or a node, read from the frames between it and the user's line, or the module's.

    op     the op, None if there is none
    plan   what it decided for this call: a plan, or a text that says why its definition runs
    call   a number for the call, 0 without an op
    entry  a number for the call of this package by the user's program, or by the module
    """

    __slots__ = ("op", "plan", "call", "entry")

    def __init__(self, op: Any = None, entry: int = 0) -> None:
        self.op, self.plan, self.call, self.entry = op, None, 0, entry

    def name(self, kernel: str) -> str:
        """The op's name; without an op, that of the kernel without its dtype."""
        return self.op.name if self.op is not None else kernel.rpartition("_")[0] or kernel

    @property
    def why(self) -> str:
        """Which path of the op ran, and why."""
        if isinstance(self.plan, str):
            return f"definition: {self.plan}"
        return getattr(self.plan, "why", "") or ("fused kernel" if isinstance(self.op, Op) else
                                                 "primitive" if self.op is not None else "")


def asked(frame: FrameType | None, place: Place | None = None) -> tuple[Asked, Asked]:
    """The outermost call of an op, and the innermost one. With its place, an op of the user's counts that runs by its
    definition: the lines of the definition are the user's, too."""
    own: list[tuple[FrameType, dict[str, Any]]] = []                # with their variables, which are slow to get
    definitions = len(place.within) if place is not None else 0     # not passed yet
    for f in frames(frame):
        if calls_module(f):
            break
        if is_own(f):
            known, code = f.f_locals, f.f_code
            own.append((f, known))
            definitions -= code is _WIDE_CALL or code is _OP_CALL and type(known.get("plan")) is str
        elif definitions <= 0:
            break
    entry = call_number(own[-1][0]) if own else 0
    found: list[Asked] = []
    for f, known in reversed(own):
        op = known.get("self", known.get("op"))
        if isinstance(op, Documented):
            if not found or found[-1].op is not op:
                found.append(Asked(op, entry))
                found[-1].call = call_number(f)
            if found[-1].plan is None:              # the first function of an op may not know its plan yet
                found[-1].plan = known.get("plan")
    return (found[0], found[-1]) if found else (Asked(None, entry),) * 2


def parameters_behind(tensors: Any) -> dict[str, Tensor]:
    """The parameters that ask for gradients, by their paths, of the models that the graph of `tensors` runs through:
    of those whose nodes have a place."""
    roots: dict[int, tuple[str, Any]] = {}
    for node in reachable([edge_of(t) for t in tensors], frozenset()):
        place = places.get(node) if isinstance(node, Node) else None
        if place is not None and place.modules:
            roots.setdefault(id(place.modules[0]), (place.root, place.modules[0]))
    return {f"{name}.{path}": p for name, root in roots.values()
            for path, p in root.named_parameters() if p.requires_grad}


def warn_without_gradient(by: str, names: list[str]) -> None:
    """Warns of parameters that got no gradient, if there are any."""
    if names:
        warn(f"[{by}] these parameters got no gradient: {', '.join(names)}; "
             "nothing of the loss was computed from them, or detach() or no_grad() cut them off")


def arrays(frame: FrameType | None, wanted: set[int] | None = None) -> dict[int, Array]:
    """The arrays in the variables of the function that launches and of its three callers, by address. It ends where the
    user's program calls this package, or where all that are wanted have been found."""
    found: dict[int, Array] = {}
    inside = False
    for f, _ in zip(frames(frame), range(4), strict=False):
        here = is_own(f)
        if inside and not here or wanted is not None and wanted <= found.keys():
            break
        inside = here
        for value in list(f.f_locals.values()) if here else variables(f).values():
            for v in value if type(value) in (list, tuple) else (value,):
                kind = _kinds.get(type(v))
                if kind is None:
                    kind = _kinds[type(v)] = next((k for k in (Tensor, Array) if isinstance(v, k)), object)
                if kind is not object:
                    a = v.array if kind is Tensor else v
                    found.setdefault(a.ptr, a)
    return found


_kinds: dict[type, type] = {}       # Tensor, Array or object, by the type of a value
