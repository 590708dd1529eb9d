"""`detect_anomaly`: raises at the first value that is not finite, in forward or backward, and says which op made it, in
which module, at which line.

While it is off it costs nothing, because nothing else asks whether it is on. While it is on:

* a launch hook checks the operands of every launch, and then its result (`_Anomaly.launch`);
* `tape.observers` reports each node that is recorded, with its place in the program (`_Anomaly.note`);
* `engine.walk` is replaced, so that what the backward of each node returns is checked (`_Anomaly.walk`);
* `engine.backward` is replaced, to name the parameters that got no gradient;
* captured functions run eagerly.

Read first `Place`, then `_Anomaly.install`.
"""
from __future__ import annotations

import linecache
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..core import capture, engine
from ..core.modes import mode
from ..core.op import Documented
from ..core.shape import is_float
from ..core.tape import Node, Slot, edge_of, locators, observers
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices import launch_hook, open_device
from ..devices.base import Kernel
from ..devices.memory import Array
from ..nn.module import Module

_HERE = str(Path(__file__).parents[1])
_DOORS = (sys.modules[launch_hook.__module__].__file__, capture.__file__)     # what runs between an op and a hook
_CALLS = {Module.__call__.__code__}
_LINES = 2          # how many of the user's lines a message shows


class AnomalyError(RuntimeError):
    """Raised by `detect_anomaly` for a value that is not finite."""


# ---- where -----------------------------------------------------------------------------------------------------------

def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame and its callers, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


class Place:
    """A place in the program: the modules being called, outermost first, and the user's lines, innermost first."""

    __slots__ = ("modules", "root", "lines")

    def __init__(self, frame: FrameType | None) -> None:
        modules: list[Any] = []
        lines: list[tuple[str, int, str]] = []
        above: FrameType | None = None          # the caller of the outermost module
        for f in _frames(frame):
            if f.f_code in _CALLS:
                modules.append(f.f_locals["self"])
                above = f.f_back
            elif not f.f_code.co_filename.startswith(_HERE) and len(lines) < _LINES:
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
    if frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        for names in (frame.f_locals, frame.f_globals):
            for name, value in names.items():
                if value is module:
                    return name
    return type(module).__name__


def _op_name(frame: FrameType | None, kernel: str) -> str:
    """The name of the outermost op between the launch and the user's line; if there is none, the kernel's."""
    found = ""
    for f in _frames(frame):
        if not f.f_code.co_filename.startswith(_HERE) or f.f_code in _CALLS:
            break
        owner = f.f_locals.get("self", f.f_locals.get("op"))
        if isinstance(owner, Documented):
            found = owner.name
    return found.lstrip("_") or kernel.rpartition("_")[0] or kernel


# ---- what ------------------------------------------------------------------------------------------------------------

def _arrays(frame: FrameType | None) -> dict[int, Array]:
    """The arrays in the variables of the function that launches and of its three callers, by address."""
    found: dict[int, Array] = {}
    for f, _ in zip(_frames(frame), range(4), strict=False):
        for value in list(f.f_locals.values()):
            for v in value if type(value) in (list, tuple) else (value,):
                v = v.array if isinstance(v, Tensor) else v
                if isinstance(v, Array):
                    found.setdefault(v.ptr, v)
    return found


def _values(x: Any) -> np.ndarray | None:
    """The values of an array or a number, on the host, if they are floating point; else None."""
    if isinstance(x, Array):
        if not is_float(x.layout.dtype):
            return None
        x = x.np if x.layout.device.type == "cpu" else x.layout.device.download(x)
    if not isinstance(x, (np.ndarray, np.generic, float)) or not is_float(np.asarray(x).dtype):
        return None
    host = np.asarray(x)
    return host.astype(np.float32) if host.dtype.kind == "V" else host


def _kinds(values: Any) -> tuple[bool, bool]:
    """Whether there is a nan, and whether there is an inf."""
    host = _values(values)
    if host is None or np.isfinite(host).all():
        return False, False
    return bool(np.isnan(host).any()), bool(np.isinf(host).any())


def _describe(x: Any) -> str:
    """Dtype, shape, and how many elements are not finite."""
    host = _values(x)
    if host is None:
        return ""
    bad = int((~np.isfinite(host)).sum())
    return f"{host.dtype}{list(host.shape)}, {bad} of {host.size} elements"


# ---- the mode --------------------------------------------------------------------------------------------------------

class _Watch:
    """Takes the place of a node's op during a walk: the mode runs the op's backward and checks what it returns."""

    __slots__ = ("op", "mode")

    def __init__(self, op: Any, mode: _Anomaly) -> None:
        self.op, self.mode = op, mode

    @property
    def name(self) -> str:
        return self.op.name

    def backward(self, node: Node, g: Any, needs: list[bool]) -> Any:
        return self.mode.backward(self.op, node, g, needs)


class _Anomaly:
    """The mode while it is on: what it replaced, and what it knows about nodes."""

    def __init__(self) -> None:
        self.places: weakref.WeakKeyDictionary[Node, Place] = weakref.WeakKeyDictionary()
        self.walked: list[Node] = []            # the nodes whose backward runs, outermost first
        self.busy = False
        self.check_nan = True
        self.undo: list[Callable[[], None]] = []
        self.hook: launch_hook | None = None

    def swap(self, owner: Any, name: str, value: Any) -> Any:
        """Replaces an attribute until `remove`; returns the value it had."""
        before = owner.__dict__[name]
        self.undo.append(lambda: setattr(owner, name, before))
        setattr(owner, name, value)
        return before

    def install(self) -> None:
        """Switches the mode on."""
        observers.append(self.note)
        locators.append(self.locate)

        def walk(roots: list, *args: Any, **kwargs: Any) -> Any:
            return self.walk(plain_walk, roots, *args, **kwargs)
        plain_walk = self.swap(engine, "walk", walk)

        def backward(tensors: Any, gradients: Any, retain_graph: bool = False, inputs: Any = None,
                     create_graph: bool = False) -> None:
            missing = self.parameters(tensors) if inputs is None else {}
            plain_backward(tensors, gradients, retain_graph, inputs, create_graph)
            names = [name for name, p in missing.items() if p.grad is None]
            if names:
                warn(f"[detect_anomaly] these parameters got no gradient: {', '.join(names)}; "
                     "nothing of the loss was computed from them, or detach() or no_grad() cut them off")
        plain_backward = self.swap(engine, "backward", backward)

        def eager(captured: Any, *args: Any, **kwargs: Any) -> Any:
            return capture.mapped(captured.function(*args, **kwargs), Tensor.detach)
        self.swap(capture.Captured, "__call__", eager)
        open_device("cpu")                           # a hook sees the launches of devices that are open
        self.hook = launch_hook(self.launch)
        self.hook.__enter__()

    def remove(self) -> None:
        """Switches the mode off: puts everything back."""
        if self.hook is not None:
            self.hook.__exit__()
        for undo in reversed(self.undo):
            undo()
        observers.remove(self.note)
        locators.remove(self.locate)
        self.undo, self.hook = [], None

    # ---- a node ----

    def note(self, node: Node) -> None:
        """Remembers where a node is recorded; called for each node."""
        self.places[node] = Place(sys._getframe(1))

    def locate(self, edge: Any) -> str:
        """Where a node was recorded, for error messages of the engine; empty if it is not known."""
        place = self.places.get(edge) if type(edge) is Node else None
        return "" if place is None else f" ({place})"

    # ---- a launch ----

    def launch(self, kernel: Kernel, arguments: tuple) -> None:
        """The launch hook: runs a kernel, and raises if it makes nan, or inf out of finite values."""
        if self.busy or not self.check_nan or mode.recorder is not None or kernel.name.startswith("copy_"):
            return kernel.function(*arguments)          # a copy makes no values, and `cat` fills its output by several
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename in _DOORS:
            frame = frame.f_back
        self.busy = True
        try:
            if kernel.name == "host":
                name, out, read = getattr(arguments[0], "__name__", "host_"), arguments[1], list(arguments[2:])
            else:
                known, name = _arrays(frame), kernel.name
                typed = list(zip(kernel.signature, arguments, strict=True))
                pointers = [(kind, known.get(p)) for kind, p in typed if kind in "op" and p]
                out = next((a for kind, a in pointers if kind == "o"), None)    # the first: later ones may be scratch
                read = [a for kind, a in pointers if kind == "p"]
                read += [a for kind, a in typed if kind == "d"]
            given = [_kinds(x) for x in read]
        finally:
            self.busy = False
        kernel.function(*arguments)
        nan, inf = _kinds(out)
        nan_in, inf_in = any(n for n, _ in given), any(i for _, i in given)
        if nan and not nan_in:
            self.report("nan", _op_name(frame, name), out, "out of inf" if inf_in else "out of finite values", frame)
        if inf and not inf_in and not nan_in:
            self.report("inf", _op_name(frame, name), out, "out of finite values", frame)

    def report(self, what: str, op: str, out: Any, of: str, frame: FrameType | None) -> None:
        """Raises AnomalyError for a launch in the forward pass, or in the backward of a node."""
        got = _describe(out)
        if not self.walked:
            raise AnomalyError(f"[detect_anomaly] {op} made {what} {of}, {Place(frame)}; got {got}; "
                               "look at what it was given there")
        raise AnomalyError(self.of_backward(self.walked[-1], f"made {what} {of}", got))

    def of_backward(self, node: Node, did: str, got: str) -> str:
        """The message for an anomaly in the backward of a node."""
        place = self.places.get(node)
        where = ("recorded before detect_anomaly() was on: put the forward pass inside" if place is None
                 else f"recorded {place}")
        return (f"[detect_anomaly] the backward of {node.op.name} {did}, {where}; got {got}; "
                f"look at the inputs of {node.op.name} in the forward pass")

    # ---- a walk ----

    def walk(self, plain: Callable, roots: list, *args: Any, **kwargs: Any) -> Any:
        """The walk `plain`, with each node's op watched."""
        nodes = [n for n in engine.reachable(roots, frozenset()) if type(n) is Node and type(n.op) is not _Watch]
        for node in nodes:
            node.op = _Watch(node.op, self)
        try:
            return plain(roots, *args, **kwargs)
        finally:
            for node in nodes:
                node.op = node.op.op

    def backward(self, op: Any, node: Node, g: Any, needs: list[bool]) -> Any:
        """The backward of a node; errors name where it was recorded, gradients that are not finite raise."""
        self.walked.append(node)
        try:
            results = op.backward(node, g, needs)
        except AnomalyError:
            raise
        except Exception as error:
            place = self.places.get(node)
            if place is not None and hasattr(error, "add_note"):
                error.add_note(f"in the backward of {op.name}, recorded {place}")
            raise
        finally:
            self.walked.pop()
        if self.check_nan:
            for i, r in enumerate(results):
                nan, inf = _kinds(r.array) if isinstance(r, Tensor) else (False, False)
                if nan or inf:
                    came = any(any(_kinds(t.array)) for t in (g if type(g) is list else [g]) if t is not None)
                    did = f"gave {'nan' if nan else 'inf'} for its input {i}"
                    did += " of a gradient that was not finite" if came else ""
                    raise AnomalyError(self.of_backward(node, did, _describe(r.array)))
        return results

    def parameters(self, tensors: Any) -> dict[str, Tensor]:
        """The parameters of the models that the graph runs through, by their paths."""
        roots: dict[int, tuple[str, Any]] = {}
        for node in engine.reachable([edge_of(t) for t in tensors], frozenset()):
            place = None if type(node) is Slot else self.places.get(node)
            if place is not None and place.modules:
                roots.setdefault(id(place.modules[0]), (place.root, place.modules[0]))
        return {f"{name}.{path}": p for name, root in roots.values()
                for path, p in root.named_parameters() if p.requires_grad}


_on: _Anomaly | None = None


def is_anomaly_enabled() -> bool:
    """True while `detect_anomaly` (or `set_detect_anomaly`) is on."""
    return _on is not None


def is_anomaly_check_nan_enabled() -> bool:
    """True while `detect_anomaly` is on and looks at values (`check_nan`)."""
    return _on is not None and _on.check_nan


def _switch(enabled: bool, check_nan: bool) -> None:
    """Brings the mode to the given state."""
    global _on
    if enabled and _on is None:
        found = _Anomaly()
        found.install()
        _on = found
    elif not enabled and _on is not None:
        _on.remove()
        _on = None
    if _on is not None:
        _on.check_nan = check_nan


class set_detect_anomaly:
    """Switches `detect_anomaly` on or off: as a call, or for the length of a `with` block."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.before = is_anomaly_enabled(), is_anomaly_check_nan_enabled()
        _switch(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        _switch(*self.before)


class detect_anomaly:
    """Inside the `with` block, the first op that makes nan, or inf out of finite values, raises AnomalyError, in
    forward or backward. The message names the op, the module's path and the line of the forward pass. Values that are
    not finite when they come in, such as the -inf of an additive mask, are allowed.

    After `backward()`, a warning names the parameters that got no gradient. With `check_nan=False` values are not
    checked, but errors in backward still name the line of the forward pass. Slow: use it to find a fault.

    >>> with minigrad.autograd.detect_anomaly():
    ...     loss = criterion(model(x), y)
    ...     loss.backward()
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan

    def __enter__(self) -> None:
        self.before = is_anomaly_enabled(), is_anomaly_check_nan_enabled()
        _switch(True, self.check_nan)

    def __exit__(self, *_: object) -> None:
        _switch(*self.before)
