"""What a device is: kernels by name, and memory. Read `memory.py` first.

Every computation on array data is a `Kernel.call(...)`: addresses as ints, then int64 sizes, then float scalars, in the
order of native/minigrad.h. `call` is a plain attribute: capture, traces and profiles replace it
(`devices.launch_hook`), and a launch without a hook tests nothing.
"""
from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .memory import Array

TYPE_SUFFIX = {np.dtype("float32"): "f32", np.dtype("float64"): "f64", np.dtype("int32"): "i32",
               np.dtype("int64"): "i64", np.dtype("bool"): "u8"}
MOVE_SUFFIX = {1: "u8", 2: "u16", 4: "i32", 8: "i64"}     # of kernels that only move elements, by item size


class Kernel:
    """One function of a device that can be launched: `kernel.call(*arguments)`.

    `signature` has one letter for each argument: o address written to, p address only read, i int64, d double; `names`
    are their names. `row` is the address of its `mg_kernel` (native/runtime.h), by which captured steps replay it, 0 if
    it is not in C; `function` runs it without hooks. `origin`: the kernel that it stands for in a hook within a hook.
    """

    __slots__ = ("name", "signature", "names", "row", "function", "device", "origin", "call")

    def __init__(self, name: str, signature: str, names: Sequence[str], row: int, function: Callable[..., None],
                 device: Device, origin: Kernel | None = None) -> None:
        self.name, self.signature, self.names, self.row, self.function = name, signature, names, row, function
        self.device, self.origin, self.call = device, origin, function

    def __repr__(self) -> str:
        return f"<kernel {self.name}({self.signature})>"


class NoKernel(Exception):
    """Says why a fused kernel does not apply; the definition runs instead."""


class Family:
    """The kernels of one name: `family[dtype]` or `family.get(dtype)`, `family.move(dtype)`, `family.only`."""

    def __init__(self, name: str, device: str, members: dict[str, Kernel]) -> None:
        self.name, self.device, self.members = name, device, members

    def __getitem__(self, dtype: np.dtype) -> Kernel:
        """The kernel of an element type; NoKernel if there is none."""
        kernel = self.get(dtype)
        if kernel is None:
            raise NoKernel(f"no {self.name} kernel for {dtype} on {self.device}")
        return kernel

    def get(self, dtype: np.dtype) -> Kernel | None:
        """The kernel of an element type, or None."""
        return self.member(TYPE_SUFFIX.get(dtype, ""))

    def move(self, dtype: np.dtype) -> Kernel | None:
        """The kernel for elements of that size, where their type does not matter, or None."""
        return self.member(MOVE_SUFFIX.get(dtype.itemsize, "")) if not dtype.hasobject else None

    def member(self, suffix: str) -> Kernel | None:
        """The kernel of a suffix ("f32"; "" for a name that has no element types), or None."""
        return self.members.get(suffix)

    @property
    def only(self) -> Kernel:
        """The kernel of a name that has no element types."""
        return self.members[""]


_SUFFIXES = frozenset((*TYPE_SUFFIX.values(), *MOVE_SUFFIX.values(), "f16", "bf16", "f16w", "bf16w"))


def split(full: str) -> tuple[str, str]:
    """The name and the type suffix in "layer_norm_forward_f32"; the suffix is empty if a kernel has no element type."""
    name, _, suffix = full.rpartition("_")
    return (name, suffix) if suffix in _SUFFIXES else (full, "")


class KernelTable:
    """The kernels of a device: `table.layer_norm_forward` is a `Family`, empty for unknown names.

    `known`: if given, names that are not in it count as unknown.
    """

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


def as_bools(values: Any) -> Any:
    """Host values for a device: bytes of bools as 0 or 1, which kernels rely on (files may hold others)."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "b":
        return values.view(np.uint8) != 0
    return values


class Device:
    """A place for arrays, with kernels. Subclasses: `cpu.CPU`, `cuda.CUDA`. Compares equal to its name."""

    type: str
    name: str
    index: int | None = None
    kernels: KernelTable
    host: Kernel        # host.call(function, out, *inputs): launches that have no native kernel
    constants: dict[int, np.ndarray] = {}   # of a GPU: the host values of what `constant` made, by address
    flags: Any = None   # of a GPU: what its kernels find wrong in values (`flags.py`)
    generated: Any = None   # of a GPU: the kernels of a text that was written for it (`cuda.py`)
    graph: Any = None   # of a GPU: `graph(launches)` gives a function that runs them again, in one call

    if TYPE_CHECKING:           # `minigrad.device` is this class for type checkers
        def __init__(self, type: Any = "cpu", index: int | None = None) -> None: ...

    def fresh(self, nbytes: int, home: Any) -> Any:
        """A `Block` of new memory from the system; `home` is the `Pool` that it goes back to, or None."""
        raise NotImplementedError

    def container(self, array: Array) -> Any:
        """The NumPy or CuPy array over the memory of `array`."""
        raise NotImplementedError

    def compiled(self, source: Any, suffix: str, rule: Any = None) -> list[Kernel]:
        """The kernels that a text (`foreign.Source`) defines for an element type, as it lists them."""
        raise NotImplementedError

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        """Small read-only data for kernels: a plan, or a table of addresses; the arrays in `keep` live as long.

        It is never rewritten: a captured program may point to it.
        """
        raise NotImplementedError

    def upload(self, values: np.ndarray) -> Array:
        """A new array with the values of a host array."""
        raise NotImplementedError

    def write(self, array: Array, values: Any, moved: bool = False) -> None:
        """Writes host values into a contiguous array. `moved`: a table of which only addresses change, launches not."""
        raise NotImplementedError

    def download(self, array: Array) -> np.ndarray:
        """A new host array with the values of an array."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"device(type='{self.type}'{'' if self.index is None else f', index={self.index}'})"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, str)
                                 and self.name == {"cuda": "cuda:0", "cpu:0": "cpu"}.get(other, other))

    __hash__ = object.__hash__
