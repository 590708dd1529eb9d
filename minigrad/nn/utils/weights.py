"""Weights that are normalized: `weight_norm` (Salimans and Kingma 2016) and `spectral_norm` (Miyato et al. 2018), by
hooks that compute the weight before each call of the module.

They keep the names that checkpoints have: `weight_g` and `weight_v`; `weight_orig`, `weight_u` and `weight_v`.
`parametrizations.py` has both by `parametrize`.
"""
from __future__ import annotations

from copy import copy
from typing import Any

from ...core.modes import no_grad
from ...core.shape import fail
from ...core.tensor import Tensor
from ...ops.reduce import norm
from ..conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..module import Module, Parameter
from ..norm import normalize


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The norms over all dimensions but `dim`, which stay as dimensions of size 1; for None and -1 that of all."""
    if dim is None or dim == -1:
        return norm(v)
    return norm(v, 2, tuple([d for d in range(v.ndim) if d != dim % v.ndim]), keepdim=True) if v.ndim > 1 else v.abs()


def scaled(v: Tensor, g: Tensor, dim: int | None) -> Tensor:
    """g v / |v| (Salimans and Kingma 2016, eq. 2)."""
    return v * (g / norm_except(v, dim))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """A weight as a matrix whose rows go along `dim`."""
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, count: int, eps: float) -> None:
    """Moves u and v towards the first singular vectors of the matrix, in place (Miyato et al. 2018, algorithm 1)."""
    with no_grad():
        matrix = matrix.detach()
        for _ in range(count):
            v.copy_(normalize(matrix.mT @ u, dim=0, eps=eps))
            u.copy_(normalize(matrix @ v, dim=0, eps=eps))


def first_singular_value(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^T matrix v. u and v are copied: the next call changes them, while a graph may still need them."""
    return u.clone().dot(matrix @ v.clone())


class _Hook:
    """A forward pre-hook that computes the weight `name` of its module. `made` is what it computed last."""

    made: Tensor | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        """A copied module has its hooks before what they made: its weight is out of the graph until its next call."""
        copied = copy(self)
        if self.made is not None:
            copied.made = memo.setdefault(id(self.made), self.made.detach().clone())
        return copied

    def computed(self, module: Module) -> Tensor:
        """The weight."""
        raise NotImplementedError

    def __call__(self, module: Module, inputs: Any) -> None:
        self.made = self.computed(module)
        object.__setattr__(module, self.name, self.made)

    def put(self, module: Module) -> Module:
        """Computes the weight now, and before each call."""
        module.register_forward_pre_hook(self)
        self(module, ())
        return module

    @classmethod
    def on(cls, module: Module, name: str) -> Any:
        """(key, hook) of this kind for a name, or None."""
        return next(((k, h) for k, h in module._forward_pre_hooks.items()
                     if isinstance(h, cls) and h.name == name), None)

    @classmethod
    def taken(cls, kind: str, module: Module, name: str) -> Parameter:
        """The parameter, taken out of the module; RuntimeError if it has such a hook, ValueError if there is none."""
        if cls.on(module, name) is not None:
            fail(kind, f"Cannot register two {kind} hooks on the same parameter {name}")
        weight = module._parameters.get(name)
        if weight is None:
            raise ValueError(f"[{kind}] {type(module).__name__} has no parameter {name!r}")
        weight.numel()                  # an uninitialized parameter says here what is missing
        delattr(module, name)
        return weight


class _WeightNorm(_Hook):
    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = dim

    def computed(self, module: Module) -> Tensor:
        return scaled(getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g"), self.dim)


class _SpectralNorm(_Hook):
    def __init__(self, name: str, dim: int, n_power_iterations: int, eps: float) -> None:
        super().__init__(name)
        self.dim, self.n_power_iterations, self.eps = dim, n_power_iterations, eps

    def computed(self, module: Module) -> Tensor:
        weight, u, v = (getattr(module, f"{self.name}_{end}") for end in ("orig", "u", "v"))
        matrix = as_matrix(weight, self.dim)
        if module.training:
            power_iteration(matrix, u, v, self.n_power_iterations, self.eps)
        return weight / first_singular_value(matrix, u, v)


def _removed(kind: type[_Hook], what: str, module: Module, name: str, ends: tuple[str, ...]) -> Module:
    found = kind.on(module, name)
    if found is None:
        raise ValueError(f"{what} of '{name}' not found in {module}")
    key, hook = found
    training, module.training = module.training, False          # no power iteration
    with no_grad():
        weight = hook.computed(module)
    module.training = training
    del module._hook_table("_forward_pre_hooks")[key]
    for member in (name, *[f"{name}_{end}" for end in ends]):
        delattr(module, member)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """The weight as g v / |v|: its size `weight_g` and its direction `weight_v` train apart (Salimans and Kingma 2016).
    Returns the module.

    There is a size for each index along `dim` (each output), or one for the whole weight with None.

        >>> layer = nn.utils.weight_norm(nn.Linear(3, 2))
        >>> [(name, tuple(p.shape)) for name, p in layer.named_parameters()]
        [('bias', (2,)), ('weight_g', (2, 1)), ('weight_v', (2, 3))]
    """
    weight = _WeightNorm.taken("weight_norm", module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except(weight.detach(), dim)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    return _WeightNorm(name, dim).put(module)


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight, as it is now, a parameter again. ValueError if it has no `weight_norm`."""
    return _removed(_WeightNorm, "weight_norm", module, name, ("g", "v"))


def rows_of(module: Module, dim: int | None) -> int:
    """The dimension of the outputs of a weight, unless it is given: 1 for transposed convolutions, else 0."""
    return dim if dim is not None else int(isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d))


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """The weight divided by its largest singular value, which power iterations find, `n_power_iterations` in each call
    in training (Miyato et al. 2018). Returns the module.

    `dim` is the dimension of the outputs: that of the rows. ValueError unless n_power_iterations is positive.
    """
    if n_power_iterations <= 0:
        raise ValueError("Expected n_power_iterations to be positive, but got "
                         f"n_power_iterations={n_power_iterations}")
    rows = rows_of(module, dim)
    weight = _SpectralNorm.taken("spectral_norm", module, name)
    matrix = as_matrix(weight.detach(), rows)
    module.register_parameter(f"{name}_orig", weight)
    for end, size in zip("uv", matrix.shape, strict=True):
        module.register_buffer(f"{name}_{end}", normalize(matrix.new_empty((size,)).normal_(), dim=0, eps=eps))
    hook = _SpectralNorm(name, rows, n_power_iterations, eps)
    module.register_forward_pre_hook(hook)
    object.__setattr__(module, name, weight.detach())           # until the first call
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight, as it is now, a parameter again. ValueError if it has no `spectral_norm`."""
    return _removed(_SpectralNorm, "spectral_norm", module, name, ("orig", "u", "v"))
