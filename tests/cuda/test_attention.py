"""Attention against its C twin."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, Plan, emulated, launch, rng

import minigrad as mg

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]

# items, rows, keys, depth, width, options
CASES = {
    "one": (1, 1, 1, 1, 1, ""),
    "plain": (2, 5, 7, 4, 3, ""),
    "tiles": (1, 70, 131, 33, 67, ""),
    "causal": (2, 67, 67, 16, 16, "causal weights"),
    "causal-more-keys": (1, 35, 140, 5, 8, "causal"),
    "causal-more-rows": (1, 140, 35, 9, 4, "causal"),
    "bias": (2, 33, 70, 8, 5, "bias weights"),
    "bias-of-keys": (2, 9, 65, 3, 3, "bias keys weights"),
    "bias-of-rows": (2, 66, 9, 3, 3, "bias rows"),
    "allowed": (2, 66, 65, 4, 4, "allowed weights"),
    "no-keys": (1, 34, 35, 4, 2, "allowed dead weights"),
    "dropout": (2, 35, 67, 4, 6, "dropout weights"),
    "dropout-all": (1, 3, 5, 4, 2, "all weights"),
    "dropout-causal": (3, 66, 33, 4, 2, "dropout causal allowed"),
    "negative-scale": (1, 5, 70, 4, 3, "negative causal"),
    "shared": (4, 34, 5, 3, 2, "shared bias"),
    "apart": (2, 9, 34, 4, 6, "apart dropout"),
    "apart-odd": (2, 9, 34, 6, 4, "apart odd allowed causal"),
    "huge": (1, 5, 70, 4, 3, "huge bias"),
    "lowest": (2, 35, 9, 4, 3, "lowest bias weights"),
    "odd": (1, 66, 67, 3, 5, "odd allowed causal weights dropout"),
    "odd-plain": (1, 5, 6, 3, 5, "odd weights"),
}


def arguments(suffix, items, rows, keys, depth, width, options):
    """The operands of both kernels, after their outputs."""
    t, options = DTYPES[suffix], options.split()
    sources = items // 2 if "shared" in options else items          # grouped queries: two items read the same keys
    apart = _apart(options)

    def operand(count, lines, size):
        return rng.standard_normal((count, lines, size + apart)).astype(t)
    q, k, v = operand(items, rows, depth), operand(sources, keys, depth), operand(sources, keys, width)
    if "huge" in options:       # in all scores of a row alike: what is rounded away from them would count in the weights
        q[..., 0], k[..., 0] = {"f32": 3e5, "f64": 3e13}[suffix], 1
    if "odd" in options:
        q[0, 3, 1], k[0, 4, 0], v[0, 5, 1], v[0, 2, 0] = np.nan, np.nan, np.inf, np.nan
    shape = (rows, 1) if "rows" in options else (1, keys) if "keys" in options else (rows, keys)
    bias, allowed = None, None
    if "bias" in options:
        bias = rng.standard_normal((items, *shape)).astype(t)
        bias[rng.random(bias.shape) < 0.3] = np.finfo(t).min if "lowest" in options else -np.inf
        if "lowest" in options:
            bias[:, :2] = np.finfo(t).min
    if "allowed" in options:
        allowed = (rng.random((items, *shape)) < 0.6).astype(np.uint8)
        if "dead" in options:
            allowed[:, 1::3] = 0
        if "odd" in options:
            allowed[:, :, 2:6] = rng.random((items, rows, 4)) < 0.2
    mask = 0 if bias is None and allowed is None else shape[0] * shape[1]
    sizes = [n * (m + apart) for n, m in ((rows, width), (rows, depth), (keys, depth), (keys, width))]       # of results
    at = [(i * q[0].size, i * sources // items * k[0].size, i * sources // items * v[0].size, i * mask, *[i * n for n in sizes])
          for i in range(items)]
    stream = np.array([7, 5, 0, 0], np.int64) if {"dropout", "all"} & {*options} else None
    steps = (shape[1] if shape[0] > 1 else 0, 1 if shape[1] > 1 else 0) if mask else (0, 0)
    return [q, k, v, bias, allowed, stream, Plan(*[n for one in at for n in one]), items, rows, keys, depth, width,
            *[n + apart for n in (depth, depth, width, width, depth, depth, width)], *steps, int("causal" in options), -0.7 if "negative" in options else 0.4,
            1.0 if "all" in options else 0.3 if stream is not None else 0.0]


def _apart(options):
    """Heads of one projection: between their rows are so many elements of others."""
    return 3 if "apart" in options else 0


def agree(got, want, tolerance, names):
    for g, w, name in zip(got, want, names, strict=False):
        finite = np.abs(w[np.isfinite(w)])
        scale = finite[finite < 1e30].max(initial=1)                 # lse may be the largest number
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_attention(case, suffix, order):
    items, rows, keys, depth, width, options = CASES[case]
    apart = _apart(options)                                         # what stands between the rows of results stays there
    t, operands = DTYPES[suffix], arguments(suffix, *CASES[case])
    tolerance = 2e-5 if suffix == "f32" else 2e-13
    out, lse = np.full((items, rows, width + apart), 7, t), np.full((items, rows), 7, t)
    weights = np.full((items, rows, keys), 7, t) if "weights" in options else None

    def both(kernel, *given):
        with np.errstate(all="ignore"):
            return [launch(mg.device(device), f"attention_{kernel}_{suffix}", [*given, *operands]) for device in ("cpu", "cuda")]
    want, got = both("forward", out, lse, weights)
    agree(got, want, tolerance, ["out", "lse", *(["weights"] if weights is not None else [])])
    out, lse = want[:2]
    gout = rng.standard_normal(out.shape).astype(t)
    gradients = [np.full((items, n, m + apart), 7, t) for n, m in ((rows, depth), (keys, depth), (keys, width))]
    for needed in ([0, 1, 2], [0], [2], [1]):
        made = [g if i in needed else None for i, g in enumerate(gradients)]
        want, got = both("backward", *made, gout, out, lse)
        agree(got, want, 4 * tolerance, [("gq", "gk", "gv")[i] for i in needed])
