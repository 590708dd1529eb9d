"""Dropout."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def test_dropout():
    mg.manual_seed(0)
    x = mg.ones(100, 100, requires_grad=True)
    y = nn.Dropout(0.25)(x)
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02 and np.allclose(y.detach().numpy()[kept], 1 / 0.75)
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), y.detach().numpy())
    assert nn.Dropout(0.25).eval()(x) is x and (nn.Dropout(1.0)(x).detach().numpy() == 0).all()
    channels = nn.Dropout2d(0.5)(mg.ones(10, 20, 3, 3)).numpy().reshape(200, 9)
    assert set(channels.sum(1)) == {0.0, 18.0}
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nn.Dropout(p)


@pytest.mark.parametrize(("name", "shape"), [("Dropout1d", (40, 20, 9)), ("Dropout1d", (800, 9)), ("Dropout3d", (40, 20, 3, 3, 1)), ("Dropout3d", (800, 3, 3, 1))])
def test_dropout_of_channels(name, shape):
    mg.manual_seed(0)
    x = mg.ones(*shape, requires_grad=True)
    y = getattr(nn, name)(0.25)(x)
    sums = y.detach().numpy().reshape(800, 9).sum(1)
    assert set(np.round(sums, 4)) == {0.0, 12.0} and abs((sums != 0).mean() - 0.75) < 0.05
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), y.detach().numpy())
    assert getattr(nn, name)(0.25).eval()(x) is x
    z = x.detach().clone()
    assert getattr(nn, name)(0.25, inplace=True)(z) is z and set(np.round(z.numpy().reshape(800, 9).sum(1), 4)) == {0.0, 12.0}


@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_dropout_keeps_mean_and_variance(name):
    mg.manual_seed(0)
    x = mg.randn(400, 500, requires_grad=True)
    y = getattr(nn, name)(0.3)(x)
    values = y.detach().numpy()
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02
    y.sum().backward()
    dropped = x.grad.numpy() == 0
    s, p = nn.SELU()(mg.tensor(-1e9)).item(), 0.3               # what was dropped has the value of selu at -inf, scaled
    np.testing.assert_allclose(values[dropped], s * (1 - p) / np.sqrt((s * s * p + 1) * (1 - p)), rtol=1e-5)
    assert abs(dropped.mean() - 0.3) < 0.01
    assert getattr(nn, name)(0.3).eval()(x) is x and (getattr(nn, name)(1.0)(x).detach().numpy() == 0).all()
    channels = nn.FeatureAlphaDropout(0.5)(mg.ones(10, 20, 9)).numpy().reshape(200, 9)
    assert (channels == channels[:, :1]).all() and len(set(channels[:, 0])) == 2
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        nn.FeatureAlphaDropout(0.5)(mg.ones(3))
