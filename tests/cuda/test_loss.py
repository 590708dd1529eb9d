"""Losses against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, RACE, compare, emulated, launch, rng, values

import minigrad as mg

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_cross_entropy(suffix, order):
    t = DTYPES[suffix]
    for outer, classes, inner in ((7, 10, 1), (2, 5, 3), (40, 33, 1), (1, 1, 1)):
        x, w = values(t, (outer, classes, inner)), values(t, classes, 0.1, 2)
        target = rng.integers(0, classes, (outer, inner))
        target.flat[0] = -100
        one, items, stats = np.zeros(1, t), np.zeros((outer, inner), t), np.zeros((2, outer, inner), t)
        for reduction in (0, 1, 2):
            for weight, smoothing in ((None, 0.0), (w, 0.0), (w, 0.1), (None, 0.3)):
                options = (outer, classes, inner, -100, reduction, smoothing)
                args = [one, one, items, stats, x, target, weight, *options]
                if reduction == 0:
                    args[0] = args[1] = None
                compare(f"cross_entropy_forward_{suffix}", *args, ulps=64)
                found = launch(mg.device("cpu"), f"cross_entropy_forward_{suffix}", args)
                wsum, found = (found[1], found[2:]) if reduction else (None, found)
                g = values(t, (outer, inner)) if reduction == 0 else values(t, 1)
                compare(f"cross_entropy_backward_{suffix}", x * 0, g, wsum, found[1], x, target, weight, *options, ulps=64)
    bad = [one, one, items, stats, x, np.array([[5]]), None, 1, 1, 1, -100, 1, 0.0]
    assert np.isnan(launch(mg.device("cuda"), f"cross_entropy_forward_{suffix}", bad)[0]).all()      # a class out of range reads nothing


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "bce_loss", "bce_logits_loss"])
def test_losses(name, suffix, order):
    t = DTYPES[suffix]
    low, high = (0.01, 0.99) if name == "bce_loss" else (-3, 3)
    for n in (1, 33, 100, 20000):
        if n == 20000 and (RACE or suffix == "f64"):
            continue
        x, y, w = values(t, n, low, high), values(t, n, 0.01, 0.99), values(t, n, 0, 2)
        more = {"bce_loss": [w], "bce_logits_loss": [w, y]}.get(name, [])
        scalars = [0.7, 1.3] if name == "huber_loss" else []
        for reduction in (0, 1, 2):
            out = np.zeros(n if reduction == 0 else 1, t)
            args = [out, np.zeros(2, t), x, y, *more, n, reduction, *scalars]
            got, want = (launch(mg.device(d), f"{name}_forward_{suffix}", args)[0] for d in ("cuda", "cpu"))
            np.testing.assert_allclose(got, want, rtol=1e-5 if suffix == "f32" else 1e-13, atol=1e-6)
            compare(f"{name}_backward_{suffix}", x * 0, x * 0, values(t, out.shape), x, y, *more, n, reduction, *scalars, ulps=64)
