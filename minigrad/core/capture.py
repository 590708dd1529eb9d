"""Capture: a whole training step, recorded once and replayed as one native call.

    step = minigrad.capture(step)       # or as a decorator

The first call with a new signature runs eagerly. A launch hook writes down each launch: the kernel's index and its
arguments, 8 bytes each, in the form that `native/program.c` replays. Later calls copy the tensor arguments into the
recorded buffers and replay. Addresses stay valid for two reasons. The buffers of the recording come from a private pool
that the program owns. And it keeps alive whatever else a launch points to: parameters, optimiser state, plans.

What changes from replay to replay is in memory that the launches read: the counter of the random generator, the
learning rate and the step count of an optimiser. Checks of values (indices, labels) run at each replay. If a parameter
got other memory, or a module other members, the step is recorded again. Everything else that is not a launch (a Python
number, a branch) keeps the value that it had at the recording.

While one thread records, no other thread may run ops. Read `devices/memory.py` (private pools), `devices/addresses.py`
(which memory an address belongs to) and `modes.py` (`mode.recorder`) first.
"""
from __future__ import annotations

import struct
import traceback
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from threading import Lock, get_ident
from types import MethodType
from typing import Any

import numpy as np

from ..devices import launch_hook, memory
from ..devices.addresses import Map
from ..devices.base import Kernel
from ..devices.native import lib
from .arrays import copy_array
from .modes import mode, no_grad
from .shape import fail
from .tensor import Tensor, new_tensor

_PACKAGE = str(Path(__file__).parent.parent)
_one_at_a_time = Lock()         # pools and launch hooks belong to the process: a second recording waits for the first


class Recorder:
    """Writes down the launches of one run, and what a replay must do besides. Active as `mode.recorder`."""

    def __init__(self, regions: Map) -> None:
        self.segments: list[Any] = []           # (words, count) of native launches, or a Python callable
        self.words: list[int] = []
        self.count = 0
        self.pins: dict[int, Any] = {}          # what launches pointed to outside the private pool
        self.inside: set[int] = set()           # addresses in the private pool
        self.map = regions
        self.modes: list[tuple[Any, bool]] = []
        self.before_replay: list[Callable[[], None]] = []
        self.leaves: dict[int, tuple[Tensor, Any]] = {}     # leaves whose .grad the step filled, and what it was
        self.emptied: set[int] = set()          # leaves whose .grad the step dropped before it filled it
        self.thread = get_ident()

    def visit(self, kernel: Kernel, arguments: tuple) -> None:
        """The launch hook: runs a launch and writes it down."""
        if get_ident() != self.thread:          # a launch of another thread is only run
            kernel.function(*arguments)
            return
        if kernel.name == "host":
            kernel.function(*arguments)
            self.python(lambda: kernel.function(*arguments))
            return
        if kernel.index < 0:
            raise NotImplementedError(f"[capture] recording on this device is not supported yet; got {kernel.name}; "
                                      "capture a step on the CPU")
        self.words.append(kernel.index)
        for kind, value in zip(kernel.signature, arguments, strict=True):
            if kind in "op" and value:
                self.hold(value)
            self.words.append(struct.unpack("q", struct.pack("d", value))[0] if kind == "d" else value)
        self.count += 1
        kernel.function(*arguments)

    def hold(self, address: int) -> None:
        """Keeps the memory at an address alive as long as the program."""
        if address in self.pins or address in self.inside:
            return
        found = self.map.find(address)
        if found is None:
            raise RuntimeError(f"[capture] a launch points to memory without a known owner ({address:#x})")
        if found[0] in memory.private_regions:
            self.inside.add(address)            # kept alive by `finish`: until then the private pool may reuse it
        else:
            self.pins[address] = found[1]

    def python(self, action: Callable[[], Any]) -> None:
        """Adds `action`, which replay calls in Python at this place."""
        self._close()
        self.segments.append(action)

    def _close(self) -> None:
        """Ends the current run of native launches."""
        if self.count:
            words = [w if w < 1 << 63 else w - (1 << 64) for w in self.words]
            self.segments.append((np.array(words, np.int64), self.count))
            self.words, self.count = [], 0

    def used(self, module: Any) -> None:
        """Notes that a module ran: its train/eval mode belongs to the signature."""
        if all(m is not module for m, _ in self.modes):
            self.modes.append((module, module.training))

    def deposit(self, leaf: Tensor) -> None:
        """Notes a leaf whose `.grad` is about to be filled or added to."""
        self.leaves.setdefault(id(leaf), (leaf, leaf._grad))

    def drop(self, leaf: Tensor) -> None:
        """Notes a leaf whose `.grad` is dropped: a replay need not find it as it was before the call."""
        if id(leaf) not in self.leaves:
            self.emptied.add(id(leaf))

    def refuse(self, what: str) -> None:
        """Raises RuntimeError: `what` reads a value."""
        raise RuntimeError(f"[capture] {what} reads a value while recording, which replay cannot do; "
                           f"at {_user_line()}; read it outside the captured function, from a returned tensor")

    def finish(self) -> None:
        """Ends the recording, and keeps the memory of the private pool alive."""
        self._close()
        for address in self.inside:
            found = self.map.find(address)
            if found is not None:
                self.pins[address] = found[1]


def _user_line() -> str:
    """The newest line on the stack that is not in this package."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_PACKAGE):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "unknown line"


class _Program:
    """One recorded signature.

    `known`: the leaves of earlier recordings of the signature, with their `.grad` at this call. `expected`: the leaves
    whose `.grad` must be at a call what it was at the recording, because the step adds to it. A leaf that the step
    cleared before it added is not among them: the step dropped its `.grad`, or the leaf had one at the call and none
    when the step first added to it.
    """

    def __init__(self, recorder: Recorder, pool: dict[Any, Any], inputs: list[Tensor], outputs: Any,
                 known: dict[int, Any]) -> None:
        self.segments = [s if callable(s) else (s[0], s[0].__array_interface__["data"][0], s[1])
                         for s in recorder.segments]
        self.pins, self.pool = list({id(p): p for p in recorder.pins.values()}.values()), pool
        self.inputs, self.outputs = inputs, outputs
        self.modes, self.before_replay = recorder.modes, recorder.before_replay
        self.bindings, self.members = mode.bindings, _members(recorder.modes)
        self.grads = [(leaf, leaf._grad) for leaf, _ in recorder.leaves.values()]
        self.expected = [(leaf, before) for i, (leaf, before) in recorder.leaves.items()
                         if before is not None or known.get(i) is None and i not in recorder.emptied]

    def bound(self) -> bool:
        """Do the modules have the same members as at the recording, and these the same memory?"""
        if mode.bindings != self.bindings:
            now = _members(self.modes)
            if len(now) != len(self.members) or any([a is not b for a, b in zip(now, self.members, strict=True)]):
                return False
            self.bindings = mode.bindings
        return True

    def fits(self) -> bool:
        """Are train/eval modes, and the `.grad` that the step depends on, as they were at the recording?"""
        return (all([m.training is t for m, t in self.modes])
                and all([leaf._grad is before for leaf, before in self.expected]))

    def replay(self, inputs: list[Tensor]) -> Any:
        """Runs the launches on these inputs, and returns the tensors of the recording with their new values."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine.array is not given.array:
                copy_array(mine.array, given.array)
        for prepare in self.before_replay:
            prepare()
        for segment in self.segments:
            if callable(segment):
                segment()
            else:
                lib.mg_replay(segment[1], segment[2])
        for leaf, g in self.grads:
            leaf._grad = g
        return self.outputs


def _members(modes: list[tuple[Any, bool]]) -> list[Any]:
    """The parameters, buffers and submodules of modules, and the arrays of the tensors among them."""
    found = [t for m, _ in modes for table in (m._parameters, m._buffers, m._modules) for t in table.values()]
    return found + [t.array for t in found if isinstance(t, Tensor)]


class Captured:
    """A function whose launches are recorded by signature and replayed. Made by `capture`."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.programs: dict[tuple, list[_Program]] = {}
        update_wrapper(self, function)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A captured method: the instance is its first argument."""
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        key = (_signature(args, tensors), _signature(kwargs, tensors) if kwargs else (), mode.autocast)
        try:
            known = self.programs.get(key, ())
        except TypeError:
            raise TypeError("[capture] arguments that are not tensors must be hashable: their values are part of the "
                            f"signature; got {key}") from None
        for program in known:
            if program.fits() and program.bound():
                return program.replay(tensors)
        if mode.recorder is not None:
            fail("capture", "a captured function cannot be recorded inside another recording", "",
                 "call the plain function inside")
        before = {id(leaf): leaf._grad for program in known for leaf, _ in program.grads}
        with _one_at_a_time:
            program = self._record(args, kwargs, tensors, before)
        self.programs[key] = [*[p for p in known if p.bound()], program]
        return program.outputs

    def _record(self, args: Any, kwargs: Any, tensors: list[Tensor], before: dict[int, Any]) -> _Program:
        with memory.private_pool() as pool, Map() as regions:
            inputs = [_input(t) for t in tensors]
            it = iter(inputs)
            own_args, own_kwargs = _replace(args, it), _replace(kwargs, it)
            recorder = mode.recorder = Recorder(regions)
            try:
                with launch_hook(recorder.visit):
                    outputs = detached(self.function(*own_args, **own_kwargs))
            finally:
                mode.recorder = None
        recorder.finish()
        if any(id(t) in recorder.leaves for t in inputs):
            fail("capture", "backward() in a captured function cannot fill .grad of an argument", "",
                 "return autograd.grad(loss, argument) instead")
        return _Program(recorder, pool.pools, inputs, outputs, before)


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
    if type(value) is dict:
        return dict, *[(k, _signature(v, tensors)) for k, v in value.items()]
    return type(value), value


def _like(value: Any, items: list[Any]) -> Any:
    """The items as a list, tuple or named tuple, as `value` is."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _replace(value: Any, tensors: Any) -> Any:
    """`value` with its tensors replaced by those of the iterator, in order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        return _like(value, [_replace(v, tensors) for v in value])
    if type(value) is dict:
        return {k: _replace(v, tensors) for k, v in value.items()}
    return value


def detached(value: Any) -> Any:
    """`value` with its tensors outside the graph."""
    if isinstance(value, Tensor):
        return new_tensor(value.array, None)
    if isinstance(value, (tuple, list)):
        return _like(value, [detached(v) for v in value])
    if type(value) is dict:
        return {k: detached(v) for k, v in value.items()}
    return value


def capture(function: Callable) -> Captured:
    """Makes `function` record its kernel launches at the first call with each signature, and replay them later.

    The signature is: shapes, dtypes, devices of the tensor arguments; values of the others; train/eval mode of the
    modules that it uses. The next call with that signature overwrites the returned tensors. `function` may contain
    forward, backward, clipping, optimiser and scheduler. Reading a value inside (`item()`, `bool(t)`, `numpy()`) raises
    RuntimeError. While one thread records, a second recording waits, and no other thread may run ops. Replays may run
    at the same time as anything else.

    >>> step = minigrad.capture(step)
    >>> loss = step(x, y)
    """
    return Captured(function)
