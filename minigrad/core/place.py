"""Where in the user's program something happens: the modules being called, the user's lines, the op that launches.

Anomaly detection and study ask for it while they are on; nothing else does. It is read from the frames on the stack.
"""
from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ..devices.memory import Array
from .op import Documented
from .tensor import Tensor

_HERE = str(Path(__file__).parents[1])
_LINES = 2                          # how many of the user's lines a place keeps
calls: set[CodeType] = set()        # of the functions that call a module; `nn/module.py` adds its own


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_own(frame: FrameType) -> bool:
    """Does it run a function of this package?"""
    return frame.f_code.co_filename.startswith(_HERE)


def variables(frame: FrameType) -> dict[str, Any]:
    """The variables of a function of the user's. Until Python 3.13 a frame keeps what `f_locals` gave, and with it
    tensors that the function has dropped; so that is emptied. Of a module it is no copy, and a debugger writes it back.
    """
    found = dict(frame.f_locals)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED and frame.f_trace is None:
        frame.f_locals.clear()
    return found


class Place:
    """A place in the program: the modules being called, outermost first, and the user's lines, innermost first."""

    __slots__ = ("modules", "root", "lines")

    def __init__(self, frame: FrameType | None) -> None:
        modules: list[Any] = []
        lines: list[tuple[str, int, str]] = []
        above: FrameType | None = None          # the caller of the outermost module
        for f in frames(frame):
            if f.f_code in calls:
                modules.append(f.f_locals["self"])
                above = f.f_back
            elif not is_own(f) and len(lines) < _LINES:
                lines.append((f.f_code.co_filename, f.f_lineno, f.f_code.co_name))
        self.modules, self.lines = modules[::-1], lines
        self.root = _name_of(modules[-1], above) if modules else ""

    def path(self) -> str:
        """The path of the innermost module, such as model.encoder.0.norm. The first name is that of the variable that
        holds the outermost module, or its type's name."""
        if not self.modules:
            return ""
        names = [self.root]
        for outer, inner in zip(self.modules, self.modules[1:], strict=False):
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


def op_name(frame: FrameType | None, kernel: str) -> str:
    """The name of the outermost op between the launch and the user's line; if there is none, the kernel's."""
    found = ""
    for f in frames(frame):
        if not is_own(f) or f.f_code in calls:
            break
        owner = f.f_locals.get("self", f.f_locals.get("op"))
        if isinstance(owner, Documented):
            found = owner.name
    return found.lstrip("_") or kernel.rpartition("_")[0] or kernel


def arrays(frame: FrameType | None) -> dict[int, Array]:
    """The arrays in the variables of the function that launches and of its three callers, by address."""
    found: dict[int, Array] = {}
    for f, _ in zip(frames(frame), range(4), strict=False):
        for value in list(f.f_locals.values()):
            for v in value if type(value) in (list, tuple) else (value,):
                v = v.array if isinstance(v, Tensor) else v
                if isinstance(v, Array):
                    found.setdefault(v.ptr, v)
    return found
