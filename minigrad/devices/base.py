"""What a device is: kernels by name, and the memory that they work on.

Every computation on array data is a `Kernel.call(...)`: addresses as ints, then int64 sizes, then float scalars, in the
order of native/minigrad.h. `call` is a plain attribute, so that capture, traces and profiles can replace it
(`devices.launch_hook`), and a launch tests nothing when nobody does.
"""
from __future__ import annotations

from collections.abc import Callable, Container, Iterator
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


_SUFFIXES = frozenset(TYPE_SUFFIX.values()) | frozenset(MOVE_SUFFIX.values())


def split(full: str) -> tuple[str, str]:
    """"layer_norm_forward_f32" as ("layer_norm_forward", "f32"); the suffix is empty where a kernel has no element type."""
    name, _, suffix = full.rpartition("_")
    return (name, suffix) if suffix in _SUFFIXES else (full, "")


class KernelTable:
    """The kernels of a device by name: `table.layer_norm_forward[dtype]`. A name that is not in `known` counts as missing."""

    def __init__(self, device: str, kernels: dict[str, Kernel], known: Container[str] | None = None) -> None:
        self._device, self._kernels, self._known = device, kernels, known
        families: dict[str, dict[str, Kernel]] = {}
        for full, kernel in kernels.items():
            name, suffix = split(full)
            families.setdefault(name, {})[suffix] = kernel
        self._families = {name: Family(name, device, members) for name, members in families.items()}

    def __getattr__(self, name: str) -> Family:
        fields = self.__dict__
        found = fields.get("_families", {}).get(name)
        if found is None or fields["_known"] is not None and name not in fields["_known"]:
            return Family(name, fields.get("_device", "?"), {})
        return found

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels.values())

    def __len__(self) -> int:
        return len(self._kernels)


class Device:
    """A place for arrays. Subclasses: cpu.CPU, cuda.CUDA."""

    type: str
    name: str
    kernels: KernelTable
    host: Kernel        # host.call(function, out, *inputs): launches that have no native kernel

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

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, str) and _same_name(self, other))

    __hash__ = object.__hash__


def _same_name(known: Device, name: str) -> bool:
    return known.name == name or (name == "cuda" and known.name == "cuda:0") or (name == "cpu:0" and known.name == "cpu")
