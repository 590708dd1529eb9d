"""`torch.backends.mkl`, `mkldnn` and `openmp`, libraries that minigrad does not use; and `torch.backends.cpu`."""
from __future__ import annotations

from ...devices.native import simd_level
from .cudnn import flags as flags

enabled = False


def is_available() -> bool:
    """False."""
    return False


def get_cpu_capability() -> str:
    """The SIMD level, by PyTorch's names: "DEFAULT", "AVX2" or "AVX512"."""
    return {"baseline": "DEFAULT"}.get(simd_level(), simd_level().upper())
