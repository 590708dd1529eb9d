"""Softmax and its relatives beyond their samples: arrays larger than the caches, whose results are stored past them."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F

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
    rng, rows = np.random.default_rng(0), (1 << 20) // columns + 5
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
