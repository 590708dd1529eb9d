"""What `torch` has beside minigrad's own names: old spellings, switches without a meaning here, `save` and `load`."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from .. import default_generator as _generator_of
from .. import distributions, norm
from ..core.out import into, writes
from ..core.shape import default_float, set_default_float
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices import opened, set_default_device
from ..devices.memory import Layout
from ..devices.usage import OutOfMemoryError
from ..distributions.discrete import counts_on_host
from ..ops.creation import tensor
from ..signal import windows
from .device import device
from .jit import compile
from .methods import METHODS
from .saving import load, save
from .small import __version__
from .sparse import mm as dsmm
from .sparse import mm as spmm
from .sparse import sparse_coo_tensor
from .types import TensorType, named_type, tensor_type, type_name

__all__ = ["__version__", "are_deterministic_algorithms_enabled", "bartlett_window", "binomial",
           "blackman_window", "channels_last", "channels_last_3d", "compile",
           "contiguous_format", "default_generator", "detach", "device", "dsmm", "fork_rng",
           "get_deterministic_debug_mode", "get_float32_matmul_precision", "get_num_interop_threads",
           "hamming_window", "hann_window", "kaiser_window", "layout", "load", "memory_format",
           "OutOfMemoryError", "poisson", "preserve_format", "range", "save", "set_default_tensor_type",
           "set_deterministic_debug_mode", "set_float32_matmul_precision", "set_flush_denormal",
           "set_num_interop_threads", "set_warn_always", "sparse_coo_tensor", "spmm", "strided", "typename",
           "use_deterministic_algorithms", "vander"]

# memory formats ask for strides, not for values: None leaves the option out
contiguous_format = preserve_format = legacy_contiguous_format = channels_last = channels_last_3d = None
memory_format = type(None)


class layout:
    """The type of `strided`, which equals the layout of any tensor."""

    def __eq__(self, other: object) -> bool:
        return other is self or isinstance(other, Layout)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "torch.strided"


strided = layout()
complex64, complex128 = np.dtype("complex64"), np.dtype("complex128")        # to compare with: no tensor has them
default_generator = _generator_of("cpu")


def __getattr__(name: str) -> Any:
    """`FloatTensor` and the like; what minigrad has elsewhere."""
    if name in ("GradScaler", "vmap"):
        return getattr(import_module(f"minigrad.{'func' if name == 'vmap' else 'amp'}"), name)
    if name in ("_sample_dirichlet", "_standard_gamma"):
        return getattr(import_module("minigrad.as_torch.libraries"), name)
    if name.startswith("float8_"):                          # to compare with, and for its limits
        with suppress(ImportError):
            return np.dtype(getattr(import_module("ml_dtypes"), name))
    if name == "torch":                                     # PyTorch imports itself
        return import_module(name)
    if name.startswith("_foreach_") and (hasattr(Tensor, name[9:]) or hasattr(Tensor, name[9:].removesuffix("_"))):
        return partial(_each, name[9:])
    if name in ("add", "addcdiv", "addcmul", "adjoint", "get_device", "is_inference", "is_same_size", "sub"):
        return METHODS[name]
    return tensor_type(name, "cpu")


def _each(method: str, tensors: Any, *args: Any, **named: Any) -> Any:
    """`_foreach_add_(tensors, others, alpha=2)`: a method of each tensor, with its own of what is a list. RuntimeError
    for lists of different lengths."""
    if method.startswith("addc") and len(args) > 2:
        *args, named["value"] = args                        # type: ignore[assignment]
    if "ord" in named:                                      # of norm
        named["p"] = named.pop("ord")
    if any(isinstance(a, list | tuple) and len(a) != len(tensors) for a in (*args, *named.values())):
        raise RuntimeError(f"[_foreach_{method}] takes lists of one length, here {len(tensors)}")
    if method.removesuffix("_") in ("maximum", "minimum") and args and not isinstance(args[0], list | tuple):
        method = method.replace("maximum", "clamp_min").replace("minimum", "clamp_max")     # of a number
    own = method if hasattr(Tensor, method) else method[:-1]            # there is no maximum_
    found = [getattr(t, own)(*[a[i] if isinstance(a, list | tuple) else a for a in args],
                             **{k: v[i] if isinstance(v, list | tuple) else v for k, v in named.items()})
             for i, t in enumerate(tensors)]
    if own != method:
        found = [t.copy_(x) for t, x in zip(tensors, found, strict=True)]
    return found if method.endswith("_") else tuple(found)


def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Counts at the rates `input`."""
    return counts_on_host("poisson", distributions.Poisson(input).rate, generator=generator)


def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """How many of `count` draws with probability `prob` are 1."""
    of = distributions.Binomial(count, prob)
    return counts_on_host("binomial", of.total_count, of.probs, generator=generator)


@contextmanager
def fork_rng(devices: Iterable[Any] | None = None, enabled: bool = True, *args: Any, **named: Any) -> Iterator[None]:
    """After the block the default generators, all or those of the CPU and of `devices`, are as they were before."""
    on = opened() if devices is None else ["cpu", *devices]
    states = [(_generator_of(d), _generator_of(d).get_state()) for d in on] if enabled else []
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def get_device_module(device: Any = None) -> Any:
    """`torch.cuda` for a GPU, else `torch.cpu`."""
    return import_module("torch.cuda" if "cuda" in str(device) else "torch.cpu")


def typename(obj: Any) -> str:
    """The name of an object's type; of a tensor PyTorch's old one, "torch.FloatTensor"."""
    if isinstance(obj, Tensor):
        return type_name(obj)
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__qualname__ if kind.__module__ in ("", "builtins", None) else f"{kind.__module__}.{kind.__qualname__}"


def set_default_tensor_type(t: TensorType | str) -> None:
    """The dtype and the device of new float tensors, by an old name: "torch.DoubleTensor"."""
    kind = named_type(t) if isinstance(t, str) else t
    set_default_device(kind.device)
    set_default_float(kind.dtype)


def nuclear_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values."""
    return norm(input, "nuc", dim, keepdim)


def detach(input: Tensor) -> Tensor:
    """`input.detach()`."""
    return input.detach()


@writes("refill")
def range(start: float, end: float | None = None, step: float = 1, **options: Any) -> Tensor:
    """Numbers from `start` (0 if one bound is given) to `end`, both included, of the default float dtype: an old
    `arange`."""
    warn("[range] is an old arange that includes the end: write arange")
    first, last = (0, start) if end is None else (start, end)
    values, out = first + step * np.arange(int(np.floor((last - first) / step)) + 1), options.pop("out", None)
    made = tensor(values, **{"dtype": default_float() if out is None else out.dtype, **options})
    return made if out is None else into(range, out, made)                    # type: ignore[no-any-return]


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers x^(N-1), ..., x, 1 of a vector as columns, in the other order if `increasing`; N is by default its
    length."""
    if x.ndim != 1 or N is not None and N < 0:
        raise RuntimeError(f"[vander] needs a vector, and N of at least 0; got {x.array.layout}, N={N}")
    powers = np.arange(len(x) if N is None else N)
    return x.unsqueeze(1) ** tensor(powers if increasing else powers[::-1].copy(), device=x.device)


def _periodic(name: str) -> Callable[..., Tensor]:
    """The window of a name, whose second argument says whether it is periodic."""
    def window(window_length: int, periodic: bool = True, **options: Any) -> Tensor:
        return getattr(windows, name)(window_length, sym=not periodic, **options)     # type: ignore[no-any-return]
    window.__name__, window.__doc__ = f"{name}_window", f"`torch.signal.windows.{name}`."
    return window


bartlett_window, blackman_window, hann_window = map(_periodic, ("bartlett", "blackman", "hann"))


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46,
                   **options: Any) -> Tensor:
    """alpha - beta cos(2 pi k / N)."""
    return windows.general_cosine(window_length, a=[alpha, beta], sym=not periodic, **options)


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, **options: Any) -> Tensor:
    """`torch.signal.windows.kaiser`."""
    return windows.kaiser(window_length, beta=beta, sym=not periodic, **options)


def _assert(condition: Any, message: str) -> None:
    """AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _check(cond: Any, message: Callable[[], str] | None = None) -> None:
    """RuntimeError with the message unless the condition holds."""
    if not cond:
        raise RuntimeError("Expected cond to be True" if message is None else message())


# ---- switches that change nothing here: same bits on each run, exact float32, one thread pool ------------------------

def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: minigrad always gives the same bits."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: minigrad always gives the same bits."""
    return True


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Accepted: minigrad always gives the same bits."""


def get_deterministic_debug_mode() -> int:
    """2: nothing here is nondeterministic."""
    return 2


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted: products of float32 are always computed in float32. ValueError for unknown words."""
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"[set_float32_matmul_precision] one of 'highest', 'high' and 'medium'; got {precision!r}")


def get_float32_matmul_precision() -> str:
    """"highest"."""
    return "highest"


def set_flush_denormal(mode: bool) -> bool:
    """False: denormal numbers are kept."""
    return False


def set_num_interop_threads(num: int) -> None:
    """Accepted: minigrad has one pool of threads, see `set_num_threads`."""


def get_num_interop_threads() -> int:
    """1."""
    return 1


def set_warn_always(mode: bool) -> None:
    """Accepted: how often a warning is shown is up to Python's `warnings`."""
