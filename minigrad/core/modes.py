"""The modes of a thread: is recording on, is a capture active, which kernels are used. Read `shape.py` first.

`mode` holds the switches; `no_grad`, `enable_grad` and `set_grad_enabled` set recording.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import wraps
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, TypeVar

from .decorated import decorated
from .warning import warn

if TYPE_CHECKING:
    from typing_extensions import Self

Function = TypeVar("Function", bound=Callable[..., Any])


class Mode(local):
    """Switches of a thread. `fused`, `kernels` and `changes` belong to the whole process: they are set on the class."""

    grad = True                 # operations are recorded
    inference = False           # inside `inference_mode`
    autocast: Any = None        # where autocast is on: pairs (type of device, dtype of products); None: nowhere
    recompute = False           # a checkpointed block is being run again
    streams: Any = None         # random streams of a loader's sample, which take the place of the default generators
    recorder: Any = None        # the active capture, or None; layers and optimisers report their use to it
    replayed: Any = None        # of a launch of a replay: (what a study said when it was recorded, or None,)
    fused = "auto"              # whether fused kernels are used: "auto", "off" or "require"
    kernels = 0                 # how often an op was given kernels of its own
    changes = 0                 # moves with each call of `changed`; captured programs read it


mode = Mode()
_changes = itertools.count(1)
watched: list[dict] = []        # dicts of the whole process that any step may read (hooks for all modules)


def changed() -> None:
    """Tells captured programs that something has changed which a step may read besides its arguments.

    Called after the change: a tensor has other memory or asks for gradients, a module has other members or attributes,
    a hook was added or removed, a default is another one. The programs then compare what they noted.
    """
    Mode.changes = next(_changes)       # never an earlier value, whatever other threads do meanwhile


paused: set[int] = set()        # the threads that switched recording off: while empty, `mode.grad` need not be read


def set_recording(on: bool) -> bool:
    """Switches recording on or off in this thread, and returns what it was. Only this function sets `mode.grad`: first
    when it goes on, last when it goes off. So an interrupt (Ctrl-C) between two lines leaves recording on.

    Reading a thread-local attribute takes 40 ns, so the hot path asks `not paused or mode.grad`."""
    before = mode.grad
    if on and not before:
        mode.grad = True
        paused.discard(get_ident())
    elif before and not on:
        paused.add(get_ident())
        mode.grad = False
    return before


class _Switch:
    """Switches recording on or off inside a `with` block or a decorated function; `enabled` says which. A decorated
    generator or coroutine function runs with it while its body runs; between the steps the caller's holds."""

    enabled: Any = False
    switch: Callable[[Any], Any] = staticmethod(set_recording)
    before: tuple = ()          # what `switch` returned before each `with` block that is open, the innermost first

    def __new__(cls, function: Callable | None = None) -> Self:
        self = super().__new__(cls)
        return self if function is None else self(function)     # type: ignore[return-value]

    def __enter__(self) -> None:
        self.before = self.switch(self.enabled), self.before

    def __exit__(self, *_: object) -> None:
        before, self.before = self.before
        self.switch(before)

    def __call__(self, function: Function) -> Function:
        name = type(self).__name__
        if not callable(function):
            raise TypeError(f"[{name}] decorates a function, or takes no argument; got {function!r}")
        if isinstance(function, type):
            warn(f"[{name}] decorates functions and methods: of the class {function.__name__} it covers the "
                 "construction only; decorate __init__ or the methods instead", FutureWarning)
            return decorated(function, self.enabled, self.switch)       # type: ignore[return-value]
        return wraps(function)(decorated(function, self.enabled, self.switch))          # type: ignore[return-value]


class no_grad(_Switch):
    """Inside, nothing is recorded. `with no_grad():`, `@no_grad()` or `@no_grad`.

    As a decorator it also takes generators, coroutines and async generators: it holds while their body runs, not for
    their caller between two steps. A `with` block that yields or awaits inside holds for the caller as well."""


class enable_grad(_Switch):
    """Inside, ops are recorded, also within `no_grad`. `with enable_grad():`, `@enable_grad()` or `@enable_grad`."""

    enabled = True


class set_grad_enabled(_Switch):
    """Switches recording on or off: from the call on, inside a `with` block, or inside a decorated function."""

    called = False              # `before` holds what recording was at the call: the first `with` block ends with it

    def __new__(cls, mode: bool) -> Self:
        if not isinstance(mode, bool):
            raise TypeError(f"[set_grad_enabled] mode must be a bool; got {mode!r}")
        self = super().__new__(cls)
        self.enabled, self.called = mode, True
        self.before = set_recording(self.enabled), ()
        return self

    def __enter__(self) -> None:
        if not self.called:
            super().__enter__()
        self.called = False
        set_recording(self.enabled)

    def __call__(self, function: Function) -> Function:
        set_recording(self.before[0])       # a decorator: nothing is switched until the function runs
        return super().__call__(function)


def is_grad_enabled() -> bool:
    """Are operations recorded in this thread?"""
    return mode.grad
