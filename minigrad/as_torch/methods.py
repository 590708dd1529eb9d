"""Methods of tensors and modules that only old PyTorch programs ask for. `install` puts them on `Tensor` and `Module`,
`uninstall` removes them."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..autograd.function import Function, FunctionCtx
from ..core.hooks import RemovableHandle
from ..core.out import check_target
from ..core.tensor import Size, Tensor
from ..core.warning import warn
from ..nn.activation import hardshrink
from ..nn.module import Module
from ..ops.creation import arange, tensor
from . import dtypes, subclass
from .types import TensorType, named_type, type_name

# what is replaced: their arguments have other names or meanings in PyTorch
_MODULE = Tensor.__module__
_BEFORE: dict[str, Any] = {name: getattr(Tensor, name) for name in (
    "type", "add", "add_", "addcdiv", "addcdiv_", "addcmul", "addcmul_", "sub", "sub_", "real")}


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """`x.type()` is an old name, "torch.FloatTensor"; `x.type(dtype)` converts, to a dtype or one of these names."""
    if dtype is None:
        return type_name(self)
    kind = named_type(dtype) if isinstance(dtype, str) and dtype.startswith("torch.") else dtype
    if isinstance(kind, TensorType):
        return self.to(device=kind.device, dtype=kind.dtype)
    return _BEFORE["type"](self, kind)


def get_device(input: Tensor) -> int:
    """The number of the tensor's GPU, -1 on the CPU."""
    return -1 if input.device.type == "cpu" else int(input.device.index or 0)   # type: ignore[attr-defined]


def to_dense(self: Tensor, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
    """The tensor itself, or in another dtype."""
    return self if dtype is None else self.to(dtype=dtype)


def coalesce(self: Tensor) -> Tensor:
    """The tensor itself."""
    return self


def indices(self: Any) -> Tensor:
    """The places of the elements that are not 0, (ndim, n): those of the sparse tensor that this one stands for."""
    return self.nonzero().t()                                       # type: ignore[no-any-return]


def values(self: Any) -> Tensor:
    """The elements that are not 0, with their gradient."""
    return self[tuple(self.nonzero().t())]                          # type: ignore[no-any-return]


def to_sparse(self: Tensor, *args: Any, **named: Any) -> Tensor:
    """The tensor itself, with a warning."""
    warn("[to_sparse] gives the dense tensor: minigrad has no sparse ones")
    return self


def fill_diagonal_(self: Any, fill_value: Any, wrap: bool = False) -> Any:
    """Writes the number where all indices are equal; `wrap`: in a tall matrix again, one row below the last of these.
    RuntimeError but for a matrix, or more dimensions of equal sizes."""
    if self.ndim < 2 or self.ndim > 2 and len({*self.shape}) > 1:
        raise RuntimeError(f"[fill_diagonal_] needs a matrix, or equal sizes; got {self.layout}")
    rows, n = self.shape[0], min(self.shape)
    again = wrap and self.ndim == 2 and rows > n > 0
    at = arange((rows + 1) * n // (n + 1) if again else n, device=self.device)
    self[(at + at // n, at % n) if again else (at,) * self.ndim] = fill_value
    return self


def apply_(self: Any, callable: Callable[[Any], Any]) -> Any:
    """Writes `callable(x)` in the place of each element x."""
    values = np.array([callable(x) for x in self.flatten().tolist()], self.dtype)
    return self.copy_(tensor(values).view(*self.shape).to(device=self.device))


def map_(self: Any, tensor: Any, callable: Callable[..., Any]) -> Any:
    """Writes `callable(x, y)` in the place of each element x, where y is the tensor's."""
    return map2_(self, tensor, tensor, lambda x, y, _: callable(x, y))


def map2_(self: Any, x: Any, y: Any, callable: Callable[..., Any]) -> Any:
    """Writes `callable(a, b, c)` in the place of each element a, where b and c are those of `x` and `y`."""
    others = [t.expand(self.shape).flatten().tolist() for t in (x, y)]
    values = np.array([callable(*each) for each in zip(self.flatten().tolist(), *others, strict=True)], self.dtype)
    return self.copy_(tensor(values).view(*self.shape).to(device=self.device))


def is_set_to(self: Any, tensor: Any) -> bool:
    """Do both see the same memory in the same way?"""
    return self.data_ptr() == tensor.data_ptr() and self.array.layout is tensor.array.layout


def dim_order(self: Any, ambiguity_check: Any = False) -> tuple[int, ...]:
    """The dimensions from the slowest in memory to the fastest."""
    strides = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda d: -strides[d]))


def untyped_storage(self: Tensor) -> SimpleNamespace:
    """The memory that a tensor shares with its views: `data_ptr()`, its size in bytes `nbytes()` and `size()`."""
    self.data_ptr()                                     # refused in a captured function
    owner = self.array.storage
    return SimpleNamespace(data_ptr=lambda: owner.ptr, nbytes=lambda: owner.layout.nbytes,
                           size=lambda: owner.layout.nbytes, device=self.device)


class _Storage(Tensor):
    """Elements in memory. True if there are any."""

    def __bool__(self) -> bool:
        return self.numel() > 0


def storage(self: Any) -> Tensor:
    """All elements of the memory that a tensor shares with its views."""
    found = (self._base if self._is_view() else self).detach().flatten()
    return subclass.as_subclass(found, _Storage)                    # type: ignore[no-any-return]


def _writing(name: str, function: Any) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **named: Any) -> Any:
        found = function(self.clone(), *args, **named)
        check_target(name, self.array.layout, found.array.layout)
        return self.copy_(found)
    return method


def new_empty_strided(self: Tensor, size: Any, stride: Any, dtype: Any = None, device: Any = None,
                      requires_grad: bool = False, **ignored: Any) -> Tensor:
    """`empty_strided` of the tensor's dtype and device."""
    from .aten import empty_strided
    return empty_strided(size, stride, dtype=dtype or self.dtype, device=device or self.device,
                         requires_grad=requires_grad)


def _ignored(self: Tensor, value: Any) -> None:
    """PyTorch keeps `require_grad`, which nobody reads. Tensors have no room for attributes here."""
    warn("[require_grad] nothing reads this attribute; it changes nothing, as in PyTorch; write requires_grad")


def _old_order(name: str, word: str) -> Callable[..., Any]:
    """A method that takes PyTorch's old order, too: x.add_(2, y) for x.add_(y, alpha=2), x.addcmul_(2, a, b)."""
    new = getattr(Tensor, name)

    def method(*args: Any, **named: Any) -> Any:
        if "input" in named:
            args = (named.pop("input"), *args)
        if len(args) > (2 if word == "alpha" else 3) and isinstance(args[2], Tensor):   # the number may be a 0-d tensor
            named[word], args = args[1], (args[0], *args[2:])
        return new(*args, **named)
    return wraps(new)(method)


_OLD = {name + end: word for names, word in ((("add", "sub"), "alpha"), (("addcmul", "addcdiv"), "value"))
        for name in names for end in ("", "_")}
_FUNCTIONS = {"hardshrink": hardshrink}
METHODS: dict[str, Any] = {
    **{name: _old_order(name, word) for name, word in _OLD.items()}, **_FUNCTIONS,
    **{f"{name}_": _writing(f"{name}_", function) for name, function in _FUNCTIONS.items()},
    **subclass.METHODS, "adjoint": Tensor.mT.fget, "apply_": apply_, "map_": map_,          # type: ignore[attr-defined]
    "map2_": map2_, "is_set_to": is_set_to, "dim_order": dim_order, "fill_diagonal_": fill_diagonal_,
    "is_conj": lambda self: False, "is_neg": lambda self: False,
    "conj_physical_": lambda input: input, "real": property(lambda self: self), "untyped_storage": untyped_storage,
    "polygamma_": _writing("polygamma_", Tensor.polygamma), "is_shared": lambda self: False,
    "storage_offset": lambda self: (self.data_ptr() - self.array.storage.ptr) // self.itemsize,
    "is_cpu": property(lambda self: self.device.type == "cpu"),
    "is_inference": lambda input: False, "is_same_size": lambda input, other: input.shape == other.shape,
    "share_memory_": lambda self: self, "storage": storage, "to_sparse": to_sparse,
    "record_stream": lambda self, stream: None,
    "require_grad": property(None, _ignored),
    "new_empty_strided": new_empty_strided, "__rdiv__": Tensor.__rtruediv__,        # type: ignore[attr-defined]
    "type": type_, "to_dense": to_dense, "coalesce": coalesce,
    "indices": indices, "_indices": indices, "values": values, "_values": values,
    "_nnz": lambda self: int(self.count_nonzero()), "is_coalesced": lambda self: True, "get_device": get_device,
    **dict.fromkeys(("is_meta", "is_mkldnn", "is_mps", "is_nested", "is_quantized", "is_sparse", "is_sparse_csr",
                     "is_xla", "is_xpu"), False)}


def _without_module(hook: Callable, module: Module, *rest: Any) -> Any:
    return hook(*rest)


def _replacing(hook: Callable, module: Module, state_dict: dict[str, Any], *rest: Any) -> None:
    other = hook(module, state_dict, *rest)
    if other is not None and other is not state_dict:
        state_dict.clear()
        state_dict.update(other)


def _register_load_state_dict_pre_hook(self: Module, hook: Callable, with_module: bool = False) -> RemovableHandle:
    """`register_load_state_dict_pre_hook`, of a hook that need not take the module."""
    return self.register_load_state_dict_pre_hook(hook if with_module else partial(_without_module, hook))


def _register_state_dict_hook(self: Module, hook: Callable) -> RemovableHandle:
    """`register_state_dict_post_hook`, of a hook that may return another dict."""
    return self.register_state_dict_post_hook(partial(_replacing, hook))


_OF_MODULES = {"_register_load_state_dict_pre_hook": _register_load_state_dict_pre_hook,
               "_register_state_dict_hook": _register_state_dict_hook,
               "__setstate__": lambda self, state: self.__dict__.update(state),       # what subclasses call
               "_flat_weights": property(lambda self: [w for layer in self.all_weights for w in layer]),
               "_get_no_batch_dim": lambda self: self.ndims[0],
               "share_memory": lambda self: self, "compile": lambda self, *args, **named: None,
               "register_backward_hook": Module.register_full_backward_hook}


def _giving_sizes(name: str) -> Callable[[Size, Any], Any]:
    """A method of tuples that gives a `Size`: old constructors take part of a shape for a shape, a tuple for values."""
    plain = getattr(tuple, name)

    def method(self: Size, other: Any) -> Any:
        if name == "__add__" and not isinstance(other, tuple):
            return NotImplemented
        found = plain(self, other)
        return Size(found) if type(found) is tuple else found
    return method


def _after(self: Size, other: Any) -> Any:
    return Size((*other, *self)) if isinstance(other, tuple) else NotImplemented


_OF_SIZES: dict[str, Any] = {name: _giving_sizes(name) for name in ("__getitem__", "__add__", "__mul__", "__rmul__")}
_OF_SIZES["__radd__"] = _after
_SHOWN, _ALONE = Size.__repr__, Function.__init__


def _instance(self: Any, *args: Any, **named: Any) -> None:
    """Old programs write `Square().apply(x)`."""
    warn(f"[{type(self).__name__}] a Function needs no instance; call apply of the class", DeprecationWarning)


def _called(self: Any, *args: Any, **named: Any) -> None:
    """RuntimeError: so it was when `forward` was no static method."""
    raise RuntimeError(f"[{type(self).__name__}] Legacy autograd function; make forward static, and call apply")


def put_on() -> None:
    """Gives `Tensor` the methods that it lacks, and others in the place of those in `_BEFORE`. Its class is called
    `torch.Tensor`: so other packages know a tensor."""
    Tensor.__module__ = "torch"
    subclass.put_on()
    dtypes.put_on()
    for name, value in METHODS.items():
        if name in _BEFORE or not hasattr(Tensor, name):
            setattr(Tensor, name, value)
    for name, value in _OF_MODULES.items():
        setattr(Module, name, value)
    FunctionCtx.saved_variables = FunctionCtx.saved_tensors         # type: ignore[attr-defined]
    Function.__init__, Function.__call__ = _instance, _called       # type: ignore[attr-defined,method-assign]
    for name, value in _OF_SIZES.items():
        setattr(Size, name, value)
    Size.__repr__ = lambda self: f"torch.{_SHOWN(self)}"            # type: ignore[method-assign]


def take_off() -> None:
    """`Tensor` as it was before."""
    for name, value in METHODS.items():
        if Tensor.__dict__.get(name) is value:
            delattr(Tensor, name)
    for name, value in _BEFORE.items():
        setattr(Tensor, name, value)
    Tensor.__module__ = _MODULE
    subclass.take_off()
    dtypes.take_off()
    for name in {*_OF_SIZES} & {*vars(Size)}:
        delattr(Size, name)
    Size.__repr__ = _SHOWN                                          # type: ignore[method-assign]
    for name in _OF_MODULES:
        if name in Module.__dict__:
            delattr(Module, name)
    if hasattr(FunctionCtx, "saved_variables"):
        del FunctionCtx.saved_variables, Function.__call__          # type: ignore[attr-defined]
    Function.__init__ = _ALONE                                      # type: ignore[method-assign]
