"""Pruning: a parameter `name` becomes `name_orig` times the mask `name_mask`, by a hook before each call of its module.

    prune.l1_unstructured(layer, "weight", amount=0.3)     # the 30 % that are nearest to 0
    prune.remove(layer, "weight")                          # the zeros stay, the mask goes
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

from ...core.modes import no_grad
from ...core.shape import axis_of
from ...core.tensor import Tensor
from ...ops.creation import ones_like
from ...ops.join import cat
from ...ops.math import ne
from ...ops.random import rand
from ...ops.reduce import norm
from ..module import Module, Parameter


def _validate_pruning_amount_init(amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, Real):
        raise TypeError(f"[prune] Invalid type for amount: {amount}. Must be int or float.")
    if float(amount) < 0 or float(amount) > 1 and not isinstance(amount, Integral):
        raise ValueError(f"[prune] amount must be a float in [0, 1], or an int that is not negative; got {amount}")


def _validate_pruning_amount(amount: Any, tensor_size: int) -> None:
    if isinstance(amount, Integral) and int(amount) > tensor_size:
        raise ValueError(f"[prune] amount must be at most {tensor_size}, how many there are; got {amount}")


def _compute_nparams_toprune(amount: Any, tensor_size: int) -> int:
    return int(amount) if isinstance(amount, Integral) else round(amount * tensor_size)


def _chosen(scores: Any, amount: float, default_mask: Any, dim: int | None = None) -> Any:
    """The mask with 0 at the `amount` of places (indices along `dim`) with the lowest scores: a count, or a share."""
    n = scores.numel()
    _validate_pruning_amount(amount, n)
    lowest = scores.flatten().argsort(stable=True)[:_compute_nparams_toprune(amount, n)]
    mask = default_mask.clone()
    if dim is None:
        mask.view(-1)[lowest] = 0
        return mask
    return mask.index_fill(dim, lowest, 0)


class _Pruned(Tensor):
    """Computed anew at each call: copies have the values only."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().__reduce_ex__(protocol)


_Pruned.__name__ = "Tensor"             # it prints as one


def _slices(t: Any, dim: int) -> Any:
    axis_of(dim, t.ndim, "prune")
    return t.movedim(dim, 0).reshape(t.shape[dim], -1)


class BasePruningMethod:
    """A hook that computes a pruned parameter. A subclass has `compute_mask(t, default_mask)`, the mask of scores t: of
    the whole parameter at first, then of what is not pruned yet, and PRUNING_TYPE: "unstructured" (t is then flat: the
    numbers that are left), "structured" (t lacks the slices along `dim` that are pruned), or "global" (t is whole)."""

    PRUNING_TYPE = "unstructured"
    _tensor_name: str

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask, with 0 where numbers are pruned."""
        raise NotImplementedError

    def __call__(self, module: Module, inputs: Any) -> None:
        pruned = self.apply_mask(module)
        pruned.__class__ = _Pruned
        setattr(module, self._tensor_name, pruned)

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned parameter."""
        orig: Tensor = getattr(module, self._tensor_name + "_orig")
        return getattr(module, self._tensor_name + "_mask").to(orig.dtype) * orig   # type: ignore[no-any-return]

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Any:
        """t times the mask that is computed for it, without a module."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise ValueError(f"[prune] importance_scores must have the shape of t; got {scores.layout}")
        mask = ones_like(t.detach()) if default_mask is None else default_mask
        return t * self.compute_mask(scores.detach(), default_mask=mask).to(t.dtype)

    def _combined(self, scores: Any, mask: Any) -> Any:
        """The mask of the scores of what `mask` leaves, within it."""
        with no_grad():
            at: Any = (slice(None),)
            if self.PRUNING_TYPE == "unstructured":
                at = ne(mask, 0)
            elif self.PRUNING_TYPE == "structured":
                at = (slice(None),) * (self.dim % mask.ndim) + (        # type: ignore[attr-defined]
                    ne(_slices(mask, self.dim).sum(1), 0),)     # type: ignore[attr-defined]
            found = mask.clone().to(scores.dtype)
            found[at] = self.compute_mask(scores.detach()[at], default_mask=mask[at]).to(scores.dtype)
            return found

    @classmethod
    def apply(cls, module: Any, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any) -> Any:
        """Prunes a parameter of a module, further if it is pruned already."""
        method: BasePruningMethod = cls(*args, **kwargs)
        current = getattr(module, name)
        if not isinstance(current, Tensor):
            raise TypeError(f"[prune] {name} must be a parameter of the module; got {current} in {module}")
        method._tensor_name = name
        mask = module._buffers.get(name + "_mask")
        scores = current if importance_scores is None else importance_scores
        if scores.shape != current.shape:
            raise ValueError(f"[prune] importance_scores must have the shape of {name}; got {scores.layout}")
        if mask is None:
            with no_grad():
                mask = method.compute_mask(scores.detach(), ones_like(current.detach())).to(current.dtype)
        else:
            mask = method._combined(scores, mask)
        if isinstance(current, Parameter):
            delattr(module, name)
            module.register_parameter(name + "_orig", current)
        else:
            before, handle = _hook(module, name)
            handle.remove()
            container = before if isinstance(before, PruningContainer) else PruningContainer(before)
            container.add_pruning_method(method)
            method = container
        module.register_buffer(name + "_mask", mask)
        method(module, None)
        handle = module.register_forward_pre_hook(method)
        module.__dict__.setdefault("_pruned", {})[name] = method, handle
        return method

    def remove(self, module: Any) -> None:
        """Makes the pruned values those of the parameter."""
        name, pruned = self._tensor_name, self.apply_mask(module)
        orig = getattr(module, name + "_orig")
        for old in (name, name + "_orig", name + "_mask"):
            delattr(module, old)
        with no_grad():
            orig.copy_(pruned)
        module.register_parameter(name, orig)


def _hook(module: Any, name: str) -> Any:
    found = module.__dict__.get("_pruned", {})
    if name not in found:
        raise ValueError(f"[prune] Parameter '{name}' has to be pruned before pruning can be removed; got {module}")
    return found[name]


class PruningContainer(BasePruningMethod):
    """The methods that pruned a parameter, in order. Its mask is that of the last one, of what the others left."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: list[BasePruningMethod] = []
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """TypeError for what is no method, ValueError for a method of another parameter."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"[prune] {type(method)} is not a BasePruningMethod subclass")
        if self._pruning_methods and self._tensor_name != method._tensor_name:
            raise ValueError(f"[prune] Can only add methods of {self._tensor_name!r}; got {method._tensor_name!r}")
        self._tensor_name = method._tensor_name
        self._pruning_methods.append(method)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __getitem__(self, index: Any) -> Any:
        return self._pruning_methods[index]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask of the last method, within `default_mask`"""
        return self[-1]._combined(t, default_mask)


class Identity(BasePruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """`default_mask`"""
        return default_mask


class L1Unstructured(BasePruningMethod):
    """Prunes the numbers nearest to 0: `amount` of them, or that share."""

    def __init__(self, amount: float) -> None:
        _validate_pruning_amount_init(amount)
        self.amount = amount

    def _scores(self, t: Any) -> Any:
        return t.abs()

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """0 at the lowest scores"""
        return _chosen(self._scores(t), self.amount, default_mask)


class RandomUnstructured(L1Unstructured):
    """Prunes numbers by chance."""

    def _scores(self, t: Any) -> Any:
        return rand(tuple(t.shape), device=t.device)


class LnStructured(BasePruningMethod):
    """Prunes the slices along `dim` with the smallest norms |.|_n: `amount` of them, or that share."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, n: Any = 2, dim: int = -1) -> None:
        _validate_pruning_amount_init(amount)
        self.amount, self.n, self.dim = amount, n, dim

    def _scores(self, slices: Any) -> Any:
        return norm(slices, self.n, 1)

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """0 in the slices with the lowest scores"""
        return _chosen(self._scores(_slices(t, self.dim)), self.amount, default_mask, self.dim)


class RandomStructured(LnStructured):
    """Prunes slices along `dim` by chance."""

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount, dim=dim)

    def _scores(self, slices: Any) -> Any:
        return rand(slices.shape[0], device=slices.device)


class CustomFromMask(BasePruningMethod):
    """Prunes where `mask` is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The product of both masks"""
        if self.mask.shape != default_mask.shape:
            raise ValueError(f"[prune] mask must have the shape of the parameter, {list(default_mask.shape)}; "
                             f"got {self.mask.layout}")
        return default_mask * self.mask.to(default_mask.dtype)


def _function(method: Any, name: str) -> Callable[..., Module]:
    def prune(module: Module, name: str, *args: Any, **named: Any) -> Module:
        method.apply(module, name, *args, **named)
        return module
    prune.__name__, prune.__qualname__, prune.__doc__ = name, name, method.__doc__
    return prune


identity = _function(Identity, "identity")
l1_unstructured = _function(L1Unstructured, "l1_unstructured")
random_unstructured = _function(RandomUnstructured, "random_unstructured")
ln_structured = _function(LnStructured, "ln_structured")
random_structured = _function(RandomStructured, "random_structured")
custom_from_mask = _function(CustomFromMask, "custom_from_mask")


def global_unstructured(parameters: Iterable[tuple[Any, str]], pruning_method: Any, importance_scores: Any = None,
                        **kwargs: Any) -> None:
    """Prunes several parameters, given as (module, name), together: by a method that compares all their numbers."""
    pairs, method, given = list(parameters), pruning_method(**kwargs), importance_scores or {}
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(f'[prune] Only "unstructured" PRUNING_TYPE supported; got {method.PRUNING_TYPE}')
    values = [getattr(module, name).detach() for module, name in pairs]
    scores = [given.get(pair, value) for pair, value in zip(pairs, values, strict=True)]
    masks = [getattr(module, name + "_mask", ones_like(value))
             for (module, name), value in zip(pairs, values, strict=True)]
    whole = method._combined(*(cat([t.flatten() for t in part]) for part in (scores, masks)))
    parts = whole.split([value.numel() for value in values])
    for (module, name), part, value in zip(pairs, parts, values, strict=True):
        custom_from_mask(module, name, part.view(*value.shape))


def remove(module: Any, name: str) -> Module:
    """Makes the pruned values those of the parameter, which is then as any other."""
    method, handle = _hook(module, name)
    handle.remove()
    del module._pruned[name]
    method.remove(module)
    return module               # type: ignore[no-any-return]


def is_pruned(module: Module) -> bool:
    """Is a parameter of the module or of one in it pruned?"""
    return any(m.__dict__.get("_pruned") for m in module.modules())
