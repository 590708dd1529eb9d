"""Master weights: an optimiser updates a parameter of half precision in float32, and rounds what it made.

The float32 copy is `state[p]["master_param"]`; the other tensors of the state are float32, too. So updates smaller than
half a step of float16 or bfloat16 add up (Micikevicius et al. 2018, section 3.1). An element of the copy counts while
the parameter has its rounded value: whoever writes another value to the parameter changes the copy.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.arrays import cast_array
from ..core.half import widened
from ..core.shape import FLOAT32
from ..core.tensor import Tensor, new_tensor
from ..devices.plan import is_half
from ..ops.math import eq, where

NAME = "master_param"


def master_of(p: Tensor, state: dict[str, Any]) -> Tensor:
    """What is updated for `p`: itself, or its master weights, which are made if they are missing."""
    if not is_half(p.dtype):
        return p
    if state.get(NAME) is None:         # uploaded, not launched, so that a replay does not reset it
        state[NAME] = new_tensor(p.device.upload(p.device.download(p.array).astype(np.float32)), None)
    found: Tensor = state[NAME]
    return found


def gradients(masters: Sequence[Tensor], params: Sequence[Any]) -> list[Tensor]:
    """The gradients in float32; before, the masters of values that were changed are set."""
    for master, p in zip(masters, params, strict=True):
        master.copy_(where(eq(p, master.to(p.dtype)), master, widened(p)))
    return [new_tensor(cast_array(p._grad.array, FLOAT32), None) for p in params]


def round_to(params: Sequence[Tensor], masters: Sequence[Tensor]) -> None:
    """Writes the updated values to the parameters."""
    for p, master in zip(params, masters, strict=True):
        p.copy_(master)
