"""The ops. Importing this package gathers their public names and binds them to `Tensor` and to the engine.

The rule, instead of a second list: every name in the `__all__` of a module of this folder is a function of `minigrad`;
if its first parameter is annotated `Tensor`, it is a method of Tensor too. A module's INPLACE names those that have an
in-place method `name_` besides, its METHODS what is a method only; the operators below call the function of the name
given. The families in LATER have no `__all__`: they are imported when one of their names is first asked for.
"""
from __future__ import annotations

import copyreg
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from pkgutil import iter_modules
from types import FunctionType
from typing import Any

from ..core.engine import functions
from ..core.inplace import change, involved
from ..core.messages import guarded, is_short
from ..core.op import Op, registry
from ..core.out import check_target
from ..core.tensor import Tensor
from . import convert, creation, math, reduce, view
from .dispatch import binary_in_place, described
from .elementwise import Elementwise, is_operand

functions.add = math.add.call
functions.accumulate = math.accumulate
functions.sum_to = reduce.sum_to
functions.cast = convert.cast
functions.clone = creation.clone
functions.transfer = convert.transfer
functions.as_tensor = creation.as_tensor
functions.empty = creation.empty
functions.full = creation.full_like_layout
functions.zero_ = convert.zero_
functions.alias = view.alias

# operator: function, is there a reflected form, is there an in-place form
OPERATORS = {
    "add": ("add", True, True), "sub": ("sub", True, True), "mul": ("mul", True, True), "truediv": ("div", True, True),
    "floordiv": ("floor_divide", True, True), "mod": ("remainder", True, True), "pow": ("pow", True, True),
    "matmul": ("matmul", True, False), "and": ("bitwise_and", True, True), "or": ("bitwise_or", True, True),
    "xor": ("bitwise_xor", True, True), "lshift": ("bitwise_left_shift", True, True),
    "rshift": ("bitwise_right_shift", True, True), "eq": ("eq", False, False), "ne": ("ne", False, False),
    "lt": ("lt", False, False), "le": ("le", False, False), "gt": ("gt", False, False), "ge": ("ge", False, False),
    "neg": ("neg", False, False), "abs": ("abs", False, False), "invert": ("bitwise_not", False, False),
    "pos": ("positive", False, False)}

# Families that few programs use, and their names: functions, `name_` for the in-place method of a function, and `.name`
# for what is a method only. They cost nothing at import: `load` imports one when a name of it is first asked for.
LATER = {
    "factor": "",
    "further": "alias_copy angle broadcast_shapes conj conj_physical constant_pad_nd detach_copy diagonal_copy "
               "expand_copy fill frexp gcd gcd_ isreal lcm lcm_ mvlgamma mvlgamma_ narrow_copy nextafter nextafter_ "
               "permute_copy real resolve_conj resolve_neg scalar_tensor select_copy split_copy split_with_sizes_copy "
               "squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsafe_chunk unsafe_split unsqueeze_copy "
               "view_copy",
    "linalg": "",
    "masked": "",
    "older": "chain_matmul cholesky cholesky_inverse cholesky_solve det geqrf ger inverse logdet lu lu_solve lu_unpack "
             "matrix_exp matrix_power orgqr ormqr pca_lowrank pinverse qr slogdet svd svd_lowrank triangular_solve",
    "pairs": "addr addr_ block_diag cartesian_prod cdist combinations corrcoef cov cross cumulative_trapezoid diagflat "
             "diff dist dsplit gradient hsplit kron logcumsumexp pdist renorm renorm_ sum_to_size trace trapezoid "
             "trapz unravel_index vsplit",
    "places": "as_strided as_strided_copy as_strided_scatter diagonal_scatter index_put index_put_ index_reduce "
              "index_reduce_ masked_scatter masked_scatter_ nonzero_static put put_ scatter_reduce scatter_reduce_ "
              "segment_reduce .as_strided_ .new .resize_ .resize_as_ .set_ .squeeze_ .swapaxes_ .swapdims_ .t_ "
              ".transpose_ .unsqueeze_",
    "quantile": "bucketize histc histogram histogramdd isin median mode nanmedian nanquantile quantile searchsorted",
    "special": "i0 i0_ igamma igamma_ igammac igammac_",
}
_family = {name.lstrip("."): family for family, names in LATER.items() for name in names.split()}
later = [name for names in LATER.values() for name in names.split() if name[0] != "." and name[-1] != "_"]


class _Later:
    """A method of a family in LATER that is not imported yet."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, input: Tensor | None, owner: type) -> Any:
        load(_family[self.name])
        return getattr(owner if input is None else input, self.name)


def load(family: str) -> None:
    """Imports a family of LATER: its functions become names of this package, and methods."""
    if family in _loaded:
        return
    module = import_module(f".{family}", __name__)
    names = LATER[family].split()
    for name in names:
        if type(vars(Tensor).get(name.lstrip("."))) is _Later:
            delattr(Tensor, name.lstrip("."))
    public = {name: getattr(module, name) for name in names if name in later}
    methods = {name[1:]: module.METHODS[name[1:]] for name in names if name[0] == "."}
    _bind(public, {name[:-1] for name in names if name[-1] == "_" and name[0] != "."}, methods)
    _publish(public)
    __all__.extend(public)
    _loaded.add(family)


def load_all() -> None:
    """Imports all families of LATER: for what goes through all ops."""
    for family in LATER:
        load(family)


def __getattr__(name: str) -> Any:
    """The functions of LATER."""
    if name in later:
        load(_family[name])
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _takes_tensor(function: Any) -> bool:
    """Is the first parameter annotated `Tensor`, or as a tensor or a number?"""
    plain = getattr(function, "__wrapped__", function)
    code = getattr(plain, "__code__", None)
    if code is None or not code.co_argcount:
        return False
    return plain.__annotations__.get(code.co_varnames[0]) in ("Tensor", "Tensor | float", Tensor)


def _signature(op: Elementwise) -> Signature:
    """What `help` shows of the method of an elementwise primitive: its inputs; with several, its options."""
    inputs = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation="Tensor") for name in op.inputs]
    if len(inputs) == 1:
        return Signature(inputs, return_annotation="Tensor")
    calls = (op.options, Elementwise.__call__) if op.options is not None else (Elementwise.__call__,)
    options = [p for call in calls for p in signature(call).parameters.values() if p.kind == Parameter.KEYWORD_ONLY]
    return Signature([*inputs, *options], return_annotation="Tensor")


def _method(function: Any) -> Callable:
    """A function in the form that binds `self`."""
    if not isinstance(function, (Op, Elementwise)):
        return function if is_short(function) else guarded(function)
    if isinstance(function, Elementwise) and len(function.inputs) == 1:
        return described(function.call, function.name, function.__doc__, _signature(function))

    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return function(self, *args, **options)
    if isinstance(function, Op):
        return wraps(function.definition)(method)
    return described(method, function.name, function.__doc__, _signature(function))


def _operator(function: Any) -> Callable:
    """For `a + b`: what is neither tensor nor number leaves the operator to the other side."""
    if isinstance(function, Elementwise):
        return function.call

    def operator(self: Tensor, *other: Any) -> Any:
        return function(self, *other) if is_operand(*other) else NotImplemented
    return operator


def _reflected(function: Any) -> Callable:
    if isinstance(function, Elementwise):               # 2 * x is x * 2: the node of x is the first of the product's
        return function.call if function.commutes else function.reflected

    def operator(self: Tensor, other: Any) -> Any:
        return function(other, self) if is_operand(other) else NotImplemented
    return operator


def _augmented(function: Elementwise, change: Callable) -> Callable:
    """For `a += b`: likewise."""
    return binary_in_place(function, lambda input, other: change(input, other) if is_operand(other) else NotImplemented)


def _bind(public: dict[str, Any], inplace: set[str], methods: dict[str, Any]) -> None:
    for name, function in public.items():
        if isinstance(function, Elementwise) or _takes_tensor(function):
            setattr(Tensor, name, _method(function))
            if name in inplace:
                setattr(Tensor, name + "_", in_place(name, function))
    for short, (name, has_reflected, has_inplace) in OPERATORS.items():
        function = public.get(name)
        if function is not None:
            setattr(Tensor, f"__{short}__", _operator(function))
            if has_reflected:
                setattr(Tensor, f"__r{short}__", _reflected(function))
            if has_inplace:
                setattr(Tensor, f"__i{short}__", _augmented(function, getattr(Tensor, name + "_")))
    for name, method in methods.items():
        setattr(Tensor, name, _method(method) if isinstance(method, Op) else method)


def in_place(name: str, function: Any) -> Callable:
    """The method `name_`: writes into its first argument what `function` computes."""
    table = isinstance(function, Elementwise)

    def general(input: Tensor, *others: Any, **options: Any) -> Tensor:
        if involved(input, *others, *options.values()) if options else involved(input, *others):
            def pure(old: Tensor) -> Tensor:
                result = function(*[old if t is input else t for t in (input, *others)], **options)
                check_target(name + "_", input.array.layout, result.array.layout)
                return result
            reads = options or not table or function.saves_first((input, *others))
            return change(name + "_", input, pure, bool(reads))
        if table:
            return function.into(input, input, *others, **options)
        return math.copy.into(input, function(input, *others, **options))

    method = general
    if table and len(function.inputs) == 2:
        binary = binary_in_place(function, general)

        def method(input: Tensor, *others: Any, **options: Any) -> Tensor:
            return general(input, *others, **options) if options else binary(input, *others)
    shown = _signature(function) if isinstance(function, Elementwise) else None
    if shown is None:
        method.__wrapped__ = function           # type: ignore[attr-defined]  # inspect.signature follows it when asked
    return described(method, f"{name}_", f"`{name}`, written into the tensor itself, and returns it.", shown)


def _publish(public: dict[str, Any]) -> None:
    """Makes them names of this package; functions then check their keywords."""
    for name, f in public.items():
        globals()[name] = guarded(f, __name__, name) if isinstance(f, FunctionType) else f


def _of_name(name: str) -> Any:
    """What a pickled op is found by."""
    return registry[name]


__all__: list[str] = []
_loaded: set[str] = set()
_public: dict[str, Any] = {}
_inplace: set[str] = set()
_methods: dict[str, Any] = {}
for _name in sorted(found.name for found in iter_modules(__path__) if found.name not in LATER):
    _module = import_module(f".{_name}", __name__)
    _names = getattr(_module, "__all__", ())
    _public.update({_n: getattr(_module, _n) for _n in _names})
    __all__ += _names
    _inplace |= getattr(_module, "INPLACE", set())
    _methods.update(getattr(_module, "METHODS", {}))
_bind(_public, _inplace, _methods)
for _name in _family:
    setattr(Tensor, _name, _Later(_name))
copyreg.pickle(Elementwise, lambda op: (_of_name, (op.name,)))
# last, since a module may have the name of a function (norm, sort)
_publish(_public)
