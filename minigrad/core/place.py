"""Where in the user's program something happens: the modules being called, the user's lines, the op that launches.

Anomaly detection and study ask for it while they are on; nothing else does. It is read from the frames on the stack.
"""
from __future__ import annotations

import linecache
import sys
import weakref
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ..devices.memory import Array
from .engine import reachable
from .op import Documented
from .own_kernels import launchers
from .tape import Node, edge_of
from .tensor import Tensor
from .warning import warn

_HERE = str(Path(__file__).parents[1])
_LINES = 2                          # how many of the user's lines a place keeps
calls: set[CodeType] = set()        # of the functions that call a module; `nn/module.py` adds its own
places: weakref.WeakKeyDictionary[Node, Place] = weakref.WeakKeyDictionary()    # of nodes recorded while someone looks


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def calls_module(frame: FrameType) -> bool:
    """Is it the call of a module?"""
    code = frame.f_code
    return code.co_name == "__call__" and code in calls         # a look-up hashes all of the code, which is slow


def is_own(frame: FrameType) -> bool:
    """Does it run a function of this package, or one of a user's op that launches kernels?"""
    return frame.f_code.co_filename.startswith(_HERE) or id(frame.f_code) in launchers


def variables(frame: FrameType) -> dict[str, Any]:
    """The variables of a function of the user's. Until Python 3.13 a frame keeps what `f_locals` gave, and with it
    tensors that the function has dropped; so that is emptied. Of a module it is no copy, and a debugger writes it back.
    """
    found = dict(frame.f_locals)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED and frame.f_trace is None:
        frame.f_locals.clear()
    return found


class Place:
    """A place in the program: the modules being called, outermost first, and the user's lines, innermost first.

    It refers to modules weakly (`refs`): a module may hold a tensor whose node has this place.
    """

    __slots__ = ("refs", "root", "lines")

    def __init__(self, frame: FrameType | None) -> None:
        modules: list[Any] = []
        lines: list[tuple[str, int, str]] = []
        above: FrameType | None = None          # the caller of the outermost module
        for f in frames(frame):
            if calls_module(f):
                modules.append(f.f_locals["self"])
                above = f.f_back
            elif not is_own(f) and len(lines) < _LINES:
                lines.append((f.f_code.co_filename, f.f_lineno, f.f_code.co_name))
        self.refs, self.lines = tuple([weakref.ref(m) for m in reversed(modules)]), lines
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
        shown = [f"{file}:{line} in {function}: {linecache.getline(file, line).strip()}"
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


def op_frame(frame: FrameType | None) -> FrameType | None:
    """The call of the outermost op between a launch and the user's line, or the module's."""
    found = None
    for f in frames(frame):
        if not is_own(f) or calls_module(f):
            break
        if isinstance(_op(f), Documented):
            found = f
    return found


def _op(frame: FrameType) -> Any:
    known = frame.f_locals
    return known.get("self", known.get("op"))


def op_name(frame: FrameType | None, kernel: str) -> str:
    """The name of the outermost op between the launch and the user's line; if there is none, the kernel's."""
    found = op_frame(frame)
    return (_op(found).name.lstrip("_") if found is not None else "") or kernel.rpartition("_")[0] or kernel


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
        for value in list(f.f_locals.values()):
            for v in value if type(value) in (list, tuple) else (value,):
                kind = _kinds.get(type(v))
                if kind is None:
                    kind = _kinds[type(v)] = next((k for k in (Tensor, Array) if isinstance(v, k)), object)
                if kind is not object:
                    a = v.array if kind is Tensor else v
                    found.setdefault(a.ptr, a)
    return found


_kinds: dict[type, type] = {}       # Tensor, Array or object, by the type of a value
