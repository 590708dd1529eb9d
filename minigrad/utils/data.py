"""`minigrad.data` under PyTorch's name: `from minigrad.utils.data import DataLoader`."""
from ..data import *  # noqa: F403 (every public name of minigrad.data)
from ..data import __all__ as __all__
