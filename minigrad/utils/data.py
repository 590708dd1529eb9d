"""``minigrad.data`` under the name PyTorch has for it: programs say ``from torch.utils.data import DataLoader``."""
from minigrad.data import *  # noqa: F403 (all of it, whatever it grows to)
from minigrad.data import __all__ as __all__
