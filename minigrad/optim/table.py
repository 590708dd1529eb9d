"""The table of parameters that kernels of optimisers and of clipping read (native/minigrad.h): how many blocks a GPU
gets for it, and how much a kernel computes and moves."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..devices.launch import FILL, THREADS, Launch, ceil_div, launch, over
from ..devices.work import work

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
