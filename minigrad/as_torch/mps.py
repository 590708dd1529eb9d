"""`torch.mps`, `torch.xpu` and `torch.backends.mps`: minigrad knows no GPUs of Apple's and Intel's."""
from __future__ import annotations


def is_available() -> bool:
    """False."""
    return False


is_built = is_macos_or_newer = is_available


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: the CPU and GPUs of CUDA are seeded by `torch.manual_seed`."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing: there is no such memory."""
