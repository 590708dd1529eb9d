"""Parametrization: a parameter or buffer of a module that is computed from others each time it is read.

    class Symmetric(nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).mT

    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())

`layer.weight` is now Symmetric()(layer.parametrizations.weight.original), and `original` is what trains. The module
gets a class of its own, with a property of that name.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ...core.modes import no_grad
from ...core.tensor import Tensor
from ..container import ModuleDict, ModuleList
from ..module import Module, Parameter

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
           "transfer_parametrizations_and_params", "type_before_parametrizations"]

_kept: dict[tuple[int, str], Tensor] | None = None          # within `cached()`: what was computed, by module and name


@contextmanager
def cached() -> Iterator[None]:
    """Within this context each parametrized tensor is computed once: for a model that reads its weights several times.

        with parametrize.cached():
            for x in steps:
                h = rnn_cell(x, h)
    """
    global _kept
    outside, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = outside


def _register(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _same(name: str, what: str, old: Tensor, new: Any) -> None:
    """ValueError unless `new` is a tensor like `old`."""
    if not isinstance(new, Tensor):
        raise ValueError(f"[register_parametrization] {what} must return a tensor; got {type(new).__name__}")
    if new.dtype != old.dtype or new.shape != old.shape:
        raise ValueError(f"[register_parametrization] {what} may not change dtype or shape of {name}; got {new.layout} "
                         f"for {old.layout}; pass unsafe=True if that is meant")


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what it is computed from: `original`, or `original0`, `original1`, ...
    if the first parametrization takes several tensors.

    The parameter stays the same object if its `right_inverse` gives one tensor: an optimiser need not be told.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("[ParametrizationList] needs one or more modules")
        super().__init__(modules)
        self.unsafe = unsafe
        old: Tensor = original.detach().clone()
        with no_grad():
            given = self._inverted(original, required=False)
        if not isinstance(given, Tensor | tuple | list):
            raise ValueError("[register_parametrization] right_inverse must return a Tensor or a sequence of tensors; "
                             f"got {type(given).__name__}")
        self.is_tensor = isinstance(given, Tensor)
        self.ntensors = 1 if isinstance(given, Tensor) else len(given)
        if isinstance(given, Tensor):
            if given.dtype != original.dtype or given.device is not original.device:
                raise ValueError("[register_parametrization] right_inverse may not change dtype or device; got "
                                 f"{given.layout} for {original.layout}")
            original.data = given.detach()
            _register(self, "original", original)
        else:
            for i, t in enumerate(given):
                if not isinstance(t, Tensor):
                    raise ValueError("[register_parametrization] right_inverse must return tensors; got "
                                     f"{type(t).__name__} at {i}")
                one = Parameter(t.detach().clone(), original.requires_grad) if isinstance(original, Parameter) else t
                _register(self, f"original{i}", one)
        if not unsafe:
            _same("the tensor", "a parametrization", old, self())

    def _inverted(self, value: Any, required: bool) -> Any:
        """What gives `value`, by the inverses of all parametrizations; one without an inverse counts as the identity,
        unless it is required."""
        for module in reversed(list(self)):
            inverse = getattr(module, "right_inverse", None)
            if inverse is None and required:
                raise RuntimeError(f"[parametrize] {type(module).__name__} does not implement right_inverse")
            if inverse is not None:
                try:
                    value = inverse(value)
                except NotImplementedError:
                    if required:
                        raise
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Sets the originals so that the tensor becomes `value` (or what comes nearest to it)."""
        with no_grad():
            given = self._inverted(value, required=True)
            mine = [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]
            given = [given] if isinstance(given, Tensor) else list(given)
            if len(given) != len(mine) or any(not isinstance(t, Tensor) or t.dtype != own.dtype
                                              for t, own in zip(given, mine, strict=False)):
                raise ValueError(f"[parametrize] right_inverse must return {self.ntensors} tensor(s) of the dtype of "
                                 "the originals")
            for own, t in zip(mine, given, strict=True):
                own.data = t.detach().clone()

    def forward(self) -> Tensor:            # type: ignore[override]
        """The tensor."""
        first, *others = list(self)
        x = first(self.original) if self.is_tensor else \
            first(*[getattr(self, f"original{i}") for i in range(self.ntensors)])
        for module in others:
            x = module(x)
        return x


def _property(name: str) -> property:
    def get(self: Module) -> Tensor:
        made = self.parametrizations[name]
        if _kept is None:
            return made()
        key = id(self), name
        if key not in _kept:
            _kept[key] = made()
        return _kept[key]

    def assign(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)
    return property(get, assign)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """From now on `module.tensor_name` is parametrization(its value). A second parametrization acts on the first one's
    result. Returns the module.

    A parametrization may have `right_inverse`, which gives what to start from, one tensor or several; it is used too
    when the tensor is assigned. ValueError for a name that is no parameter or buffer, or, unless `unsafe`, if dtype or
    shape change.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        found = module.parametrizations[tensor_name]
        if not unsafe:
            now = getattr(module, tensor_name)
            new = parametrization(now)
            _same(tensor_name, "a parametrization", now, new)
            if hasattr(parametrization, "right_inverse"):
                _same(tensor_name, "right_inverse", now, parametrization.right_inverse(new))
        found.append(parametrization)
        found.unsafe = found.unsafe or unsafe
        return module
    original = (module._parameters | module._buffers).get(tensor_name)
    if original is None:
        raise ValueError(f"[register_parametrization] {type(module).__name__} has no parameter, buffer or parametrized "
                         f"tensor {tensor_name!r}")
    made = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    kind = type_before_parametrizations(module)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = made
    _reclassed(module, kind)
    return module


class _Copier:
    """Makes the copy of a parametrized module for `copy`, and refuses to be pickled."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("[parametrize] a module with parametrizations cannot be pickled; save its state_dict()")


def _reduced(self: Module, protocol: Any) -> Any:
    made: Any = type_before_parametrizations(self).__reduce_ex__(self, protocol)
    return (_Copier(made[0]), *made[1:])


def _reclassed(module: Module, kind: type[Module]) -> None:
    """Gives the module a class of its own, with the properties that it has now: copies have the old one."""
    members = {name: _property(name) for name in module.parametrizations}
    module.__class__ = type(f"Parametrized{kind.__name__}", (kind,), {"__reduce_ex__": _reduced, **members})


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Has the module parametrized tensors, or one of this name?"""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes the tensor a parameter or buffer again: with its present value, or with `leave_parametrized=False` that of
    `original`. ValueError if it is not parametrized, or if there are several originals to leave."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"[remove_parametrizations] {type(module).__name__} has no parametrization of {tensor_name!r}")
    made = module.parametrizations[tensor_name]
    if made.is_tensor:
        tensor = made.original
        if leave_parametrized:
            with no_grad():
                tensor.data = getattr(module, tensor_name).detach().clone()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        tensor = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ValueError("[remove_parametrizations] a tensor that is computed of several cannot be left unparametrized")
    kind = type_before_parametrizations(module)
    del module.parametrizations[tensor_name]
    if is_parametrized(module):
        _reclassed(module, kind)
    else:
        del module.parametrizations
        module.__class__ = kind
    _register(module, tensor_name, tensor)
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class that the module had before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module,
                                         tensor_name: str | None = None) -> Module:
    """Gives `to_module` the parametrizations of `from_module`, of all tensors or of one, and what these are computed
    from; both have the same objects then. Returns `to_module`."""
    found = dict(from_module.parametrizations.items()) if is_parametrized(from_module) else {}
    for name, made in found.items():
        if tensor_name in (None, name):
            if not hasattr(to_module, name):
                _register(to_module, name, Parameter(getattr(from_module, name).detach()))
            for parametrization in made:
                register_parametrization(to_module, name, parametrization, unsafe=made.unsafe)
            for key, value in (made._parameters | made._buffers).items():
                setattr(to_module.parametrizations[name], key, value)
    return to_module
