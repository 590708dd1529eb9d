"""The smallest training step of the table in JAX, compiled."""
from __future__ import annotations

from typing import Any

import numpy as np

from .timing import Run


def mlp_jax(images: np.ndarray, labels: np.ndarray) -> Run | None:
    """The step of an MLP 64-64-64-10 with LayerNorm and Adam; None if JAX is not installed."""
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
