"""Fractional max pooling against its definition and PyTorch's."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
import minigrad.nn.functional as F
from minigrad import nn


def starts(u, n, m, k):
    a = (n - k) / (m - 1) if m > 1 else 0.0
    return [int((i + u) * a) - int(u * a) for i in range(m - 1)] + [n - k]


def test_windows():
    x, u = mg.randn(2, 3, 9, 11, dtype=mg.float64, requires_grad=True), mg.rand(2, 3, 2, dtype=mg.float64)
    y, at = F.fractional_max_pool2d(x, (2, 3), output_size=(4, 5), return_indices=True, _random_samples=u)
    assert y.shape == (2, 3, 4, 5) and mg.equal(x.flatten(2).gather(2, at.flatten(2)).reshape(y.shape), y)
    values = x.numpy(force=True)
    for n in range(2):
        for c in range(3):
            rows, columns = starts(u[n, c, 1].item(), 9, 4, 2), starts(u[n, c, 0].item(), 11, 5, 3)
            want = [[values[n, c, i:i + 2, j:j + 3].max() for j in columns] for i in rows]
            np.testing.assert_array_equal(y[n, c].numpy(force=True), want)
    y.sum().backward()
    assert x.grad.sum().item() == 120
    again = F.fractional_max_pool2d(x, 2, output_ratio=0.5)                 # drawn
    assert again.shape == (2, 3, 4, 5) and nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.4, 0.5))(mg.randn(1, 8, 8, 8)).shape == (1, 4, 3, 4)


@pytest.mark.parametrize("dims", [2, 3])
def test_values_and_places_are_pytorchs(torch, dims):
    theirs, ours = getattr(torch.nn.functional, f"fractional_max_pool{dims}d"), getattr(F, f"fractional_max_pool{dims}d")
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for _ in range(10):
            n, k = rng.integers(6, 17, dims).tolist(), rng.integers(1, 4, dims).tolist()
            m = [int(rng.integers(1, a - b + 1)) for a, b in zip(n, k, strict=True)]
            x, u = rng.standard_normal((2, 3, *n)).astype(dtype), rng.random((2, 3, dims)).astype(dtype)
            want, at = theirs(torch.tensor(x), k, output_size=m, return_indices=True, _random_samples=torch.tensor(u))
            got, place = ours(mg.tensor(x), k, output_size=m, return_indices=True, _random_samples=mg.tensor(u))
            np.testing.assert_array_equal(got.numpy(), want.numpy())
            np.testing.assert_array_equal(place.numpy(), at.numpy())


def test_errors():
    x = mg.zeros(1, 2, 5, 5)
    for options, kind, text in (({}, ValueError, "either"), ({"output_size": 2, "output_ratio": 0.5}, ValueError, "either"), ({"output_ratio": 1.5}, ValueError, "between 0 and 1"),
                                ({"output_size": 5}, RuntimeError, "at most the size"), ({"output_size": 2, "_random_samples": mg.zeros(1, 2, 3)}, RuntimeError, "_random_samples")):
        with pytest.raises(kind, match=text):
            F.fractional_max_pool2d(x, 2, **options)
    for wrong in (-0.25, 1.0, float("nan")):
        with pytest.raises(RuntimeError, match=r"^\[fractional_max_pool2d\] _random_samples must be in \[0, 1\)"):
            F.fractional_max_pool2d(x, 2, 2, _random_samples=mg.full((1, 2, 2), wrong))
    with pytest.raises(NotImplementedError, match=r"^\[fractional_max_pool2d\] the input must be floating point"):
        F.fractional_max_pool2d(x.long(), 2, 2)
    with pytest.raises(RuntimeError, match="dimensions"):
        F.fractional_max_pool2d(x[0, 0], 2, 2)
    with pytest.raises(ValueError, match="either"):
        nn.FractionalMaxPool2d(2)
