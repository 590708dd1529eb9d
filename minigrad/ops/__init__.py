"""The ops. Importing this package gathers their public names and binds them to `Tensor` and to the engine.

The rule, instead of a second list: every name in the `__all__` of a family below is a function of `minigrad`; if its
first parameter is annotated `Tensor`, it is a method of Tensor too. A family's INPLACE names those that have an in-place method
`name_` besides, its METHODS what is a method only; the operators below call the function of the name given.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from .. import engine
from ..op import Op
from ..tensor import Tensor
from . import creation, elementwise, reduce, shape_ops

FAMILIES = (
    "elementwise", "pointwise", "activation", "random",
    "reduce", "shape_ops", "index", "sort",
    "matmul", "norm", "conv", "pool", "rnn",
    "softmax", "loss",
    "attention",
    "creation", "display",
)

core: Any = import_module("..op", __name__)             # modules: `minigrad.op` and `minigrad.capture` are functions
engine.add = elementwise.add.call
engine.add_ = elementwise.accumulate
engine.sum_to = reduce.sum_to
engine.cast = elementwise.cast
engine.clone = creation.clone
engine.transfer = creation.transfer
engine.as_tensor = creation.as_tensor
engine.empty = creation.empty
engine.ones_like = creation.ones_like
core.contiguous_copy = elementwise.contiguous_copy
capture: Any = import_module("..capture", __name__)
capture.copy_array = elementwise.copy_array
core.alias = shape_ops.alias
core.zeros_like_layout = creation.zeros_like_layout

# operator: function, is there a reflected form, is there an in-place form
OPERATORS = {"add": ("add", True, True), "sub": ("sub", True, True), "mul": ("mul", True, True), "truediv": ("div", True, True),
             "floordiv": ("floor_divide", True, True), "mod": ("remainder", True, True), "pow": ("pow", True, True),
             "matmul": ("matmul", True, False), "and": ("bitwise_and", True, True), "or": ("bitwise_or", True, True),
             "xor": ("bitwise_xor", True, True), "lshift": ("bitwise_left_shift", True, True),
             "rshift": ("bitwise_right_shift", True, True), "eq": ("eq", False, False), "ne": ("ne", False, False),
             "lt": ("lt", False, False), "le": ("le", False, False), "gt": ("gt", False, False), "ge": ("ge", False, False),
             "neg": ("neg", False, False), "abs": ("abs", False, False), "invert": ("bitwise_not", False, False),
             "pos": ("positive", False, False)}


def _takes_tensor(function: Any) -> bool:
    """Is the first parameter annotated `Tensor`?"""
    plain = getattr(function, "definition", function)
    code = getattr(plain, "__code__", None)
    return code is not None and code.co_argcount > 0 and plain.__annotations__.get(code.co_varnames[0]) in ("Tensor", Tensor)


def _method(function: Any) -> Callable:
    """A function in the form that binds `self`."""
    if not isinstance(function, (Op, elementwise.Elementwise)):
        return function
    if hasattr(function, "method"):
        return function.method

    @wraps(function.definition)
    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return function(self, *args, **options)
    return method


def _operator(function: Any) -> Callable:
    """For `a + b`: what is neither tensor nor number leaves the operator to the other side."""
    if isinstance(function, elementwise.Elementwise):
        return function.call

    def operator(self: Tensor, *other: Any) -> Any:
        return function(self, *other) if elementwise.is_operand(*other) else NotImplemented
    return operator


def _reflected(function: Any) -> Callable:
    if isinstance(function, elementwise.Elementwise):
        return function.call if function in (elementwise.add, elementwise.mul) else function.reflected

    def operator(self: Tensor, other: Any) -> Any:
        return function(other, self) if elementwise.is_operand(other) else NotImplemented
    return operator


def _bind(public: dict[str, Any], inplace: set[str], methods: dict[str, Any]) -> None:
    for name, function in public.items():
        if isinstance(function, elementwise.Elementwise) or _takes_tensor(function):
            setattr(Tensor, name, _method(function))
            if name in inplace:
                setattr(Tensor, name + "_", elementwise.in_place(name, function))
    for short, (name, has_reflected, has_inplace) in OPERATORS.items():
        function = public.get(name)
        if function is not None:
            setattr(Tensor, f"__{short}__", _operator(function))
            if has_reflected:
                setattr(Tensor, f"__r{short}__", _reflected(function))
            if has_inplace:
                setattr(Tensor, f"__i{short}__", getattr(Tensor, name + "_"))
    for name, method in methods.items():
        setattr(Tensor, name, method)


__all__: list[str] = []
_public: dict[str, Any] = {}
_inplace: set[str] = set()
_methods: dict[str, Any] = {}
for _family in FAMILIES:
    _module = import_module(f".{_family}", __name__)
    _names = getattr(_module, "__all__", ())
    _public.update({_name: getattr(_module, _name) for _name in _names})
    __all__ += _names
    _inplace |= getattr(_module, "INPLACE", set())
    _methods.update(getattr(_module, "METHODS", {}))
globals().update(_public)            # after the imports: a module may have the name of a function (norm, sort)
_bind(_public, _inplace, _methods)
