"""PyTorch's `torch.signal`: the windows."""
from . import windows

__all__ = ["windows"]
