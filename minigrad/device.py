"""Where arrays live and who runs kernels: `Device`, the kernel door, and the table of devices.

Every computation on array data is a `Kernel.call(...)`: addresses as ints, then int64 sizes, then float scalars, in
the order of native/minigrad.h. `call` is a plain attribute, so that capture, traces and profiles can stand in the door
(`door`), and nothing is tested per call when nobody does.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .memory import Array, Block, Layout

TYPE_SUFFIX = {np.dtype(t): s for t, s in (("float32", "f32"), ("float64", "f64"), ("int32", "i32"), ("int64", "i64"), ("bool", "u8"))}
MOVE_SUFFIX = {1: "u8", 2: "u16", 4: "i32", 8: "i64"}     # kernels that only move elements go by item size


class Kernel:
    """One launchable function of a device. `signature` has one letter an argument: o address written
    to, p address only read, i int64, d double."""

    __slots__ = ("name", "signature", "index", "function", "call")

    def __init__(self, name: str, signature: str, index: int, function: Callable[..., None]) -> None:
        self.name, self.signature, self.index, self.function = name, signature, index, function
        self.call = function

    def __repr__(self) -> str:
        return f"<kernel {self.name}({self.signature})>"


class NoKernel(Exception):
    """Why a fused kernel does not apply; the definition runs instead."""


class Family:
    """The kernels of one name: `family[dtype]`, `family.move(dtype)` by item size, `family.only` where there is no type."""

    def __init__(self, name: str, device: str, members: dict[str, Kernel]) -> None:
        self.name, self.device, self.members = name, device, members

    def __getitem__(self, dtype: np.dtype) -> Kernel:
        kernel = self.get(dtype)
        if kernel is None:
            raise NoKernel(f"no {self.name} kernel for {dtype} on {self.device}")
        return kernel

    def get(self, dtype: np.dtype) -> Kernel | None:
        return self.members.get(TYPE_SUFFIX.get(dtype, ""))

    def move(self, dtype: np.dtype) -> Kernel | None:
        return self.members.get(MOVE_SUFFIX.get(dtype.itemsize, "")) if not dtype.hasobject else None

    @property
    def only(self) -> Kernel:
        return self.members[""]


class KernelTable:
    """`table.layer_norm_forward[dtype]`: the kernels of a device by name."""

    def __init__(self, device: str, kernels: dict[str, Kernel]) -> None:
        self._device = device
        families: dict[str, dict[str, Kernel]] = {}
        suffixes = set(TYPE_SUFFIX.values()) | set(MOVE_SUFFIX.values())
        for full, kernel in kernels.items():
            name, _, suffix = full.rpartition("_")
            name, suffix = (name, suffix) if suffix in suffixes else (full, "")
            families.setdefault(name, {})[suffix] = kernel
        self._kernels = kernels
        self._families = {name: Family(name, device, members) for name, members in families.items()}

    def __getattr__(self, name: str) -> Family:
        try:
            return self.__dict__["_families"][name]
        except KeyError:
            return Family(name, self.__dict__.get("_device", "?"), {})

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels.values())

    def __len__(self) -> int:
        return len(self._kernels)


class Device:
    """A place for arrays. Subclasses: cpu.CPU, cuda.CUDA."""

    type: str
    name: str
    kernels: KernelTable
    host: Kernel        # host.call(function, out, *inputs): the door for launches without a native kernel

    def fresh(self, layout: Layout) -> Block:
        raise NotImplementedError

    def container(self, array: Array) -> Any:
        raise NotImplementedError

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        """Small read-only data for kernels: a plan, or a table of addresses, which keeps the arrays in `keep` alive.
        Never rewritten: a captured program may point to it."""
        raise NotImplementedError

    def upload(self, values: np.ndarray) -> Array:
        """A new array on this device with the values of a host array."""
        raise NotImplementedError

    def write(self, array: Array, values: Any) -> None:
        """Host values (numbers or an array that fits) into a contiguous array of this device."""
        raise NotImplementedError

    def download(self, array: Array) -> np.ndarray:
        """A new host array with the values of an array of this device."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"device('{self.name}')"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple:
        return device, (self.name,)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, str) and _same_name(self, other))

    __hash__ = object.__hash__


def _same_name(known: Device, name: str) -> bool:
    return known.name == name or (name == "cuda" and known.name == "cuda:0") or (name == "cpu:0" and known.name == "cpu")


_devices: dict[str, Device] = {}


def device(name: str | Device | Any = "cpu") -> Device:
    """The device of a name: "cpu", "cuda" (the first GPU) or "cuda:N". Raises RuntimeError with the reason if it is not there."""
    if isinstance(name, Device):
        return name
    found = _devices.get(name) if isinstance(name, str) else None
    if found is None:
        found = _devices[name] = _open(name)
    return found


def _open(name: Any) -> Device:
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


def opened() -> list[Device]:
    """The devices in use."""
    return list(dict.fromkeys(_devices.values()))


class door:
    """Stands in the door: inside, each launch of every open device calls `visitor(kernel, arguments)` instead of the kernel.

    The visitor launches with `kernel.function(*arguments)`.
    """

    def __init__(self, visitor: Callable[[Kernel, tuple], None]) -> None:
        self.visitor = visitor

    def __enter__(self) -> door:
        self.kernels = [(k, k.call) for d in opened() for k in (*d.kernels, d.host)]
        for kernel, before in self.kernels:
            kernel.call = self._guest(kernel, before)
        return self

    def _guest(self, kernel: Kernel, before: Callable) -> Callable[..., None]:
        visitor = self.visitor

        def call(*arguments: Any) -> None:
            visitor(kernel, arguments)
        return call

    def __exit__(self, *_: object) -> None:
        for kernel, before in self.kernels:
            kernel.call = before
