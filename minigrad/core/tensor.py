"""`Tensor`: an array, and its place in the graph.

Here is what a tensor is: its array, `requires_grad`, `grad`, its values for Python, and the start of a backward pass.
`minigrad.ops` binds the methods that compute (`+`, `sum`, `reshape`, ...) and those that move (`ops/interchange.py`).
Type checkers and editors read these in `methods.pyi`, which `tests/project/stubs.py` writes. At run time `Methods` is
`Variable` itself.
"""
from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from ..devices.base import Device
from ..devices.memory import Array, Layout
from . import engine, inplace
from .display import host_values, html, text
from .engine import functions
from .gradient import Gradients
from .modes import changed, mode
from .shape import default_float, fail, is_float, left_out
from .tape import Variable

if TYPE_CHECKING:
    from typing_extensions import Self

    from .methods import Methods
else:
    Methods = Variable

_new = object.__new__


class Size(tuple[int, ...]):
    """A shape: a tuple of sizes. `numel()` is the number of elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of a tensor of this shape: the product of the sizes, 1 for `()`."""
        return prod(self)

    def __repr__(self) -> str:
        return f"Size({list(self)})"


class Tensor(Gradients, Methods):
    """An n-dimensional array that records what is computed from it. Made by `minigrad.tensor`, `zeros`, `randn`, ..."""

    __slots__ = ()

    if TYPE_CHECKING:           # `Gradients.grad`, with the type that it cannot name there
        @property
        def grad(self) -> Tensor | None: ...
        @grad.setter
        def grad(self, value: Tensor | None) -> None: ...
        @grad.deleter
        def grad(self) -> None: ...

    def __new__(cls, data: Any = None, *args: Any, **kwargs: Any) -> Self:
        return _new(cls)

    def __init__(self, *data: Any) -> None:
        """`Tensor(2, 3)`: uninitialised, of that shape; `Tensor([1, 2])`: the values. Of the default float dtype."""
        sized = all(isinstance(n, (int, Size)) for n in data)          # Tensor(x.shape) too
        source = functions.empty(*data or (0,)) if sized else functions.as_tensor(data[0])
        if not isinstance(data[0] if data else None, Tensor):
            source = functions.cast(source, default_float())
        self.array, self.node, self._requires_grad, self._grad = source.array, None, False, None

    # ---- what it is ----

    @property
    def layout(self) -> Layout:
        """Device, dtype, shape and strides of the array: one object for all arrays that agree in them."""
        return self.array.layout

    @property
    def shape(self) -> Size:
        """The sizes of the dimensions, `Size([])` for a 0-d tensor."""
        return Size(self.array.layout.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, a NumPy dtype."""
        return self.array.layout.dtype

    @property
    def device(self) -> Device:
        """The device that holds the memory. Move with `to(device)`."""
        return self.array.layout.device

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.layout.ndim

    @property
    def itemsize(self) -> int:
        """The bytes of one element."""
        return self.array.layout.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of all elements, `numel() * itemsize`."""
        return self.array.layout.nbytes

    @property
    def is_cuda(self) -> bool:
        """Is the memory on a GPU?"""
        return self.array.layout.device.type == "cuda"

    def dim(self) -> int:
        """The number of dimensions."""
        return self.array.layout.ndim

    ndimension = dim

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> Size | int:
        """The shape, or the size of one dimension. IndexError unless -ndim <= dim < ndim."""
        if dim is None:
            return self.shape
        n = self.array.layout.ndim
        if not -n <= dim < n:
            raise IndexError(f"[size] dim out of range: expected {-n} <= dim < {n}; got {dim}")
        return self.array.layout.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return self.array.layout.size

    nelement = numel

    def element_size(self) -> int:
        """The bytes of one element."""
        return self.array.layout.dtype.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...
    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        """How many elements apart neighbours lie along each dimension, or along one."""
        return self.array.layout.strides if dim is None else self.array.layout.strides[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Do the elements lie in row-major order without gaps? NotImplementedError for a `memory_format`."""
        left_out("is_contiguous", "memory_format", memory_format)
        return self.array.layout.contiguous

    def is_floating_point(self) -> bool:
        """Is the dtype one of floating-point numbers (bfloat16 too)?"""
        return is_float(self.array.layout.dtype)

    def data_ptr(self) -> int:
        """The address of the first element."""
        if mode.recorder is not None:
            mode.recorder.refuse("data_ptr()")
        return self.array.ptr

    # ---- autograd ----

    @property
    def _version(self) -> int:
        """How often this memory was changed in place."""
        return self.array.version

    @property
    def data(self) -> Tensor:
        """A tensor on the same memory, outside the graph. Assigning a tensor replaces the memory.

        Changes through it are not counted in `_version`: a backward that saved this tensor uses the changed values.
        """
        return new_tensor(inplace.untied(self.array, 0), None)

    @data.setter
    def data(self, value: Tensor) -> None:
        if self._requires_grad and not is_float(value.array.layout.dtype):
            fail("data", "a tensor that requires gradients needs floating-point data", value.array.layout,
                 "convert with .float()")
        self.array = inplace.untied(value.array, self.array.version)
        changed()

    def detach(self) -> Tensor:
        """A tensor on the same memory that is cut off from the graph."""
        return new_tensor(self.array, None)

    def detach_(self) -> Tensor:
        """Cuts this tensor itself off from the graph. Returns it. RuntimeError for a view."""
        if getattr(self, "source", None) is not None:
            fail("detach_", "a view cannot be detached in place", self.array.layout, "use detach()")
        if self.node is None and self._requires_grad:
            self.source = None
        self.node, self._requires_grad = None, False
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Asks for gradients (of float tensors), or no longer (leaves). Returns the tensor; RuntimeError for others."""
        if not isinstance(requires_grad, bool):
            fail("requires_grad_", "requires_grad must be a bool", repr(requires_grad), kind=TypeError)
        if requires_grad and not is_float(self.array.layout.dtype):
            fail("requires_grad_", "only floating-point tensors can require gradients", self.array.layout,
                 "convert with .float()")
        if not requires_grad and self.node is not None:
            fail("requires_grad_", "only a leaf can stop requiring gradients", self.array.layout, "use detach()")
        begins = requires_grad and not self._requires_grad
        if self._requires_grad is not (wanted := requires_grad or self.node is not None):
            if not wanted and getattr(self, "source", None) is None:
                self.source = None
            self._requires_grad = wanted
            changed()
        if begins:
            inplace.begin(self)
        return self

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
        """Adds d(self)/d(leaf) to `.grad` of every leaf behind this tensor (or of `inputs`). It starts from `gradient`,
        of this tensor's shape; a one-element tensor needs none. The graph is freed, unless `retain_graph` (by default
        as `create_graph`). `create_graph` records the gradients: see `autograd.backward`.
        """
        if gradient is not None and not isinstance(gradient, Tensor):
            gradient = functions.as_tensor(gradient)
        engine.backward([self], [gradient], retain_graph, inputs, create_graph)

    # ---- values ----

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares memory (on the CPU). `force` detaches, and copies from a GPU.

        RuntimeError for a tensor in a graph (outside `no_grad`), TypeError for one on a GPU, unless `force`.
        """
        if mode.recorder is not None:
            mode.recorder.refuse("numpy()")
        if self._requires_grad and mode.grad and not force:
            fail("numpy", "the tensor is part of a graph", self.array.layout,
                 "call detach() first, or numpy(force=True)")
        if self.array.layout.device.type != "cpu":
            if not force:
                fail("numpy", "the tensor is not on the CPU", [self.array.layout, self.device], "call cpu() first",
                     TypeError)
            return self.array.layout.device.download(self.array)
        return self.array.np

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.array.layout.size != 1:
            fail("item", "only one-element tensors have an item", self.array.layout, "use tolist()")
        return host_values(self, "item()").item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers; one number for a 0-d tensor."""
        return host_values(self, "tolist()").tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.array.layout.dtype.kind not in "iub" or self.array.layout.size != 1:
            raise TypeError(f"[index] only integer tensors of one element can be an index; got {self.array.layout}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.layout.size != 1:
            fail("bool", "the truth value of a tensor with more or less than one element is ambiguous",
                 self.array.layout, "use any() or all()")
        return bool(host_values(self, "bool()").item())

    def __len__(self) -> int:
        if not self.array.layout.ndim:
            raise TypeError("[len] a 0-d tensor has no length")
        return self.array.layout.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.array.layout.ndim:
            raise TypeError("[iter] a 0-d tensor cannot be iterated")
        return iter([self[i] for i in range(self.array.layout.shape[0])])

    __hash__ = object.__hash__

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.layout.ndim == 0 else object.__format__(self, spec)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return html(self)


class MinMax(NamedTuple):
    """What `aminmax` returns."""

    min: Tensor
    max: Tensor


class ValuesIndices(NamedTuple):
    """What `max(x, dim)`, `min(x, dim)` and their relatives return."""

    values: Tensor
    indices: Tensor


def new_tensor(array: Array, node: Any) -> Tensor:
    """A tensor over an array; it requires gradients if it has a node."""
    t = _new(Tensor)
    t.array = array
    t.node = node
    t._requires_grad = node is not None
    t._grad = None
    return t


def writable(op: str, t: Tensor) -> None:
    """Refuses a tensor of the graph where a result is written into a tensor that is given: it is not recorded."""
    if mode.grad and t.requires_grad:
        fail(op, "out= is not differentiable, but a tensor requires a gradient", t.array.layout,
             "use the form without out=, or wrap it in `with no_grad()`")


def bump(t: Tensor) -> Tensor:
    """Counts an in-place change of the memory under `t`."""
    t.array.storage.version += 1      # type: ignore[misc]
    return t
