"""Softmax and its relatives beyond their samples: arrays larger than the caches, whose results are stored past them."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.devices import native
from minigrad.nn import functional as F

INF, NAN = float("inf"), float("nan")
LEVELS = native.LEVELS[:native.LEVELS.index(native.best_simd_level()) + 1]


@pytest.fixture(params=LEVELS)
def level(request):
    before = native.simd_level()
    native.set_simd_level(request.param)
    yield
    native.set_simd_level(before)

FUNCTIONS = {
    "softmax": lambda x, t: F.softmax(x, 1), "log_softmax": lambda x, t: F.log_softmax(x, 1), "logsumexp": lambda x, t: x.logsumexp(1),
    "cross_entropy": lambda x, t: F.cross_entropy(x, t, reduction="none"),
    "cross_entropy, smoothed": lambda x, t: F.cross_entropy(x, t, reduction="none", label_smoothing=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("columns", [16, 1000, 1008, 1040, 5000])       # 5000: two blocks; not all are whole vectors
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_of_a_large_array_has_the_bits_it_has_alone(name, columns):
    """Output and gradient, with one thread and with two."""
    rng, rows = np.random.default_rng(0), (3 << 20) // columns + 5
    x, labels = rng.standard_normal((rows, columns), np.float32) * 4, rng.integers(0, columns, rows)

    def run(x, labels):
        leaf = mg.tensor(x, requires_grad=True)
        y = FUNCTIONS[name](leaf, mg.tensor(labels))
        y.backward(mg.arange(y.numel(), dtype=mg.float32).reshape(y.shape) % 7)
        return y.detach().numpy(), leaf.grad.numpy()
    before = mg.get_num_threads()
    try:
        mg.set_num_threads(1)
        large = run(x, labels)
        mg.set_num_threads(2)
        again = run(x, labels)
    finally:
        mg.set_num_threads(before)
    some = slice(7 * (rows // 14), 7 * (rows // 14) + 7 * 2)            # where the gradient of the output begins anew
    for got, alone in zip(large, run(x[some], labels[some]), strict=True):
        np.testing.assert_array_equal(got[some], alone)
    for one, two in zip(large, again, strict=True):
        np.testing.assert_array_equal(one, two)


def softmax_of(x, axis):
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_small_weights_keep_their_digits(level, axis):
    """The relative error of weights down to the normal numbers, beside the largest: of rows and of columns, forward and backward."""
    low = np.linspace(-87.0, 0, 1155, dtype=np.float32)
    x = np.stack([np.zeros_like(low), low, low / 2], axis)
    want = softmax_of(x, axis)
    bound = 6e-7 + 4e-9 * np.abs(x)
    assert (np.abs(F.softmax(mg.tensor(x), axis).numpy() / want - 1) < bound).all()
    leaf = mg.tensor(x, requires_grad=True)
    F.cross_entropy(leaf if axis else leaf.T, mg.zeros(low.size, dtype=mg.int64), reduction="sum").backward()
    gradient = (leaf.grad.numpy() / want).take([1, 2], axis)       # of the classes that are not the target: their weight
    assert (np.abs(gradient - 1) < (bound + 6e-8 * np.abs(x)).take([1, 2], axis)).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_too_small_and_not_finite(level, axis):
    """Beside 0 the weight of -110, -1e30 and -inf is 0; NaN and two infinities make NaN of the line. logsumexp may be infinite."""
    for values, weights, whole in (([-110.0, 0, -1e30, -INF], [0, 1, 0, 0], 0), ([NAN, 2, -1e30, 1], [NAN] * 4, NAN),
                                   ([1, INF, 200, -INF], [NAN] * 4, INF), ([-INF] * 4, [NAN] * 4, -INF),
                                   ([INF, 5, NAN, 1], [NAN] * 4, NAN), ([-INF, NAN, -INF, -INF], [NAN] * 4, NAN)):
        for count in (1, 6, 70):
            x = np.repeat(np.float32([values]), count, 0)
            x, want = (x, np.repeat([weights], count, 0)) if axis else (x.T.copy(), np.repeat([weights], count, 0).T)
            np.testing.assert_array_equal(F.softmax(mg.tensor(x), axis).numpy(), want)
            np.testing.assert_array_equal(mg.tensor(x).logsumexp(axis).numpy(), np.full(count, whole))
