"""`detect_anomaly`: raises at the first value that is not finite, in forward or backward, and says which op made it, in
which module, at which line.

While it is off it costs nothing, because nothing else asks whether it is on. While it is on:

* a launch hook checks the operands of every launch, and then its result (`_Anomaly.launch`);
* `tape.observers` reports each node that is recorded, with its place in the program (`_Anomaly.note`);
* it watches the backward of each node, and checks what it returns (`_Anomaly.backward`);
* `engine.backward` is replaced, to name the parameters that got no gradient;
* captured functions run eagerly.

Read `core/place.py` first, then `_Anomaly.install`.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from ..core import capture, engine
from ..core.hooks import RemovableHandle
from ..core.modes import mode
from ..core.place import Place, arrays, asked, asker, doors, note, parameters_behind, places, warn_without_gradient
from ..core.shape import is_float
from ..core.tape import Node, locators, observers
from ..core.tensor import Tensor
from ..core.watch import watch_backward
from ..devices import launch_hook, open_device
from ..devices.base import Kernel
from ..devices.memory import Array

doors.add(__file__)


class AnomalyError(RuntimeError):
    """Raised by `detect_anomaly` for a value that is not finite."""


# ---- what ------------------------------------------------------------------------------------------------------------

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

class _Anomaly:
    """The mode while it is on: what it replaced, and what it knows about nodes."""

    def __init__(self) -> None:
        self.walked: list[Node] = []            # the nodes whose backward runs, outermost first
        self.busy = False
        self.check_nan = True
        self.undo: list[Callable[[], None]] = []
        self.hook: launch_hook | None = None
        self.watch: RemovableHandle | None = None

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
        self.watch = watch_backward(self.backward)

        def backward(tensors: Any, gradients: Any, retain_graph: bool = False, inputs: Any = None,
                     create_graph: bool = False) -> None:
            missing = parameters_behind(tensors) if inputs is None else {}
            plain_backward(tensors, gradients, retain_graph, inputs, create_graph)
            warn_without_gradient("detect_anomaly", [name for name, p in missing.items() if p.grad is None])
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
        if self.watch is not None:
            self.watch.remove()
        for undo in reversed(self.undo):
            undo()
        observers.remove(self.note)
        locators.remove(self.locate)
        self.undo, self.hook, self.watch = [], None, None

    # ---- a node ----

    def note(self, node: Node) -> None:
        """Remembers where a node is recorded; called for each node."""
        note(node, sys._getframe(1))

    def locate(self, edge: Any) -> str:
        """Where a node was recorded, for error messages of the engine; empty if it is not known."""
        place = places.get(edge) if isinstance(edge, Node) else None
        return "" if place is None else f" ({place})"

    # ---- a launch ----

    def launch(self, kernel: Kernel, arguments: tuple) -> None:
        """The launch hook: runs a kernel, and raises if it makes nan, or inf out of finite values."""
        if self.busy or not self.check_nan or mode.recorder is not None or kernel.name.startswith("copy_"):
            return kernel.function(*arguments)          # a copy makes no values, and `cat` fills its output by several
        frame = asker(sys._getframe(1))
        self.busy = True
        try:
            if kernel.name == "host":
                name, out, read = getattr(arguments[0], "__name__", "host_"), arguments[1], list(arguments[2:])
            else:
                known, name = arrays(frame), kernel.name
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
            self.report("nan", name, out, "out of inf" if inf_in else "out of finite values", frame)
        if inf and not inf_in and not nan_in:
            self.report("inf", name, out, "out of finite values", frame)

    def report(self, what: str, kernel: str, out: Any, of: str, frame: FrameType | None) -> None:
        """Raises AnomalyError for a launch in the forward pass, or in the backward of a node."""
        got = _describe(out)
        if not self.walked:
            op = asked(frame)[0].name(kernel)
            raise AnomalyError(f"[detect_anomaly] {op} made {what} {of}, {Place(frame)}; got {got}; "
                               "look at what it was given there")
        raise AnomalyError(self.of_backward(self.walked[-1], f"made {what} {of}", got))

    def of_backward(self, node: Node, did: str, got: str) -> str:
        """The message for an anomaly in the backward of a node."""
        place = places.get(node)
        where = ("recorded before detect_anomaly() was on: put the forward pass inside" if place is None
                 else f"recorded {place}")
        return (f"[detect_anomaly] the backward of {node.op.name} {did}, {where}; got {got}; "
                f"look at the inputs of {node.op.name} in the forward pass")

    # ---- a backward ----

    def backward(self, node: Node, g: list, run: Callable[[], Any]) -> Any:
        """The backward of a node; errors name where it was recorded, gradients that are not finite raise."""
        self.walked.append(node)
        try:
            results = run()
        except AnomalyError:
            raise
        except Exception as error:
            place = places.get(node)
            if place is not None and hasattr(error, "add_note"):
                error.add_note(f"in the backward of {node.op.name}, recorded {place}")
            raise
        finally:
            self.walked.pop()
        if self.check_nan:
            for i, r in enumerate(results):
                nan, inf = _kinds(r.array) if isinstance(r, Tensor) else (False, False)
                if nan or inf:
                    came = any(any(_kinds(t.array)) for t in g if t is not None)
                    did = f"gave {'nan' if nan else 'inf'} for its input {i}"
                    did += " of a gradient that was not finite" if came else ""
                    raise AnomalyError(self.of_backward(node, did, _describe(r.array)))
        return results


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
