"""Classes of tensors: `as_subclass`, and what they call of PyTorch's inner names. Functions are not overridden: what is
computed from such tensors are plain tensors, as with `_disabled_torch_function_impl`."""
from __future__ import annotations

from contextlib import nullcontext
from functools import wraps
from typing import Any

from ..core.inplace import register
from ..core.tensor import Size, Tensor
from ..nn.module import Parameter

DisableTorchFunction = DisableTorchFunctionSubclass = nullcontext
_TensorMeta = type


def as_subclass(self: Tensor, cls: type[Tensor]) -> Any:
    """The same values in the same memory, of the class `cls`: a view, in the graph of this tensor."""
    alias = self.view(self.shape)                       # type: ignore[attr-defined]
    made = cls.__new__(cls) if cls.__new__ is Tensor.__new__ else object.__new__(cls)
    made.array, made.node, made._requires_grad, made._grad = alias.array, alias.node, alias._requires_grad, None
    register([made], self, alias.array.plan)          # type: ignore[attr-defined]
    return made


def _make_subclass(cls: type[Tensor], data: Tensor, require_grad: bool = False, **named: Any) -> Any:
    """A leaf of the class `cls` in the memory of `data`."""
    made = object.__new__(cls)
    Tensor.__init__(made, data.detach())                # type: ignore[attr-defined]
    return made.requires_grad_(require_grad)            # type: ignore[attr-defined]


def _new_tensor(cls: type[Tensor], *data: Any, **named: Any) -> Any:
    """A tensor of a class whose `__init__` need not call Tensor's: PyTorch's makes it here. What PyTorch would
    refuse is left to `__init__`."""
    made: Any = object.__new__(cls)
    if not named and (len(data) == 1 or all(isinstance(n, int) for n in data)):
        _INIT[Tensor](made, *data)
    return made


def _new_parameter(cls: type[Parameter], data: Any = None, requires_grad: bool = True, *args: Any,
                   **named: Any) -> Any:
    """A parameter of a class whose `__init__` need not call Parameter's: PyTorch's makes it here."""
    made: Any = object.__new__(cls)
    if isinstance(data, Tensor) and (cls.__init__, cls.__new__) != (Parameter.__init__, Parameter.__new__):
        Parameter.__init__(made, data, requires_grad)
    return made


def _unless_made(init: Any) -> Any:
    """An `__init__` that leaves a tensor alone which `__new__` has made: PyTorch's does nothing."""
    @wraps(init)
    def method(self: Any, *args: Any, **named: Any) -> None:
        if not hasattr(self, "array"):
            init(self, *[Size(named.pop(name)) for name in ("size",) if name in named], *args, **named)
    return method


def __torch_function__(cls: type[Tensor], func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """func(*args, **kwargs): nothing here calls it, but classes that override it do."""
    return func(*args, **kwargs or {})


def _disabled_torch_function_impl(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """func(*args, **kwargs)"""
    return func(*args, **kwargs or {})


METHODS: dict[str, Any] = {"as_subclass": as_subclass, "_make_subclass": staticmethod(_make_subclass),
                           "__torch_function__": classmethod(__torch_function__)}
_INIT: dict[Any, Any] = {kind: kind.__init__ for kind in (Tensor, Parameter)}
_NEW = vars(Tensor)["__new__"]


def put_on() -> None:
    """Lets `__new__` of a class make tensors, as PyTorch's do."""
    for kind, init in _INIT.items():
        kind.__init__ = _unless_made(init)              # type: ignore[method-assign]
    Tensor.__new__, Parameter.__new__ = _new_tensor, _new_parameter         # type: ignore[assignment]


def take_off() -> None:
    """`Tensor` and `Parameter` as they were before."""
    for kind, init in _INIT.items():
        kind.__init__ = init                            # type: ignore[method-assign]
    Tensor.__new__ = _NEW                               # type: ignore[method-assign]
    if "__new__" in vars(Parameter):
        del Parameter.__new__
