"""Capture: a whole training step, recorded once and replayed as one native call.

    step = minigrad.capture(step)       # or as a decorator

The first call with a new signature runs eagerly, with a visitor in the kernel door who writes down each launch: the
kernel's index and its arguments, 8 bytes each, in the form `native/program.c` replays. Addresses stay valid because
the buffers of the recording come from a private pool that the program owns, and whatever else a launch pointed to
(parameters, optimiser state, plans) is kept alive by it. Later calls copy the tensor arguments into the recorded
buffers and replay. Random numbers are fresh (the generator's counter is memory that the launch advances), and so is
what an optimiser reads from memory (learning rate, step count). Checks of values (indices, labels) run at each replay. Where a
parameter was given other memory, or a module other members, the step is recorded anew.

What is not a launch (a Python number, a branch) is fixed at recording. Other threads must not run ops meanwhile.
"""
from __future__ import annotations

import struct
import traceback
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from threading import Lock, get_ident
from typing import Any

import numpy as np

from ..devices import launch_hook, memory
from ..devices.addresses import Map
from ..devices.base import Kernel
from ..devices.native import lib
from .arrays import copy_array
from .shape import fail
from .tape import mode, no_grad
from .tensor import Tensor, new_tensor

_HERE = str(Path(__file__).parent)
_one_at_a_time = Lock()         # pools and door are the process's: a second recording waits for the first


class Recorder:
    """Writes down the launches of one run."""

    def __init__(self, regions: Map) -> None:
        self.segments: list[Any] = []           # (words, count) of native launches, or a Python callable
        self.words: list[int] = []
        self.count = 0
        self.pins: dict[int, Any] = {}          # what launches pointed to outside the private pool
        self.inside: set[int] = set()           # addresses inside the private pool
        self.map = regions
        self.modes: list[tuple[Any, bool]] = []
        self.before_replay: list[Callable[[], None]] = []
        self.leaves: dict[int, tuple[Tensor, Any]] = {}     # whose .grad the step filled, and what it was before
        self.emptied: set[int] = set()          # leaves whose .grad the step dropped before it filled it
        self.thread = get_ident()

    def visit(self, kernel: Kernel, arguments: tuple) -> None:
        if get_ident() != self.thread:          # somebody else's work
            kernel.function(*arguments)
            return
        if kernel.name == "host":
            kernel.function(*arguments)
            self.python(lambda: kernel.function(*arguments))
            return
        if kernel.index < 0:
            raise NotImplementedError(f"[capture] recording on this device is not supported yet; met {kernel.name}; "
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
            raise RuntimeError(f"[capture] a launch points to memory that nobody owns ({address:#x})")
        if found[0] in memory.private_regions:
            self.inside.add(address)            # pinned at the end: until then the private pool may reuse it
        else:
            self.pins[address] = found[1]

    def python(self, action: Callable[[], Any]) -> None:
        """Something that replay must do in Python, at this place."""
        self._close()
        self.segments.append(action)

    def _close(self) -> None:
        if self.count:
            self.segments.append((np.array([w if w < 1 << 63 else w - (1 << 64) for w in self.words], np.int64), self.count))
            self.words, self.count = [], 0

    def meet(self, module: Any) -> None:
        """A module that ran: its train/eval mode belongs to the signature."""
        if all(m is not module for m, _ in self.modes):
            self.modes.append((module, module.training))

    def deposit(self, leaf: Tensor) -> None:
        """A leaf whose `.grad` is about to be filled or added to."""
        self.leaves.setdefault(id(leaf), (leaf, leaf.grad))

    def drop(self, leaf: Tensor) -> None:
        """A leaf whose `.grad` is dropped: what it was before the call does not matter."""
        if id(leaf) not in self.leaves:
            self.emptied.add(id(leaf))

    def refuse(self, what: str) -> None:
        raise RuntimeError(f"[capture] {what} reads a value while recording, which replay cannot do; at {_user_line()}; "
                           "read it outside the captured function, from a returned tensor")

    def finish(self) -> None:
        self._close()
        for address in self.inside:
            found = self.map.find(address)
            if found is not None:
                self.pins[address] = found[1]


def _user_line() -> str:
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_HERE):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "unknown line"


class _Program:
    """One recorded signature. `known` are the leaves of earlier recordings with their `.grad` at the call: a step that finds
    one there and still fills it afresh clears gradients itself; any other step's first deposit depends on what it finds."""

    def __init__(self, recorder: Recorder, pool: Any, inputs: list[Tensor], outputs: Any, known: dict[int, Any]) -> None:
        self.segments = [s if callable(s) else (s[0], s[0].__array_interface__["data"][0], s[1]) for s in recorder.segments]
        self.pins, self.pool = list({id(p): p for p in recorder.pins.values()}.values()), pool
        self.inputs, self.outputs = inputs, outputs
        self.modes, self.before_replay = recorder.modes, recorder.before_replay
        self.bindings, self.members = mode.bindings, _members(recorder.modes)
        self.grads = [(leaf, leaf.grad) for leaf, _ in recorder.leaves.values()]
        self.expected = [(leaf, before) for i, (leaf, before) in recorder.leaves.items()
                         if before is not None or known.get(i) is None and i not in recorder.emptied]

    def bound(self) -> bool:
        """Do the modules still hold the members, and these the memory, that the recording met?"""
        if mode.bindings != self.bindings:
            now = _members(self.modes)
            if len(now) != len(self.members) or any([a is not b for a, b in zip(now, self.members, strict=True)]):
                return False
            self.bindings = mode.bindings
        return True

    def fits(self) -> bool:
        return all([m.training is t for m, t in self.modes]) and all([leaf.grad is before for leaf, before in self.expected])

    def replay(self, inputs: list[Tensor]) -> Any:
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
            leaf.grad = g
        return self.outputs


def _members(modes: list[tuple[Any, bool]]) -> list[Any]:
    """What modules hold: parameters, buffers and submodules, and the arrays under the tensors."""
    found = [t for m, _ in modes for table in (m._parameters, m._buffers, m._modules) for t in table.values()]
    return found + [t.array for t in found if isinstance(t, Tensor)]


class Captured:
    """A function whose launches are recorded by signature and replayed. Made by `capture`."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.programs: dict[tuple, list[_Program]] = {}
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        key = (_signature(args, tensors), _signature(kwargs, tensors) if kwargs else ())
        try:
            known = self.programs.get(key, ())
        except TypeError:
            raise TypeError("[capture] arguments that are not tensors must be hashable: their values are part of the signature; "
                            f"got {key}") from None
        for program in known:
            if program.fits() and program.bound():
                return program.replay(tensors)
        if mode.recorder is not None:
            fail("capture", "a captured function cannot be recorded inside another recording", "", "call it plainly inside")
        before = {id(leaf): leaf.grad for program in known for leaf, _ in program.grads}
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
                    outputs = _detached(self.function(*own_args, **own_kwargs))
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
    copied.requires_grad = t.requires_grad
    return copied


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """Layouts of tensors, values of the rest; fills `tensors` in order."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.array.layout, value.requires_grad
    if isinstance(value, (tuple, list)):
        return type(value), *[_signature(v, tensors) for v in value]
    if type(value) is dict:
        return dict, *[(k, _signature(v, tensors)) for k, v in value.items()]
    return type(value), value


def _like(value: Any, items: list[Any]) -> Any:
    """The items as the list, tuple or named tuple that `value` is."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _replace(value: Any, tensors: Any) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (tuple, list)):
        return _like(value, [_replace(v, tensors) for v in value])
    if type(value) is dict:
        return {k: _replace(v, tensors) for k, v in value.items()}
    return value


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return new_tensor(value.array, None)
    if isinstance(value, (tuple, list)):
        return _like(value, [_detached(v) for v in value])
    if type(value) is dict:
        return {k: _detached(v) for k, v in value.items()}
    return value


def capture(function: Callable) -> Captured:
    """Makes `function` record its kernel launches on the first call of each signature, and replay them later.

    The signature is: shapes, dtypes, devices of the tensor arguments; values of the others; train/eval mode of the
    modules it meets. Returned tensors are overwritten by the next call of that signature. `function` may hold forward,
    backward, clipping, optimiser and scheduler; reading a value inside (`item()`, `bool(t)`, `numpy()`) raises. While one
    thread records, another that records waits; others must not run ops meanwhile. Replays may run beside anything.

    >>> step = minigrad.capture(step)
    >>> loss = step(x, y)
    """
    return Captured(function)
