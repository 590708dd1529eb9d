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
