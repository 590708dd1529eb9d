"""The rows of training steps: small nets, each written once for minigrad and torch, trained by Adam."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..core.capture import capture
from .mlp_jax import mlp_jax
from .timing import Run
from .workload import Frame, Workload, attention_flops, frames, moved, product, recurrent_flops

Step: TypeAlias = Callable[[Any, Any], Any]         # of inputs and labels
VOCABULARY = 96         # of nets on characters


class Net(NamedTuple):
    """A net and its batch. The operations and the parameters are counted by hand: a row's roof must be known before its
    tensors are made."""

    name: str
    model: Callable[[Frame], Any]
    inputs: tuple[int, ...]         # their shape: float32, or int64 below `VOCABULARY` if `text`
    labels: tuple[int, int]         # how many, of how many classes
    flops: int                      # of products, convolutions and attention, forward and backward
    parameters: int
    goal: str
    text: bool = False


# ---- the nets ----

def _mlp(sizes: Sequence[int], norm: str, batch: int, goal: str) -> Net:
    def model(frame: Frame) -> Any:
        layers: list[Any] = []
        for a, b in pairs[:-1]:
            layers += [frame.nn.Linear(a, b), getattr(frame.nn, norm)(b), frame.nn.ReLU()]
        return frame.nn.Sequential(*layers, frame.nn.Linear(*pairs[-1]))
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    flops = sum(product(batch, a, b, passes=3 if i else 2) for i, (a, b) in enumerate(pairs))
    parameters = sum(a * b + b for a, b in pairs) + 2 * sum(sizes[1:-1])
    return Net(f"MLP {'-'.join(map(str, sizes))}, {norm.removesuffix('1d')}, batch {batch}", model, (batch, sizes[0]),
               (batch, sizes[-1]), flops, parameters, goal)


def _cnn(size: int, channels: tuple[int, int], pools: tuple[bool, bool], goal: str, batch: int = 64) -> Net:
    """Convolution, BatchNorm and ReLU, twice, with a max pool behind those marked; then a linear layer."""
    def model(frame: Frame) -> Any:
        layers, inputs = [], 1
        for outputs, pool in zip(channels, pools, strict=True):
            layers += [frame.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), frame.nn.BatchNorm2d(outputs),
                       frame.nn.ReLU(), *([frame.nn.MaxPool2d(2)] if pool else [])]
            inputs = outputs
        return frame.nn.Sequential(*layers, frame.nn.Flatten(), frame.nn.Linear(features, 10))
    first, second = channels
    middle = size // 2 if pools[0] else size
    last = middle // 2 if pools[1] else middle
    features = second * last * last
    flops = (product(batch * size * size, 9, first, passes=2) + product(batch * middle * middle, 9 * first, second)
             + product(batch, features, 10))
    parameters = 9 * first + 9 * first * second + 2 * (first + second) + 10 * features + 10
    return Net(f"CNN {size}x{size}, {first} and {second} channels, BatchNorm, batch {batch}", model,
               (batch, 1, size, size), (batch, 10), flops, parameters, goal)


def _rows_of_digits(kind: str, goal: str, steps: int = 8, batch: int = 32, inputs: int = 8, hidden: int = 64) -> Net:
    """A recurrent net that reads an image row by row."""
    def model(frame: Frame) -> Any:
        nn: Any = frame.nn

        class Rows(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.recurrent = getattr(nn, kind)(inputs, hidden)
                self.head = nn.Linear(hidden, 10)

            def forward(self, x: Any) -> Any:
                return self.head(self.recurrent(x)[0][-1])
        return Rows()
    gates = {"GRU": 3, "LSTM": 4}[kind]
    flops = recurrent_flops(kind, steps, batch, inputs, hidden, passes=2) + product(batch, hidden, 10)
    parameters = gates * hidden * (inputs + hidden + 2) + 10 * hidden + 10
    return Net(f"{kind} on rows of digits, T{steps} B{batch} {inputs} to {hidden}", model, (steps, batch, inputs),
               (batch, 10), flops, parameters, goal)


def _char_lstm(goal: str, steps: int = 64, batch: int = 32, width: int = 64, hidden: int = 256) -> Net:
    def model(frame: Frame) -> Any:
        nn: Any = frame.nn

        class Characters(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(VOCABULARY, width)
                self.lstm = nn.LSTM(width, hidden)
                self.head = nn.Linear(hidden, VOCABULARY)

            def forward(self, x: Any) -> Any:
                return self.head(self.lstm(self.embedding(x))[0].reshape(-1, hidden))
        return Characters()
    count = steps * batch
    flops = recurrent_flops("LSTM", steps, batch, width, hidden) + product(count, hidden, VOCABULARY)
    parameters = VOCABULARY * width + 4 * hidden * (width + hidden + 2) + VOCABULARY * (hidden + 1)
    return Net(f"char-LSTM, T{steps} B{batch} {width} to {hidden}", model, (steps, batch), (count, VOCABULARY), flops,
               parameters, goal, text=True)


def _gpt(goal: str, layers: int = 2, heads: int = 4, width: int = 64, steps: int = 64, batch: int = 16) -> Net:
    def model(frame: Frame) -> Any:
        return frame.nn.Sequential(
            _positions(frame, width, steps), *[_block(frame, width, heads) for _ in range(layers)],
            frame.nn.LayerNorm(width), frame.nn.Linear(width, VOCABULARY), frame.nn.Flatten(0, 1))
    count = batch * steps
    block = (product(count, width, 12 * width) + attention_flops(batch, heads, steps, width // heads))
    flops = layers * block + product(count, width, VOCABULARY)
    parameters = (VOCABULARY * width + steps * width + layers * (12 * width * width + 13 * width)
                  + 2 * width + VOCABULARY * (width + 1))
    return Net(f"GPT of {layers} layers, {heads} heads, width {width}, LayerNorm, T{steps} B{batch}", model,
               (batch, steps), (count, VOCABULARY), flops, parameters, goal, text=True)


def _positions(frame: Frame, width: int, steps: int) -> Any:
    nn: Any = frame.nn

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, width)
            self.positions = nn.Parameter(frame.top.zeros(steps, width))

        def forward(self, x: Any) -> Any:
            return self.tokens(x) + self.positions
    return Positions()


def _block(frame: Frame, width: int, heads: int) -> Any:
    """A transformer block with its norms in front: causal attention, then an MLP four times as wide."""
    nn: Any = frame.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width))
            self.out = nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
                                     nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            batch, steps = x.shape[:2]
            q, k, v = (part.view(batch, steps, heads, width // heads).transpose(1, 2)
                       for part in self.before(x).chunk(3, 2))
            y = frame.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(batch, steps, width))
            return x + self.mlp(x)
    return Block()


TINY = _mlp((64, 64, 64, 10), "LayerNorm", 32, "torch 0.05")
NETS = (
    *[_mlp((784, 1000, 10), norm, batch, goal) for batch, goal in ((4, "roof 0.80"), (128, "roof 0.90"))
      for norm in ("LayerNorm", "BatchNorm1d")],
    _cnn(8, (16, 32), (False, True), "roof 0.60"), _cnn(28, (32, 64), (True, True), "roof 0.80"),
    _rows_of_digits("LSTM", "roof 0.80"), _rows_of_digits("GRU", "roof 0.80"), _char_lstm("roof 0.88"),
    _gpt("roof 0.80"),
)


# ---- their steps ----

def training_steps(torch: Any = None) -> Iterator[Workload]:
    """Rows of the products at the FMA peak, then Adam's update: it reads p, g, m and v, and writes p, m and v."""
    for net in (TINY, *NETS):
        build = _build_tiny if net is TINY else partial(_build, net)
        yield Workload(f"training step (captured), Adam: {net.name}", partial(build, torch), net.goal,
                       flops=net.flops, **moved(net.parameters, passes=7, arrays=4))


def step_of(net: Net, frame: Frame, wrapped: Callable[[Step], Step] = lambda step: step) -> Run:
    """The training step of a net on its batch; `wrapped` may capture it."""
    model = net.model(frame)
    optimizer = frame.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = frame.functional.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss
    return partial(wrapped(step), *[frame.tensor(values) for values in _batch(net)])


def _batch(net: Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    count, classes = net.labels
    inputs = (rng.integers(0, VOCABULARY, net.inputs) if net.text
              else rng.standard_normal(net.inputs).astype(np.float32))
    return inputs, rng.integers(0, classes, count)


def _build(net: Net, torch: Any = None) -> dict[str, Run]:
    ours, *others = frames(torch)
    return {ours.name: step_of(net, ours, capture), **{frame.name: step_of(net, frame) for frame in others}}


def _build_tiny(torch: Any = None) -> dict[str, Run]:
    """Beside the captured step: eager, and JAX jit where it is installed."""
    runs = {**_build(TINY, torch), "minigrad eager": step_of(TINY, frames(None)[0])}
    jax_step = mlp_jax(*_batch(TINY))
    return {**runs, "jax jit": jax_step} if jax_step else runs


def tiny_step() -> dict[str, Run]:
    """The runs of the smallest step, captured and eager."""
    return _build_tiny()
