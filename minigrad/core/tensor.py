"""`Tensor`: an array, and its place in the graph.

The operators and methods that compute (`+`, `sum`, `reshape`, ...) are bound by `minigrad.ops` from the ops themselves;
here is what a tensor is: its array, `requires_grad`, `grad`, conversions, and the doors to `backward`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..devices import device as open_device
from ..devices.base import Device
from ..devices.memory import Array, Layout
from . import engine
from .display import host_values, html, text
from .engine import functions
from .shape import default_float, fail, is_float
from .tape import RemovableHandle, Slot, Variable, edge_of, hooks, mode, no_grad, post_hooks

_new = object.__new__


class Size(tuple):
    """A shape; `numel()` is the number of elements."""

    __slots__ = ()

    def numel(self) -> int:
        total = 1
        for n in self:
            total *= n
        return total

    def __repr__(self) -> str:
        return f"Size({list(self)})"


class Tensor(Variable):
    """An n-dimensional array that records what is computed from it. Made by `minigrad.tensor`, `zeros`, `randn`, ..."""

    __slots__ = ()
    grad: Tensor | None

    if TYPE_CHECKING:       # what minigrad.ops binds
        def __getattr__(self, name: Any) -> Any: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __getattr__
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __matmul__ = __and__ = __or__ = __xor__ = __getitem__ = __add__
        __lt__ = __le__ = __gt__ = __ge__ = __add__

        def __neg__(self) -> Tensor: ...

    def __new__(cls, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        return _new(cls)

    def __init__(self, *data: Any) -> None:
        """`Tensor(2, 3)`: uninitialised, of that shape; `Tensor([1, 2])`: the values. Of the default float dtype."""
        source = functions.empty(*data) if all(isinstance(n, int) for n in data) else functions.as_tensor(data[0])
        if not isinstance(data[0] if data else None, Tensor):
            source = functions.cast(source, default_float())
        self.array, self.node, self.requires_grad, self.grad = source.array, None, False, None

    # ---- what it is ----

    @property
    def layout(self) -> Layout:
        return self.array.layout

    @property
    def shape(self) -> Size:
        return Size(self.array.layout.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.array.layout.dtype

    @property
    def device(self) -> Device:
        return self.array.layout.device

    @property
    def ndim(self) -> int:
        return self.array.layout.ndim

    @property
    def itemsize(self) -> int:
        return self.array.layout.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.array.layout.nbytes

    @property
    def is_cuda(self) -> bool:
        return self.array.layout.device.type == "cuda"

    def dim(self) -> int:
        return self.array.layout.ndim

    ndimension = dim

    def size(self, dim: int | None = None) -> Any:
        if dim is None:
            return self.shape
        n = self.array.layout.ndim
        if not -n <= dim < n:
            raise IndexError(f"[size] dim out of range: expected {-n} <= dim < {n}; got {dim}")
        return self.array.layout.shape[dim]

    def numel(self) -> int:
        return self.array.layout.size

    nelement = numel

    def element_size(self) -> int:
        return self.array.layout.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        return self.array.layout.strides if dim is None else self.array.layout.strides[dim]

    def is_contiguous(self) -> bool:
        return self.array.layout.contiguous

    def is_floating_point(self) -> bool:
        return is_float(self.array.layout.dtype)

    def data_ptr(self) -> int:
        return self.array.ptr

    # ---- autograd ----

    @property
    def grad_fn(self) -> Any:
        node = self.node
        return node.inputs[0] if type(node) is Slot else node

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    @property
    def _version(self) -> int:
        return self.array.version

    @property
    def data(self) -> Tensor:
        """The same memory, outside the graph."""
        return new_tensor(self.array, None)

    @data.setter
    def data(self, value: Tensor) -> None:
        if self.requires_grad and not is_float(value.array.layout.dtype):
            fail("data", "a tensor that requires gradients needs floating-point data", value.array.layout, "convert with .float()")
        self.array = value.array
        type(mode).bindings += 1

    def detach(self) -> Tensor:
        """A tensor on the same memory that is cut off from the graph."""
        return new_tensor(self.array, None)

    def detach_(self) -> Tensor:
        self.node, self.requires_grad = None, False
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Asks for gradients (float tensors only), in place."""
        if requires_grad and not is_float(self.array.layout.dtype):
            fail("requires_grad_", "only floating-point tensors can require gradients", self.array.layout, "convert with .float()")
        if not requires_grad and self.node is not None:
            fail("requires_grad_", "only a leaf can stop requiring gradients", self.array.layout, "use detach()")
        self.requires_grad = requires_grad or self.node is not None
        return self

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
        """Adds d(self)/d(leaf) to `.grad` of every leaf behind this tensor, and frees the graph (unless `retain_graph`)."""
        if create_graph:
            fail("backward", "backward() never builds a graph", "create_graph=True",
                 "use autograd.grad(..., create_graph=True), which returns gradients that can be differentiated again")
        if gradient is not None and not isinstance(gradient, Tensor):
            gradient = functions.as_tensor(gradient)
        engine.backward([self], [gradient], bool(retain_graph), [inputs] if isinstance(inputs, Tensor) else inputs)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Calls `hook(grad)` when this tensor's gradient has been computed; what it returns (if not None) replaces it."""
        if not self.requires_grad:
            fail("register_hook", "the tensor does not require a gradient", self.array.layout)
        return hooks.add(edge_of(self), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Calls `hook(self)` after a gradient was added to this leaf's `.grad`."""
        if self.node is not None or not self.requires_grad:
            fail("register_post_accumulate_grad_hook", "needs a leaf that requires gradients", self.array.layout)
        return post_hooks.add(self, hook)

    def retain_grad(self) -> None:
        """Keeps `.grad` of a tensor that is not a leaf."""
        if not self.requires_grad:
            fail("retain_grad", "the tensor does not require a gradient", self.array.layout)
        if self.node is not None:
            engine.keep_grad(self)

    # ---- values ----

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares memory (on the CPU). `force` detaches, and copies from other devices."""
        if mode.recorder is not None:
            mode.recorder.refuse("numpy()")
        if self.requires_grad and not force:
            fail("numpy", "the tensor is part of a graph", self.array.layout, "call detach() first, or numpy(force=True)")
        if self.array.layout.device.type != "cpu":
            if not force:
                fail("numpy", "the tensor is not on the CPU", [self.array.layout, self.device], "call cpu() first", TypeError)
            return self.array.layout.device.download(self.array)
        return self.array.np

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.array.layout.size != 1:
            fail("item", "only one-element tensors have an item", self.array.layout, "use tolist()")
        return host_values(self, "item()").item()

    def tolist(self) -> Any:
        return host_values(self, "tolist()").tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.numpy()
        if dtype is not None and np.dtype(dtype) != values.dtype:
            return values.astype(dtype)
        return values.copy() if copy else values

    @property
    def __array_interface__(self) -> dict:
        if self.array.layout.device.type != "cpu":
            raise AttributeError("__array_interface__")
        return self.numpy().__array_interface__

    @property
    def __cuda_array_interface__(self) -> dict:
        if self.array.layout.device.type != "cuda":
            raise AttributeError("__cuda_array_interface__")
        return self.array.np.__cuda_array_interface__

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            fail("__dlpack__", "the tensor is part of a graph", self.array.layout, "call detach() first", BufferError)
        if mode.recorder is not None:
            mode.recorder.refuse("__dlpack__()")
        return self.array.np.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.np.__dlpack_device__()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.array.layout.dtype.kind not in "iub":
            raise TypeError(f"[index] only integer tensors can be an index; got {self.array.layout}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.layout.size != 1:
            fail("bool", "the truth value of a tensor with more or less than one element is ambiguous", self.array.layout,
                 "use any() or all()")
        return bool(host_values(self, "bool()").item())

    def __len__(self) -> int:
        if not self.array.layout.ndim:
            raise TypeError("[len] a 0-d tensor has no length")
        return self.array.layout.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.array.layout.ndim:
            raise TypeError("[iter] a 0-d tensor cannot be iterated")
        return iter([self[i] for i in range(self.array.layout.shape[0])])      # type: ignore[index]

    __hash__ = object.__hash__

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.layout.ndim == 0 else object.__format__(self, spec)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)

    # ---- moving ----

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """`to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`; `copy=True` always copies. Differentiable."""
        target, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        copy = kwargs.pop("copy", False)
        kwargs.pop("non_blocking", None)
        if kwargs:
            raise TypeError(f"[to] unexpected argument {next(iter(kwargs))!r}")
        for a in args:
            if isinstance(a, Tensor):
                target, dtype = a.device, a.dtype
            elif isinstance(a, (str, Device)):
                target = a
            elif not isinstance(a, bool):
                dtype = a
        out = self
        if target is not None and open_device(target) is not self.array.layout.device:
            out = functions.transfer(out, open_device(target))
        if dtype is not None and np.dtype(dtype) != out.array.layout.dtype:
            out = functions.cast(out, np.dtype(dtype))
        return functions.clone(out) if copy and out is self else out

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self, device: Any = "cuda") -> Tensor:
        return self.to(f"cuda:{device}" if isinstance(device, int) else device)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self.node is not None:
            fail("deepcopy", "only leaf tensors can be copied deeply", self.array.layout, "detach() first")
        with no_grad():
            copied = functions.clone(self)
            out = _new(type(self))
            out.array, out.node, out.requires_grad = copied.array, None, self.requires_grad
            out.grad = None if self.grad is None else functions.clone(self.grad)
        if hasattr(self, "__dict__"):
            out.__dict__.update(self.__dict__)
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _rebuild, (type(self), self.numpy(force=True).copy(), self.requires_grad and self.node is None, self.device.name)


def _rebuild(kind: type, values: np.ndarray, requires_grad: bool, device: str) -> Tensor:
    out: Any = _new(kind)
    out.array, out.node, out.requires_grad, out.grad = open_device(device).upload(values), None, requires_grad, None
    return out


def new_tensor(array: Array, node: Any) -> Tensor:
    """A tensor over an array; it requires gradients if it has a node."""
    t = _new(Tensor)
    t.array = array
    t.node = node
    t.requires_grad = node is not None
    t.grad = None
    return t


def writable(op: str, t: Tensor) -> None:
    """Refuses an in-place change that the tape would not see."""
    if mode.grad and t.requires_grad:
        fail(op, "in-place changes of tensors in a graph are not differentiable", t.array.layout,
             "use the out-of-place form (x = x + y; where(...); cat(...)), or wrap the change in `with no_grad()`")


def bump(t: Tensor) -> Tensor:
    """Counts an in-place change of the memory under `t`."""
    t.array.storage.version += 1      # type: ignore[misc]
    return t
