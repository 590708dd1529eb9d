"""The package `functorch`, which comes with PyTorch: `torch.func`, and older functions that take a module apart."""
from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ..core.tensor import Tensor
from ..func import functional_call
from ..nn.module import Module
from ..ops.join import stack


class FunctionalModuleWithBuffers(Module):
    """A module as a function of its parameters and buffers: `module(params, buffers, *args)`."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self._kept = (module,)                          # in a tuple: its parameters are not this module's
        self.param_names = tuple(dict(module.named_parameters()))
        self.buffer_names = tuple(dict(module.named_buffers()))

    @property
    def stateless_model(self) -> Module:
        """The module."""
        return self._kept[0]

    def forward(self, params: Sequence[Tensor], buffers: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """The module's result with these tensors."""
        values = zip((*self.param_names, *self.buffer_names), (*params, *buffers), strict=True)
        return functional_call(self.stateless_model, dict(values), args, kwargs)


class FunctionalModule(FunctionalModuleWithBuffers):
    """A module without buffers as a function of its parameters: `module(params, *args)`."""

    def forward(self, params: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:     # type: ignore[override]
        """The module's result with these parameters."""
        return super().forward(params, (), *args, **kwargs)


def make_functional_with_buffers(model: Module, disable_autograd_tracking: bool = False) -> tuple[Any, ...]:
    """(function, parameters, buffers) of a copy of the module. With `disable_autograd_tracking` the parameters require
    no gradient."""
    made = FunctionalModuleWithBuffers(deepcopy(model))
    params = tuple(made.stateless_model.parameters())
    for p in params if disable_autograd_tracking else ():
        p.requires_grad_(False)
    return made, params, tuple(made.stateless_model.buffers())


def make_functional(model: Module, disable_autograd_tracking: bool = False) -> tuple[Any, ...]:
    """(function, parameters) of a copy of the module. RuntimeError for a module with buffers."""
    made, params, buffers = make_functional_with_buffers(model, disable_autograd_tracking)
    if buffers:
        raise RuntimeError(f"[make_functional] the module has buffers ({', '.join(made.buffer_names)}); use "
                           "make_functional_with_buffers")
    return FunctionalModule(made.stateless_model), params


def _leaf(tensors: Sequence[Tensor]) -> Tensor:
    return stack([t.detach() for t in tensors]).requires_grad_(all([t.requires_grad for t in tensors]))


def combine_state_for_ensemble(models: Sequence[Module]) -> tuple[Any, ...]:
    """(function, parameters, buffers) of modules of one class: each tensor is stacked of theirs, for `vmap`.
    RuntimeError for no modules, modules of several classes, or some in training mode and others not."""
    if len({(type(m), m.training) for m in models}) != 1:
        raise RuntimeError("[combine_state_for_ensemble] takes modules of one class and mode; got "
                           f"{sorted({type(m).__name__ for m in models})}; set all to train() or eval()")
    made, params, buffers = zip(*map(make_functional_with_buffers, models), strict=True)
    return (made[0], *[tuple([_leaf(each) for each in zip(*of, strict=True)]) for of in (params, buffers)])
