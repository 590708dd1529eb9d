"""What is not a layer, an optimiser or a data set: checkpointing."""
from . import checkpoint

__all__ = ["checkpoint"]
