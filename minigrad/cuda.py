"""`minigrad.cuda`: which GPUs there are, waiting for them, their memory and random numbers.

The device itself is `minigrad.device("cuda")`, the first GPU, or `minigrad.device("cuda:N")`.
"""
from __future__ import annotations

from importlib.util import find_spec as _find_spec
from typing import Any

from .core.shape import fail as _fail
from .devices import cuda as _cuda
from .devices import open_device as _open_device
from .devices.cuda import is_available, unavailable
from .devices.memory import empty_cache, pools
from .devices.usage import unused_bytes
from .ops.random import default_generator as _default_generator

__all__ = ["current_device", "device_count", "empty_cache", "get_device_capability", "get_device_name",
           "is_available", "is_bf16_supported", "manual_seed", "manual_seed_all", "mem_get_info", "memory_allocated",
           "memory_reserved", "set_device", "synchronize", "unavailable"]


def device_count() -> int:
    """The number of visible GPUs, 0 where `is_available()` is False."""
    return int(_cuda.cp.cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """The number of the GPU that "cuda" means: 0. RuntimeError with the reason where there is none."""
    return int(_gpu("current_device", None).index)


def set_device(device: Any) -> None:
    """Accepts the first GPU, which is what "cuda" means. NotImplementedError for another, RuntimeError without one."""
    index = _gpu("set_device", device).index
    if index:
        _fail("cuda.set_device", '"cuda" is always the first GPU', index, f'use the device "cuda:{index}"',
              NotImplementedError)


def get_device_name(device: Any = None) -> str:
    """What the driver calls a GPU, the first one by default."""
    name = _properties("get_device_name", device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability of a GPU: (9, 0) for an H100."""
    found = _properties("get_device_capability", device)
    return int(found["major"]), int(found["minor"])


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Can tensors be bfloat16 on the GPU? It needs the package ml_dtypes; arithmetic runs in float32.
    `including_emulation` is there for PyTorch's signature."""
    return is_available() and _find_spec("ml_dtypes") is not None


def manual_seed(seed: int) -> None:
    """Starts the default generator of the first GPU from `seed`; nothing where there is none. `minigrad.manual_seed`
    seeds all devices."""
    if is_available():
        _default_generator("cuda").manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Starts the default generators of all GPUs from `seed`; nothing where there is none."""
    for index in range(device_count()):
        _default_generator(f"cuda:{index}").manual_seed(seed)


def synchronize(device: Any = None) -> None:
    """Waits until everything launched on a GPU so far is done. Raises what a check of values found since the host last
    waited: IndexError for a label out of range, and the like.

    MINIGRAD_CUDA_SYNC=1 in the environment makes the GPU wait after each launch, so that errors come from their line.
    """
    _gpu("synchronize", device).synchronize()


def memory_allocated(device: Any = None) -> int:
    """The bytes of a GPU that are in use: those of tensors, of captured programs, of tables that kernels read, and of
    CuPy's arrays. Buffers are up to an eighth larger than their tensors. 0 where there is no GPU."""
    if not is_available():
        return 0
    gpu = _gpu("memory_allocated", device)
    return int(_pool(gpu).used_bytes()) - unused_bytes(pools, gpu)


def memory_reserved(device: Any = None) -> int:
    """The bytes of a GPU that this process has taken from the driver for arrays, in use or not. 0 where there is no
    GPU."""
    return int(_pool(_gpu("memory_reserved", device)).total_bytes()) if is_available() else 0


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """The bytes of a GPU that are free for all programs, and those that it has."""
    _gpu("mem_get_info", device).use()
    free, total = _cuda.cp.cuda.runtime.memGetInfo()
    return int(free), int(total)


def _properties(name: str, device: Any) -> dict[str, Any]:
    """What the driver tells of a GPU."""
    found: dict[str, Any] = _cuda.cp.cuda.runtime.getDeviceProperties(_gpu(name, device).index)
    return found


def _gpu(name: str, device: Any) -> Any:
    """The GPU that is meant; None is the first one."""
    gpu = _open_device("cuda" if device is None else device)
    if gpu.type != "cuda":
        raise ValueError(f"[cuda.{name}] expected a GPU; got {gpu!r}; use 'cuda' or 'cuda:N'")
    return gpu


def _pool(gpu: Any) -> Any:
    """CuPy's memory pool, which tells what it holds of the GPU in use."""
    gpu.use()
    return _cuda.cp.get_default_memory_pool()
