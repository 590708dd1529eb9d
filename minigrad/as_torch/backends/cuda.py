"""`torch.backends.cuda`."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

from ...devices.cuda import is_available

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False,
                         allow_bf16_reduced_precision_reduction=False)
cufft_plan_cache = SimpleNamespace(size=0, max_size=0, clear=lambda: None)


def is_built() -> bool:
    """Can minigrad use a GPU here?"""
    return is_available()


def preferred_linalg_library(backend: Any = None) -> str:
    """"default": minigrad has no choice of libraries."""
    return "default"


preferred_blas_library = preferred_linalg_library


def sdp_kernel(*args: Any, **named: Any) -> AbstractContextManager[None]:
    """A block that changes nothing: minigrad has one kernel for attention."""
    return nullcontext()


def flash_sdp_enabled() -> bool:
    """True: attention never holds all scores at once."""
    return True


mem_efficient_sdp_enabled = math_sdp_enabled = flash_sdp_enabled


def enable_flash_sdp(enabled: bool) -> None:
    """Nothing: minigrad has one kernel for attention."""


enable_mem_efficient_sdp = enable_math_sdp = enable_cudnn_sdp = enable_flash_sdp
