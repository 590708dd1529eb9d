"""`Workload`, a row of the table: what is timed, its goal, and what the core needs for it at least."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import minigrad as mg

from .. import nn, optim
from ..nn import functional as F
from .roof import Limits
from .timing import Run

Shape: TypeAlias = tuple[int, ...]
BOTH, RECORDED, ALONE = "fwd+bwd", "recorded", "forward alone, no graph"        # what a run of a function does


class Workload(NamedTuple):
    """One row of the table.

    `flops` and `bytes` are what a run needs at least: floating-point operations, a multiply-add counts as two, and
    bytes of memory, where each pass of the work reads every input once and writes every output once. Where both are
    given, they belong to different parts of the run: products, and then the optimiser's update.
    """

    name: str
    build: Callable[[], dict[str, Run]]     # makes the tensors; name of the framework: one run of the workload
    goal: str = ""                          # "roof 0.80": at least this share of it; "torch 0.30": of torch's time
    flops: float = 0.0
    bytes: float = 0.0
    working_set: float | None = None        # bytes of the distinct arrays moved; None: each is moved once, so `bytes`
    roofless: str = ""                      # why there is no roof

    def least(self, limits: Limits) -> float:
        """The seconds that the work needs on this core: operations at the peak, then bytes at the rate of a copy
        whose two arrays are as large as the arrays here. 0 if it has no roof."""
        seconds = self.flops / limits.peak / 1e9
        if self.bytes:
            seconds += self.bytes / limits.copy(self.working_set or self.bytes) / 1e9
        return seconds


class Frame(NamedTuple):
    """A framework. minigrad has PyTorch's names, so that one text serves both."""

    name: str
    top: Any
    nn: Any
    functional: Any
    optim: Any

    def tensor(self, values: np.ndarray, requires_grad: bool = False) -> Any:
        """A tensor with these values."""
        return self.top.tensor(values, requires_grad=requires_grad)


def frames(torch: Any) -> list[Frame]:
    """minigrad, and torch if the module is given."""
    ours = Frame("minigrad", mg, nn, F, optim)
    return [ours, Frame("torch", torch, torch.nn, torch.nn.functional, torch.optim)] if torch else [ours]


def random_arrays(*shapes: Shape) -> list[np.ndarray]:
    """float32, the same in every run."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def backward_run(function: Callable[..., Any], leaves: Sequence[Any], seed: Any) -> Run:
    """Runs `function` forward and backward, from `seed` as the gradient of its output."""
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).backward(seed)
    return run


def function_row(torch: Any, name: str, function: Callable[..., Any], shapes: Sequence[Shape], out: Shape = (),
                 mode: str = BOTH, labels: np.ndarray | None = None, **facts: Any) -> Workload:
    """A row of `function(frame, *tensors)`, with tensors of these shapes, and `t=labels` if they are given. `out` is
    the shape of its output, `facts` are fields of `Workload`."""
    def run(frame: Frame) -> Run:
        *values, seed = random_arrays(*shapes, out)
        leaves = [frame.tensor(v, requires_grad=mode != ALONE) for v in values]
        call = partial(function, frame, **({} if labels is None else {"t": frame.tensor(labels)}))
        if mode == BOTH:
            return backward_run(call, leaves, frame.tensor(seed))
        return partial(call, *leaves) if mode == RECORDED else frame.top.no_grad()(partial(call, *leaves))
    return Workload(f"{name}, {mode}", lambda: {frame.name: run(frame) for frame in frames(torch)}, **facts)


def moved(elements: int, passes: int, arrays: int) -> dict[str, Any]:
    """The facts of a row that reads or writes arrays of so many float32 elements, `passes` times in all, where
    `arrays` of them are distinct."""
    return {"bytes": 4 * elements * passes, "working_set": 4 * elements * arrays}


def product(m: int, k: int, n: int, passes: int = 3) -> int:
    """The operations of (m, k) times (k, n) in a layer. Three passes: forward, and the gradients of input and weight;
    2 where the input is data, which needs none."""
    return 2 * passes * m * k * n


def attention_flops(b: int, h: int, t: int, d: int) -> int:
    """The operations of causal attention: 2 products forward, 5 backward (one of them done again), of half a square."""
    return 7 * b * h * t * t * d


def recurrent_flops(kind: str, steps: int, batch: int, inputs: int, hidden: int, passes: int = 3) -> int:
    """The operations of a recurrent layer's products; `passes` are those of its inputs, as for `product`."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    return product(steps * batch, inputs, gates * hidden, passes) + product(steps * batch, hidden, gates * hidden)


def by(shape: Sequence[int]) -> str:
    """A shape as in "4096x768"."""
    return "x".join(map(str, shape))
