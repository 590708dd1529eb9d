"""The package `functorch`, which comes with PyTorch: `torch.func`, and older functions that take a module apart."""
from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ..core.tensor import Tensor
from ..func import functional_call
from ..nn.module import Module
from ..ops.join import stack


def make_functional_with_buffers(model: Module, disable_autograd_tracking: bool = False) -> tuple[Any, ...]:
    """(f, parameters, buffers) of a copy of the module: f(parameters, buffers, *args) is its result with these."""
    made = deepcopy(model).requires_grad_(False) if disable_autograd_tracking else deepcopy(model)
    state: list[dict[str, Any]] = [dict(made.named_parameters()), dict(made.named_buffers())]

    def run(params: Sequence[Tensor], buffers: Sequence[Tensor], *args: Any, **named: Any) -> Any:
        given = zip((*state[0], *state[1]), (*params, *buffers), strict=True)
        return functional_call(made, dict(given), args, named)
    return (run, *[tuple(part.values()) for part in state])


def make_functional(model: Module, disable_autograd_tracking: bool = False) -> tuple[Any, ...]:
    """(f, parameters): f(parameters, *args). RuntimeError for a module with buffers."""
    run, params, buffers = make_functional_with_buffers(model, disable_autograd_tracking)
    if buffers:
        raise RuntimeError("[make_functional] the module has buffers; use make_functional_with_buffers")
    return lambda params, *args, **named: run(params, (), *args, **named), params


def _leaf(tensors: Sequence[Tensor]) -> Tensor:
    return stack([t.detach() for t in tensors]).requires_grad_(all([t.requires_grad for t in tensors]))


def combine_state_for_ensemble(models: Sequence[Module]) -> tuple[Any, ...]:
    """(f, parameters, buffers) of modules: each tensor is stacked of theirs, for `vmap`. RuntimeError unless they are
    of one class and mode."""
    if len({(type(m), m.training) for m in models}) != 1:
        raise RuntimeError("[combine_state_for_ensemble] takes modules of one class and mode")
    run, *state = zip(*map(make_functional_with_buffers, models), strict=True)
    return (run[0], *[tuple([_leaf(each) for each in zip(*of, strict=True)]) for of in state])
