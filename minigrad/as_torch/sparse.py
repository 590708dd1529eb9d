"""`torch.sparse` on dense tensors: what is made of its entries gets all elements, with a warning."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.creation import as_tensor, zeros
from ..ops.matmul import mm
from ..ops.softmax import log_softmax, softmax

__all__ = ["FloatTensor", "log_softmax", "mm", "softmax", "sparse_coo_tensor", "sum"]


def sparse_coo_tensor(indices: Any = None, values: Any = None, size: Any = None, *, dtype: Any = None,
                      device: Any = None, requires_grad: bool = False, check_invariants: bool | None = None,
                      is_coalesced: bool | None = None) -> Tensor:
    """A dense tensor of shape `size` with values[k] at indices[:, k], 0 elsewhere; values at one place are added.
    Without `size`, as large as the indices need; without indices, zeros. Differentiable in `values`."""
    warn("[sparse_coo_tensor] gives a dense tensor: minigrad has no sparse ones")
    if indices is None:
        return zeros([int(n) for n in size], dtype=dtype, device=device, requires_grad=requires_grad)
    at = as_tensor(indices, dtype=np.int64)
    found = as_tensor(values, dtype=dtype, device=device)
    shape = [int(n) + 1 for n in at.max(1)[0].tolist()] if size is None else [int(n) for n in size]     # type: ignore
    dense = zeros(shape, dtype=found.dtype, device=found.device)
    places = tuple([row.to(device=found.device) for row in at])
    made: Tensor = dense.index_put(places, found, accumulate=True)      # type: ignore[attr-defined]
    return made.requires_grad_() if requires_grad else made             # type: ignore[attr-defined,no-any-return]


def FloatTensor(indices: Any, values: Any, size: Any = None) -> Tensor:
    """The old constructor of `sparse_coo_tensor`."""
    return sparse_coo_tensor(indices, values, size)


DoubleTensor = FloatTensor


def sum(input: Tensor, dim: Any = None, dtype: Any = None) -> Tensor:
    """`input.sum(dim)`."""
    return input.sum(dim, dtype=dtype)                                  # type: ignore[attr-defined,no-any-return]
