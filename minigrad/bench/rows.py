"""The rows of the table: what is timed."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg

from .. import nn, optim
from ..core.capture import capture
from ..nn import functional as F
from ..ops.creation import tensor
from .timing import Run


class Workload(NamedTuple):
    """One row of the table."""

    name: str
    run: dict[str, Run]             # name of the framework: one run of the workload
    goal: float | None = None       # the time we want, as a share of torch's
    flops: float = 0.0              # operations that a run needs at least
    bytes: float = 0.0              # bytes that a run must read and write at least


def _tensors(torch: Any, *shapes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Leaves with the same random values in pairs (minigrad's, torch's); the second is None without torch."""
    rng = np.random.default_rng(0)
    pairs = []
    for shape in shapes:
        values = rng.standard_normal(shape).astype(np.float32)
        theirs = torch.tensor(values, requires_grad=True) if torch else None
        pairs.append((tensor(values, requires_grad=True), theirs))
    return pairs


def _both(ours: Run, theirs: Run | None) -> dict[str, Run]:
    return {"minigrad": ours} if theirs is None else {"minigrad": ours, "torch": theirs}


def _backward(function: Callable[..., Any], leaves: list[Any], seed: Any) -> Run:
    """Runs `function` forward and backward, from `seed` as the gradient of its output."""
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).backward(seed)
    return run


def _pairwise(torch: Any, name: str, ours: Callable[..., Any], theirs: Callable[..., Any] | None,
              shapes: list[tuple[int, ...]], out: tuple[int, ...], **facts: Any) -> Workload:
    """A function of tensors of these shapes, forward and backward; `out` is the shape of its output."""
    pairs = _tensors(torch, *shapes, out)
    (seed, their_seed), pairs = pairs[-1], pairs[:-1]
    mine = _backward(ours, [p[0] for p in pairs], seed.detach())
    other = _backward(theirs, [p[1] for p in pairs], their_seed.detach()) if torch and theirs else None
    return Workload(name, _both(mine, other), **facts)


def _chain(x: Any, y: Any) -> Any:
    for _ in range(20):
        x = x * y + y
    return x


def workloads(torch: Any) -> list[Workload]:
    """The rows of the table. `torch` is the module, or None."""
    parts = (_elementwise, _normalization, _convolution, _linear, _attention, _recurrence)
    return [*(load for part in parts for load in part(torch)), mlp_step(torch)]


def _functional(torch: Any) -> Any:
    return torch.nn.functional if torch else None


def _elementwise(torch: Any) -> Iterator[Workload]:
    (x, tx), (y, ty) = _tensors(torch, (64, 64), (64, 64))
    yield Workload("x + y, 64x64, recorded", _both(lambda: x + y, (lambda: tx + ty) if torch else None), goal=0.75)
    yield _pairwise(torch, "chain of 40 elementwise ops, 64x64, fwd+bwd", _chain, _chain, [(64, 64)] * 2, (64, 64),
                    goal=0.75)


def _normalization(torch: Any) -> Iterator[Workload]:
    tf = _functional(torch)
    for rows, n, goal in ((64, 512, 0.3), (4096, 768, 0.75)):
        yield _pairwise(torch, f"layer_norm {rows}x{n}, fwd+bwd",
                        lambda x, w, b, n=n: F.layer_norm(x, (n,), w, b),
                        lambda x, w, b, n=n: tf.layer_norm(x, (n,), w, b),
                        [(rows, n), (n,), (n,)], (rows, n), goal=goal, bytes=5 * rows * n * 4)
    for shape, goal in (((64, 512), 0.6), ((256, 128), 0.6), ((64, 32, 28, 28), 0.4), ((32, 16, 8, 8), 0.4)):
        c = shape[1]
        yield _pairwise(torch, f"batch_norm {'x'.join(map(str, shape))}, fwd+bwd",
                        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
                        lambda x, w, b: tf.batch_norm(x, None, None, w, b, training=True),
                        [shape, (c,), (c,)], shape, goal=goal)
    yield _pairwise(torch, "softmax 256x1000, fwd+bwd", lambda x: F.softmax(x, 1), lambda x: tf.softmax(x, 1),
                    [(256, 1000)], (256, 1000))


def _convolution(torch: Any) -> Iterator[Workload]:
    tf = _functional(torch)
    for x_shape, w_shape, goal in (((64, 1, 8, 8), (16, 1, 3, 3), 0.35), ((32, 32, 28, 28), (64, 32, 3, 3), 1.0)):
        n, _, height, width = x_shape
        channels = w_shape[0]
        yield _pairwise(torch, f"conv2d {'x'.join(map(str, x_shape))} to {channels} channels, 3x3, padding 1, fwd+bwd",
                        lambda x, w, b: F.conv2d(x, w, b, padding=1), lambda x, w, b: tf.conv2d(x, w, b, padding=1),
                        [x_shape, w_shape, (channels,)], (n, channels, height, width), goal=goal,
                        flops=6 * n * height * width * channels * w_shape[1] * 9)
    yield _pairwise(torch, "max_pool2d 64x16x28x28, 2x2, fwd+bwd", lambda x: F.max_pool2d(x, 2),
                    lambda x: tf.max_pool2d(x, 2), [(64, 16, 28, 28)], (64, 16, 14, 14))


def _linear(torch: Any) -> Iterator[Workload]:
    tf = _functional(torch)
    for m, k, n in ((32, 64, 64), (128, 256, 256), (256, 1024, 1024)):
        load = _pairwise(torch, f"linear {m}x{k} to {n}, fwd+bwd", F.linear, tf.linear if tf else None,
                         [(m, k), (n, k), (n,)], (m, n), flops=6 * m * k * n)
        load.run["numpy"] = _linear_numpy(m, k, n)
        yield load


def _attention(torch: Any) -> Iterator[Workload]:
    tf = _functional(torch)
    for b, h, t, d, goal in ((16, 4, 128, 32, 0.6), (4, 8, 512, 64, 0.5)):
        shape = (b, h, t, d)
        yield _pairwise(torch, f"causal attention {b}x{h}x{t}x{d}, fwd+bwd",
                        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                        lambda q, k, v: tf.scaled_dot_product_attention(q, k, v, is_causal=True), [shape] * 3, shape,
                        goal=goal, flops=7 * b * h * t * t * d)


def _recurrence(torch: Any) -> Iterator[Workload]:
    for kind, steps, batch, inputs, hidden, goal in (
            ("RNN", 28, 64, 28, 128, 0.6), ("RNN", 28, 64, 128, 128, 0.6), ("GRU", 28, 64, 128, 128, 0.5),
            ("LSTM", 28, 64, 128, 128, 0.9), ("LSTM", 64, 32, 256, 256, 1.0)):
        yield _recurrent(torch, kind, steps, batch, inputs, hidden, goal)
    for steps, batch, inputs, hidden in ((28, 64, 128, 128), (64, 32, 256, 256)):
        yield _recurrent(torch, "LSTM", steps, batch, inputs, hidden, 0.3, norm="layer")


def _recurrent(torch: Any, kind: str, steps: int, batch: int, inputs: int, hidden: int, goal: float,
               norm: str | None = None) -> Workload:
    """A recurrent layer, forward and backward. A normalised LSTM is compared with a loop in torch."""
    layer = getattr(nn, kind)(inputs, hidden, norm=norm)
    (x, tx), (seed, their_seed) = _tensors(torch, (steps, batch, inputs), (steps, batch, hidden))
    mine = _backward(lambda x: layer(x)[0], [x], seed.detach())

    def ours() -> None:
        layer.zero_grad()
        mine()
    theirs = None
    if torch:
        other = getattr(torch.nn, kind)(inputs, hidden)
        norms = [torch.nn.LayerNorm(size) for size in (4 * hidden, 4 * hidden, hidden)] if norm else []
        run = partial(_normalised_lstm, torch, other, *norms) if norm else lambda x: other(x)[0]
        back = _backward(run, [tx], their_seed.detach())

        def theirs() -> None:
            for module in (other, *norms):
                module.zero_grad()
            back()
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    name = f"{'layer-normalised ' if norm else ''}{kind} T{steps} B{batch} {inputs} to {hidden}, fwd+bwd"
    return Workload(name, _both(ours, theirs), goal=goal, flops=6 * steps * batch * gates * hidden * (inputs + hidden))


def _normalised_lstm(torch: Any, lstm: Any, norm_ih: Any, norm_hh: Any, norm_c: Any, x: Any) -> Any:
    """The layer-normalised LSTM (Ba et al. 2016, eq. 20 to 22) as a torch user writes it."""
    h = c = x.new_zeros(x.shape[1], lstm.hidden_size)
    outputs = []
    for now in x:
        p = norm_ih(now @ lstm.weight_ih_l0.T) + norm_hh(h @ lstm.weight_hh_l0.T) + lstm.bias_ih_l0 + lstm.bias_hh_l0
        i, f, g, o = p.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm_c(c).tanh()
        outputs.append(h)
    return torch.stack(outputs)


def _linear_numpy(m: int, k: int, n: int) -> Run:
    """The products of a linear layer, forward and backward, in NumPy."""
    rng = np.random.default_rng(0)
    x, w, b, g = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (n, k), (n,), (m, n)))

    def run() -> None:
        x @ w.T + b
        g @ w
        g.T @ x
        g.sum(0)
    return run


def mlp_step(torch: Any) -> Workload:
    """A training step of 64-64-64-10 with LayerNorm, batch 32, Adam: captured, eager, torch eager, JAX jit."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((32, 64)).astype(np.float32), rng.integers(0, 10, 32)

    def make(frame: Any, layers: Any, functional: Any, adam: Any) -> Callable[[Any, Any], Any]:
        model = layers.Sequential(layers.Linear(64, 64), layers.LayerNorm(64), layers.ReLU(),
                                  layers.Linear(64, 64), layers.LayerNorm(64), layers.ReLU(), layers.Linear(64, 10))
        optimizer = adam(model.parameters(), lr=1e-3)

        def step(x: Any, t: Any) -> Any:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss
        return step
    x, t = tensor(images), tensor(labels)
    eager, captured = make(mg, nn, F, optim.Adam), capture(make(mg, nn, F, optim.Adam))
    run: dict[str, Run] = {"minigrad": lambda: captured(x, t), "minigrad eager": lambda: eager(x, t)}
    if torch:
        their_step = make(torch, torch.nn, torch.nn.functional, torch.optim.Adam)
        tx, tt = torch.tensor(images), torch.tensor(labels)
        run["torch"] = lambda: their_step(tx, tt)
    jax_step = _mlp_jax(images, labels)
    if jax_step:
        run["jax jit"] = jax_step
    return Workload("MLP 64-64-64-10 training step, LayerNorm, batch 32, Adam (captured)", run, goal=0.2)


def _mlp_jax(images: np.ndarray, labels: np.ndarray) -> Run | None:
    """The same step in JAX, compiled; None if JAX is not installed."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    sizes = (64, 64, 64, 10)
    params = [{"w": jnp.array(rng.standard_normal((a, b)) / a ** 0.5, jnp.float32), "b": jnp.zeros(b),
               "g": jnp.ones(b), "h": jnp.zeros(b)}
              for a, b in zip(sizes, sizes[1:], strict=False)]

    def loss(p: Any, x: Any, t: Any) -> Any:
        for i, layer in enumerate(p):
            x = x @ layer["w"] + layer["b"]
            if i < 2:
                rstd = jax.lax.rsqrt(x.var(1, keepdims=True) + 1e-5)
                x = jax.nn.relu((x - x.mean(1, keepdims=True)) * rstd * layer["g"] + layer["h"])
        return -jax.nn.log_softmax(x)[jnp.arange(len(t)), t].mean()

    @jax.jit
    def step(p: Any, m: Any, v: Any, n: Any, x: Any, t: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, x, t)
        n = n + 1
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        p = jax.tree.map(lambda a, b, c: a - 1e-3 * (b / (1 - 0.9 ** n)) / (jnp.sqrt(c / (1 - 0.999 ** n)) + 1e-8),
                         p, m, v)
        return p, m, v, n, value
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = [params, zeros, zeros, jnp.float32(0)]
    x, t = jnp.array(images), jnp.array(labels)

    def run() -> None:
        nonlocal state
        *state, value = step(*state, x, t)
        value.block_until_ready()
    return run
