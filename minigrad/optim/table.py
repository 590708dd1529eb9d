"""The table of parameters that kernels of optimisers and of clipping read (native/minigrad.h): how many blocks a GPU
gets for it, and how much a kernel computes and moves. And the master weights of half precision."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.arrays import cast_array
from ..core.half import widened
from ..core.shape import FLOAT32
from ..core.tensor import Tensor, new_tensor
from ..devices.launch import FILL, THREADS, Launch, ceil_div, launch, over
from ..devices.plan import is_half
from ..devices.work import work
from ..ops.math import eq, where

SIZE = 6                # the last column: elements
_COLUMNS, _ELEMENTS = 4, 7      # of a program (native/composed.c): a bit for each column of elements, lines of elements
_CHUNK = 1024           # elements: as in optim.cu, so that there is a block for each


def _chunks(k: Any, host: Any) -> int:
    """The chunks of all tensors of the table."""
    return sum(ceil_div(size, _CHUNK) for size in host[k.table][:k.count, SIZE].tolist())


def _tensors_rule(k: Any, host: Any, least: int = 0) -> Sequence[Launch]:
    """A block for each chunk; for more than two rounds of blocks on a large GPU, blocks take several chunks each."""
    return [Launch("", (max(min(_chunks(k, host), 2 * FILL), least),), (THREADS,))]


def step_rule(k: Any, host: Any) -> Sequence[Launch]:
    """What an optimiser launches: the update, and the count of its steps."""
    return [*_tensors_rule(k, host), over(k.count, "count")]


def _norm_rule(k: Any, host: Any) -> Sequence[Launch]:
    return [Launch("", (min(max(_chunks(k, host), 1), 1024),), (THREADS,)), Launch("add", (1,), (THREADS,))]


launch("optim/optim.cu", "sgd adam rmsprop adagrad", step_rule, shared=256, half=True)
launch("optim/optim.cu", "grad_clip", _tensors_rule, shared=256, half=True)
launch("optim/optim.cu", "grad_scale", lambda k, host: _tensors_rule(k, host, 1), shared=256, half=True)
launch("optim/optim.cu", "grad_norm_sq", _norm_rule, shared=512, half=True)


# ---- work ------------------------------------------------------------------------------------------------------------

def sizes(k: Any, column: int) -> int:
    """The elements of all parameters that have something in this column of the table."""
    table, width = k.table, SIZE + 1
    return sum(int(table[row + SIZE]) for row in range(0, k.count * width, width) if table[row + column])


def _moved(k: Any) -> int:
    """What an update reads and writes: param (column 0) and states (2, 3, 4) both, the gradient (1) is only read."""
    return sum(sizes(k, column) * (1 if column == 1 else 2) for column in range(5))


work("sgd", lambda k: 2 * sizes(k, 0) + 3 * sizes(k, 2), _moved)                     # column 2: momentum
work("adam", lambda k: (13 + bool(k.amsgrad)) * sizes(k, 0), _moved)
work("rmsprop", lambda k: (9 + 5 * bool(k.centered)) * sizes(k, 0) + 2 * sizes(k, 4), _moved)    # column 4: momentum
work("adagrad", lambda k: 7 * sizes(k, 0), _moved)
work("composed_update", lambda k: k.program[_ELEMENTS] * sizes(k, 0),
     lambda k: (2 * k.program[_COLUMNS].bit_count() - 1) * sizes(k, 0))
work("grad_norm_sq", lambda k: 2 * sizes(k, 1), lambda k: sizes(k, 1))
work("grad_scale", lambda k: sizes(k, 1), lambda k: 2 * sizes(k, 1))
work("grad_clip", lambda k: 2 * sizes(k, 1), lambda k: 2 * sizes(k, 1))


# ---- master weights --------------------------------------------------------------------------------------------------
# A parameter of half precision is updated in float32, and rounded then. The float32 copy is `state[p]["master_param"]`;
# the other tensors of the state are float32, too. So updates smaller than half a step of float16 or bfloat16 add up
# (Micikevicius et al. 2018, section 3.1). An element of the copy counts while the parameter has its rounded value:
# whoever writes another value to the parameter changes the copy.

MASTER = "master_param"


def master_of(p: Tensor, state: dict[str, Any]) -> Tensor:
    """What is updated for `p`: itself, or its master weights, which are made if they are missing."""
    if not is_half(p.dtype):
        return p
    if state.get(MASTER) is None:         # uploaded, not launched, so that a replay does not reset it
        state[MASTER] = new_tensor(p.device.upload(p.device.download(p.array).astype(np.float32)), None)
    found: Tensor = state[MASTER]
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
