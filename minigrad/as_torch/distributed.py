"""`torch.distributed`: one process. All other names are refused."""
from __future__ import annotations


def is_available() -> bool:
    """False: minigrad runs in one process."""
    return False


is_initialized = is_nccl_available = is_gloo_available = is_mpi_available = is_torchelastic_launched = is_available
