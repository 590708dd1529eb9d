"""The whole matrix: every op, every check of `minigrad.testing`, every SIMD level. Nothing here knows any op."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad.nn  # noqa: F401        layers bring ops of their own
from minigrad import testing
from minigrad.core.op import registry
from minigrad.devices.native import LEVELS, best_simd_level, set_simd_level, simd_level

LEVELS = LEVELS[:LEVELS.index(best_simd_level()) + 1]
SAMPLED = [name for name, op in registry.items() if op.sample_function is not None]


@pytest.mark.parametrize("name", list(registry))
def test_has_samples(name):
    assert registry[name].sample_function is not None, f"{name} has no samples"


# What other quick tests look at, too: fuzzing draws operands in all layouts, core/test_half.py has the two half types.
SEEN_ELSEWHERE = ("layouts", "half")


@pytest.mark.parametrize("level", [pytest.param(level, marks=() if level == LEVELS[-1] else pytest.mark.slow) for level in LEVELS], indirect=True)
@pytest.mark.parametrize("check", [pytest.param(c, marks=pytest.mark.slow if c in SEEN_ELSEWHERE else ()) for c in testing.CHECKS if c != "errors"])
@pytest.mark.parametrize("name", SAMPLED)
def test_op(name, check, level):
    if level != LEVELS[-1] and check == "gradients":
        pytest.skip("the derivatives do not depend on the SIMD level beyond what `fused` compares")
    testing.CHECKS[check](registry[name])


@pytest.mark.parametrize("name", SAMPLED)
def test_errors(name):
    testing.check_errors(registry[name])


@pytest.mark.parametrize("name", [n for n in ("layer_norm", "batch_norm", "softmax")])
def test_third_derivative(name):
    """Where PyTorch is silently wrong."""
    testing.check_gradients(registry[name], orders=(3,))


def test_levels_agree():
    """The same formula at every level: results differ by rounding only."""
    results = {}
    before = simd_level()
    for chosen in LEVELS:
        set_simd_level(chosen)
        op = registry["layer_norm"]
        results[chosen] = [testing.evaluate(op, args, attrs)[0][0] for args, attrs in testing.samples_of(op, np.float32)]
    set_simd_level(before)
    for other in LEVELS[1:]:
        for a, b in zip(results[LEVELS[0]], results[other], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
