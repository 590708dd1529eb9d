"""The rows of the table but for training steps (`steps.py`): ops and layers, in tables of sizes and goals."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np

from .steps import training_steps
from .timing import Run
from .workload import (
    ALONE,
    BOTH,
    RECORDED,
    Frame,
    Workload,
    attention_flops,
    backward_run,
    by,
    frames,
    function_row,
    moved,
    product,
    random_arrays,
    recurrent_flops,
)


def workloads(torch: Any = None) -> list[Workload]:
    """The rows of the table. `torch` is the module, or None. Tensors are made by `Workload.build`."""
    parts = (_elementwise, _normalization, _softmax, _linear, _convolution, _pooling, _attention, _recurrence,
             training_steps)
    return [load for part in parts for load in part(torch)]


def _elementwise(torch: Any) -> Iterator[Workload]:
    why = "no roof: the time is that of the calls"
    yield function_row(torch, "x + y, 64x64", lambda f, x, y: x + y, [(64, 64)] * 2, mode=RECORDED, goal="torch 0.55",
                       roofless=why)
    yield function_row(torch, "chain of 40 elementwise ops, 64x64", _chain, [(64, 64)] * 2, (64, 64),
                       goal="torch 0.55", roofless=why)


def _chain(frame: Frame, x: Any, y: Any) -> Any:
    for _ in range(20):
        x = x * y + y
    return x


# ---- passes over memory: the roof is that of a copy ----

# Each takes x, and a weight and a bias (rms_norm: a weight) as long as the second dimension of x.
_NORMS: dict[str, Callable[..., Any]] = {
    "layer_norm": lambda f, x, w, b: f.functional.layer_norm(x, tuple(x.shape[1:]), w, b),
    "rms_norm": lambda f, x, w: f.functional.rms_norm(x, tuple(x.shape[1:]), w),
    "batch_norm": lambda f, x, w, b: f.functional.batch_norm(x, None, None, w, b, training=True),
    "group_norm": lambda f, x, w, b: f.functional.group_norm(x, 8, w, b),
    "instance_norm": lambda f, x, w, b: f.functional.instance_norm(x, None, None, w, b),
}
_NORM_ROWS = (
    ("layer_norm", (4096, 768), "roof 0.80"), ("layer_norm", (64, 512), "torch 0.30"),
    ("rms_norm", (4096, 768), "roof 0.80"),
    ("batch_norm", (4096, 768), "roof 0.80"), ("batch_norm", (64, 512), "torch 0.60"),
    ("batch_norm", (256, 128), "torch 0.60"), ("batch_norm", (32, 64, 28, 28), "roof 0.80"),
    ("batch_norm", (64, 32, 28, 28), "roof 0.80"), ("batch_norm", (64, 16, 8, 8), "torch 0.20"),
    ("group_norm", (32, 64, 28, 28), "roof 0.80"), ("instance_norm", (32, 64, 28, 28), "roof 0.80"),
)


def _normalization(torch: Any) -> Iterator[Workload]:
    """Forward reads x and writes y, backward reads x and its gradient and writes gx: 5 passes over four arrays. Weights
    and statistics are not counted, they are small."""
    for op, shape, goal in _NORM_ROWS:
        yield _norm(torch, op, shape, BOTH, goal, passes=5, arrays=4)
    for op in ("layer_norm", "batch_norm", "rms_norm"):
        yield _norm(torch, op, (4096, 768), ALONE, "roof 0.63", passes=2, arrays=2)


def _norm(torch: Any, op: str, shape: tuple[int, ...], mode: str, goal: str, passes: int, arrays: int) -> Workload:
    weights = [(shape[1],)] * (1 if op == "rms_norm" else 2)
    groups = ", 8 groups" if op == "group_norm" else ""
    return function_row(torch, f"{op} {by(shape)}{groups}", _NORMS[op], [shape, *weights], shape, mode, goal=goal,
                        **moved(prod(shape), passes, arrays))


def _softmax(torch: Any) -> Iterator[Workload]:
    """softmax: forward reads x and writes y, backward reads y and its gradient and writes gx. cross_entropy: both read
    x (or its probabilities), backward writes gx."""
    for shape in ((256, 1000), (4096, 1000)):
        yield function_row(torch, f"softmax {by(shape)}", lambda f, x: f.functional.softmax(x, 1), [shape], shape,
                           **moved(prod(shape), passes=5, arrays=4))
    labels = np.random.default_rng(0).integers(0, 1000, 4096)
    yield function_row(torch, "cross_entropy 4096x1000", lambda f, x, t: f.functional.cross_entropy(x, t),
                       [(4096, 1000)], labels=labels, **moved(4096 * 1000, passes=3, arrays=2))


def _pooling(torch: Any) -> Iterator[Workload]:
    """Forward reads x and writes y, backward reads the gradient of y and writes that of x: each array once. Where a
    maximum was is not counted, a byte would do."""
    for name, function, shape, out in (
            ("max_pool2d 64x16x28x28, 2x2", lambda f, x: f.functional.max_pool2d(x, 2), (64, 16, 28, 28), (14, 14)),
            ("adaptive_avg_pool2d 32x256x7x7 to 1", lambda f, x: f.functional.adaptive_avg_pool2d(x, 1),
             (32, 256, 7, 7), (1, 1))):
        result = shape[:2] + out
        yield function_row(torch, name, function, [shape], result, goal="torch 0.90",
                           bytes=4 * 2 * (prod(shape) + prod(result)))


# ---- products: the roof is the FMA peak ----

def _linear(torch: Any) -> Iterator[Workload]:
    for m, k, n, goal in ((32, 64, 64, "torch 0.30"), (128, 256, 256, ""), (128, 784, 1000, "roof 0.90"),
                          (256, 1024, 1024, ""), (1024, 1024, 1024, "roof 0.92")):
        load = function_row(torch, f"linear {m}x{k} to {n}", lambda f, x, w, b: f.functional.linear(x, w, b),
                            [(m, k), (n, k), (n,)], (m, n), goal=goal, flops=product(m, k, n))
        yield load._replace(build=partial(_with_numpy, load.build, m, k, n))
    for n, goal in ((512, ""), (1024, "roof 0.92")):
        yield function_row(torch, f"x @ y, {n}x{n}", lambda f, x, y: x @ y, [(n, n)] * 2, mode=ALONE, goal=goal,
                           flops=product(n, n, n, passes=1))


def _with_numpy(build: Callable[[], dict[str, Run]], m: int, k: int, n: int) -> dict[str, Run]:
    """Beside the runs of a linear layer, its products in NumPy."""
    x, w, b, g = random_arrays((m, k), (n, k), (n,), (m, n))

    def run() -> None:
        x @ w.T + b
        g @ w
        g.T @ x
        g.sum(0)
    return {**build(), "numpy": run}


def _convolution(torch: Any) -> Iterator[Workload]:
    """The operations are those of the direct sum, at the border too."""
    for shape, channels, goal in (((64, 1, 8, 8), 16, "torch 0.20"), ((32, 32, 28, 28), 64, "torch 0.75"),
                                  ((8, 256, 7, 7), 256, "torch 0.90")):
        n, inputs, height, width = shape
        yield function_row(torch, f"conv2d {by(shape)} to {channels} channels, 3x3, padding 1",
                           lambda f, x, w, b: f.functional.conv2d(x, w, b, padding=1),
                           [shape, (channels, inputs, 3, 3), (channels,)], (n, channels, height, width), goal=goal,
                           flops=product(n * height * width, inputs * 9, channels))


def _attention(torch: Any) -> Iterator[Workload]:
    for b, h, t, d in ((16, 4, 128, 32), (4, 8, 512, 64)):
        shape = (b, h, t, d)
        yield function_row(torch, f"causal attention {by(shape)}",
                           lambda f, q, k, v: f.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
                           [shape] * 3, shape, goal="roof 0.75", flops=attention_flops(b, h, t, d))


def _recurrence(torch: Any) -> Iterator[Workload]:
    for kind, steps, batch, inputs, hidden in (
            ("RNN", 28, 64, 28, 128), ("RNN", 28, 64, 128, 128), ("GRU", 28, 64, 128, 128),
            ("LSTM", 28, 64, 128, 128), ("LSTM", 64, 32, 256, 256)):
        yield _recurrent(torch, kind, steps, batch, inputs, hidden, "roof 0.90")
    for steps, batch, inputs, hidden in ((28, 64, 128, 128), (64, 32, 256, 256)):
        yield _recurrent(torch, "LSTM", steps, batch, inputs, hidden, "roof 0.80", norm="layer")


def _recurrent(torch: Any, kind: str, steps: int, batch: int, inputs: int, hidden: int, goal: str,
               norm: str | None = None) -> Workload:
    """A recurrent layer, forward and backward. A normalised LSTM is compared with a loop in torch."""
    def run(frame: Frame) -> Run:
        x, seed = random_arrays((steps, batch, inputs), (steps, batch, hidden))
        ours = frame.name == "minigrad"
        layer = getattr(frame.nn, kind)(inputs, hidden, **({"norm": norm} if ours else {}))
        modules, call = [layer], lambda x: layer(x)[0]
        if norm and not ours:
            modules += [frame.nn.LayerNorm(size) for size in (4 * hidden, 4 * hidden, hidden)]
            call = partial(_normalised_lstm, frame, *modules)
        back = backward_run(call, [frame.tensor(x, requires_grad=True)], frame.tensor(seed))

        def step() -> None:
            for module in modules:
                module.zero_grad()
            back()
        return step
    name = f"{'layer-normalised ' if norm else ''}{kind} T{steps} B{batch} {inputs} to {hidden}, {BOTH}"
    return Workload(name, lambda: {frame.name: run(frame) for frame in frames(torch)}, goal=goal,
                    flops=recurrent_flops(kind, steps, batch, inputs, hidden))


def _normalised_lstm(frame: Frame, lstm: Any, norm_ih: Any, norm_hh: Any, norm_c: Any, x: Any) -> Any:
    """The layer-normalised LSTM (Ba et al. 2016, eq. 20 to 22) as a torch user writes it."""
    h = c = x.new_zeros(x.shape[1], lstm.hidden_size)
    outputs = []
    for now in x:
        p = norm_ih(now @ lstm.weight_ih_l0.T) + norm_hh(h @ lstm.weight_hh_l0.T) + lstm.bias_ih_l0 + lstm.bias_hh_l0
        i, f, g, o = p.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm_c(c).tanh()
        outputs.append(h)
    return frame.top.stack(outputs)
