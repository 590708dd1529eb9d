"""What a few of PyTorch's modules have beside minigrad's: names.py says which. Nothing is traced or written as ONNX,
and no models are loaded from a hub."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from functools import cached_property
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import __version__ as _ours
from ..core.half import finfo
from ..core.modes import enable_grad
from ..core.tensor import Tensor
from ..data.distributed import DistributedSampler as DistributedSampler
from ..data.loader import default_collate as default_collate
from ..nn import (
    BatchNorm1d,
    Conv1d,
    ConvTranspose1d,
    CrossEntropyLoss,
    Dropout,
    InstanceNorm1d,
    L1Loss,
    LocalResponseNorm,
    Module,
    NLLLoss,
)
from ..nn.hooks import register_module_full_backward_hook
from ..nn.lazy import LazyModule
from ..ops.creation import tril_indices
from ..ops.random import default_generator, randn
from ..optim.lr_scheduler import LRScheduler
from .version import TorchVersion

Container, NLLLoss2d, _LRScheduler, CrossMapLRN2d, LazyModuleMixin = (
    Module, NLLLoss, LRScheduler, LocalResponseNorm, LazyModule)
_size_1_t = _size_2_t = _size_3_t = _size_any_t = int | tuple[int, ...]         # of `torch.nn.common_types`
_size_1_opt_t = _size_2_opt_t = _size_3_opt_t = _size_any_opt_t = tuple[int | None, ...]


__version__ = TorchVersion(f"2.13.0+minigrad{_ours}")   # of torch.version: which release of PyTorch the names follow
debug = False
cuda = hip = xpu = git_version = None


class _Required:
    """In the place of a default: the option must be given."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
backcompat = SimpleNamespace(broadcast_warning=SimpleNamespace(enabled=False),
                             keepdim_warning=SimpleNamespace(enabled=False))
params_t = ParamsT = object


class SDPBackend(IntEnum):
    """PyTorch's kernels of `scaled_dot_product_attention`. minigrad has one."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3


def sdpa_kernel(backends: Any, set_priority: bool = False) -> AbstractContextManager[None]:
    """A block that changes nothing."""
    return nullcontext()


def get_device_states(*args: Any) -> tuple[list[int], list[Any]]:
    """The numbers of the GPUs that tensors are on, and the states of their generators."""
    gpus = sorted({a.device.index or 0 for a in args if isinstance(a, Tensor) and a.device.type == "cuda"})
    return gpus, [default_generator(f"cuda:{gpu}").get_state() for gpu in gpus]


def set_device_states(devices: Iterable[int], states: Iterable[Any], *, device_type: str | None = None) -> None:
    """Puts back what `get_device_states` returned."""
    for gpu, state in zip(devices, states, strict=True):
        default_generator(f"cuda:{gpu}").set_state(state)


def set_module(obj: Any, mod: str) -> None:
    """Sets where an object says that it was defined."""
    if isinstance(mod, str):
        obj.__module__ = mod


def wrap(fn_or_name: Any) -> Any:
    """The function itself: what tracing would leave as it is."""
    return fn_or_name


def is_in_onnx_export() -> bool:
    """False."""
    return False


def parse_args(*arg_descriptors: str) -> Callable[[Any], Any]:
    """A decorator that gives the function back."""
    return lambda function: function


def register_custom_op_symbolic(symbolic_name: str, symbolic_fn: Any, opset_version: int) -> None:
    """Nothing: no ONNX graph is written."""


_dir: str | None = None


def _get_torch_home() -> str:
    """The folder that PyTorch keeps downloads in."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder for models of `torch.hub`."""
    return os.path.join(_get_torch_home(), "hub") if _dir is None else _dir


def set_dir(d: str | Path) -> None:
    """Sets the folder for models."""
    global _dir
    _dir = os.path.expanduser(d)


def _common(*layers: type) -> type:
    """The class that all of these layers, and no others, have as their base."""
    first, *rest = [layer.__mro__ for layer in layers]
    return next(c for c in first[0 if rest else 1:] if all(c in mro for mro in rest))


register_module_backward_hook = register_module_full_backward_hook
_BatchNorm, _InstanceNorm, _DropoutNd = _common(BatchNorm1d), _common(InstanceNorm1d), _common(Dropout)
_ConvNd = _common(Conv1d, ConvTranspose1d)
_Loss, _WeightedLoss = _common(L1Loss), _common(CrossEntropyLoss)


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Takes `prefix` ("module.") from the names of a state dict, and from its metadata, in place."""
    metadata = getattr(state_dict, "_metadata", {})
    for table, names in ((state_dict, [name for name in state_dict if name.startswith(prefix)]),
                         (metadata, [name for name in metadata if name and f"{name}.".startswith(prefix)])):
        for name in names:
            table[name[len(prefix):]] = table.pop(name)


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives an iterable as a tuple, and anything else n times."""
    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))
    parse.__name__ = name
    return parse


_single, _pair, _triple, _quadruple = (_ntuple(n, name) for n, name in enumerate(
    ("_single", "_pair", "_triple", "_quadruple"), 1))


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Lets all batch norms in `root` compute with the statistics of the batch only."""
    for module in root.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None    # type: ignore[assignment]
            module.track_running_stats = False
    return root


functionalize = to_dlpack = wrap                        # a tensor has `__dlpack__`


def has_torch_function(*given: Any) -> bool:
    """False: no class of tensors overrides functions here."""
    return False


has_torch_function_unary = has_torch_function_variadic = has_torch_function


def handle_torch_function(public_api: Callable[..., Any], relevant_args: Any, *args: Any, **kwargs: Any) -> Any:
    """public_api(*args, **kwargs)"""
    return public_api(*args, **kwargs)


def is_tensor_like(inp: Any) -> bool:
    """Is it a tensor?"""
    return isinstance(inp, Tensor)


# ---- torch.distributions.utils ----

class lazy_property(cached_property):
    """A property that is computed once, in the graph even under `no_grad`."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        with enable_grad():
            return super().__get__(instance, owner)


def clamp_probs(probs: Any) -> Any:
    """Probabilities a little above 0 and below 1."""
    eps = float(finfo(probs.dtype).eps)
    return probs.clamp(eps, 1 - eps)


def probs_to_logits(probs: Any, is_binary: bool = False) -> Any:
    """log(p), or log(p / (1 - p))."""
    p = clamp_probs(probs)
    return p.log() - (-p).log1p() if is_binary else p.log()


def logits_to_probs(logits: Any, is_binary: bool = False) -> Any:
    """softmax, or sigmoid."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def tril_matrix_to_vec(mat: Any, diag: int = 0) -> Any:
    """The elements of the last two dimensions on and below a diagonal, row by row; ValueError for no such diagonal."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"[tril_matrix_to_vec] diag must be from {-n} to {n - 1}; got {diag}")
    rows, columns = tril_indices(n, n, diag)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Any, diag: int = 0) -> Any:
    """The square matrix with these elements on and below a diagonal, row by row; ValueError if none has as many."""
    size, n = vec.shape[-1], max(-diag, diag + 1)
    while (count := sum([min(max(i + diag + 1, 0), n) for i in range(n)])) < size:
        n += 1
    if count != size:
        raise ValueError(f"[vec_to_tril_matrix] no lower triangle up to diagonal {diag} has {size} elements")
    rows, columns = tril_indices(n, n, diag)
    made = vec.new_zeros((*vec.shape[:-1], n, n))
    made[..., rows, columns] = vec
    return made


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Any:
    """Numbers from N(0, 1)."""
    return randn(tuple(shape), dtype=dtype, device=device)
