"""What optimizers outside PyTorch import from `torch.optim.optimizer` beside `Optimizer`."""
from __future__ import annotations


class _Required:
    """In the place of a default: the option must be given."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()
params_t = ParamsT = object
