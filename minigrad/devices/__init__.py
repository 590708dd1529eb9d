"""Where arrays live and what runs kernels: the devices by name, those in use, and hooks on their launches.

Read `memory.py` first (layouts, arrays, pools), then `plan.py` (what an op decided for a signature), `base.py` (Device,
Kernel) and `cpu.py`.
"""
from __future__ import annotations

import copyreg
import os
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

from .base import Device, Kernel
from .native import lib

_devices: dict[str, Device] = {}
default_name = os.environ.get("MINIGRAD_DEVICE") or "cpu"    # a captured step compares it before a replay


class _AnyDevice(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Device)


if TYPE_CHECKING:
    device = Device
else:
    class device(metaclass=_AnyDevice):
        """The device of a name: "cpu", "cuda" (the first GPU) or "cuda:N", also given as `device("cuda", N)`. The class
        of all devices. RuntimeError with the reason if there is none.

        >>> minigrad.device("cpu")
        device(type='cpu')
        """

        def __new__(cls, type: Any = "cpu", index: int | None = None) -> Device:
            if type is None:
                raise RuntimeError("[device] a device has a name, 'cpu' or 'cuda'; got None; see get_default_device()")
            if index is None:
                return open_device(type)
            if not isinstance(type, str) or ":" in type:
                raise RuntimeError(f"[device] an index goes with a type, 'cuda' or 'cpu'; got {type!r} and {index!r}")
            return open_device(f"{type}:{index}")


def set_default_device(device: Any) -> None:
    """Sets where tensors are made that are not told where: a device, its name, or None for the CPU. It begins as the
    environment variable MINIGRAD_DEVICE says. RuntimeError if there is no such device."""
    global default_name
    default_name = open_device("cpu" if device is None else device).name


def _entered(self: Device) -> Device:
    """`with device("cuda"):` makes it the default device inside."""
    _outside.append(default_name)
    set_default_device(self)
    return self


def _left(self: Device, *error: Any) -> None:
    set_default_device(_outside.pop())


_outside: list[str] = []
Device.__enter__, Device.__exit__ = _entered, _left     # type: ignore[attr-defined]


def get_default_device() -> Device:
    """The device on which tensors are made that are not told where."""
    return open_device(default_name)


def open_device(name: str | Device | Any = None) -> Device:
    """What `device(name)` gives; a number stands for that GPU, None for the default device."""
    if isinstance(name, Device):
        return name
    if name is None:
        name = default_name
    elif isinstance(name, int):
        name = f"cuda:{name}"
    found = _devices.get(name) if isinstance(name, str) else None
    if found is None:
        found = _devices[name] = _open(name)
        copyreg.pickle(type(found), _reduced)
    return found


def _open(name: Any) -> Device:
    """A new device of that name."""
    kind, _, index = str(name).partition(":")
    if not isinstance(name, str) or kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise RuntimeError(f"[device] unknown device {name!r}; use 'cpu', 'cuda' or 'cuda:N'")
    if kind == "cpu":
        if index not in ("", "0"):
            raise RuntimeError(f"[device] there is one CPU device; got {name!r}; use 'cpu'")
        from .cpu import CPU
        return _devices.setdefault("cpu", CPU())
    from .cuda import CUDA
    return _devices.setdefault(f"cuda:{index or 0}", CUDA(int(index or 0)))


def _reduced(known: Device) -> tuple[Callable[..., Device], tuple[str]]:
    """How a device is pickled and copied: by its name."""
    return open_device, (known.name,)


def opened() -> list[Device]:
    """The devices in use, each once."""
    return list(dict.fromkeys(_devices.values()))


class launch_hook:
    """In its `with` block, each launch of a device in use calls `visitor(kernel, arguments)` instead of the kernel.

    The visitor launches with `kernel.function(*arguments)`. Hooks may be nested: the inner one is called, and what it
    launches goes to the outer one. `on` is the only switch: once it is False the hook sees nothing, whatever else was
    not put back (an interrupt may come at any line).
    """

    def __init__(self, visitor: Callable[[Kernel, tuple], None]) -> None:
        self.visitor = visitor
        self.on = False
        self.outer: launch_hook | None = None
        self.kernels: dict[int, Kernel] = {}        # what the visitor gets, by the kernel that was launched

    def __enter__(self) -> launch_hook:
        global _newest
        with _switching:
            self.outer = _active()
            try:
                lib.mg_watch(lib.MG_HOOKS, True)
                _newest, self.on = self, True
                for kernel in all_kernels():
                    kernel.call = _doors.get(kernel) or _doors.setdefault(kernel, _door(kernel))
            except BaseException:
                self.on = False
                lib.mg_watch(lib.MG_HOOKS, _active() is not None)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        global _newest
        self.on = False
        self.kernels = {}                           # they refer to this hook: a cycle
        with _switching:
            _newest = _active()
            if _newest is None:
                lib.mg_watch(lib.MG_HOOKS, False)
                for kernel in all_kernels():
                    kernel.call = kernel.function

    def launch(self, kernel: Kernel, arguments: tuple) -> None:
        """Gives a launch to the visitor."""
        if self.outer is None:
            self.visitor(kernel, arguments)
            return
        given = self.kernels.get(id(kernel))
        if given is None:
            def further(*arguments: Any) -> None:
                _launch(self.outer, kernel, arguments)
            given = self.kernels[id(kernel)] = Kernel(kernel.name, kernel.signature, kernel.names, kernel.row, further,
                                                         kernel.device, kernel)
        self.visitor(given, arguments)


_newest: launch_hook | None = None      # the hook entered last: it, or the next one outwards that is on, is called
_switching = RLock()
_doors: dict[Kernel, Callable[..., None]] = {}      # what `kernel.call` is while there are hooks


def launch_hooked() -> bool:
    """Is a launch hook on?"""
    return _newest is not None and _active() is not None


def _active() -> launch_hook | None:
    """The innermost hook that is on."""
    hook = _newest
    while hook is not None and not hook.on:
        hook = hook.outer
    return hook


def all_kernels() -> list[Kernel]:
    """The kernels of the devices in use, and those that came later: what launch hooks see."""
    return [k for d in opened() for k in (*d.kernels, d.host)] + _added


_added: list[Kernel] = []           # kernels from outside the package


def add_kernel(kernel: Kernel) -> Kernel:
    """Makes launch hooks see a kernel that is in no device's table, also those that are on now. Returns it."""
    with _switching:
        _added.append(kernel)
        if _active() is not None:
            kernel.call = _doors.setdefault(kernel, _door(kernel))
    return kernel


def _launch(hook: launch_hook | None, kernel: Kernel, arguments: tuple) -> None:
    """Runs a launch through the first hook that is on, from `hook` outwards."""
    while hook is not None and not hook.on:
        hook = hook.outer
    if hook is None:
        kernel.function(*arguments)
    else:
        hook.launch(kernel, arguments)


def _door(kernel: Kernel) -> Callable[..., None]:
    """What `kernel.call` is while there are hooks."""
    return lambda *arguments: _launch(_newest, kernel, arguments)
