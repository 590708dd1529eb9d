"""`torch.backends.mkl`, `mkldnn` and `openmp`: libraries that minigrad does not use."""
from __future__ import annotations

enabled = False


def is_available() -> bool:
    """False."""
    return False
