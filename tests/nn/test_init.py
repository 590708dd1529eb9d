"""Initial values."""
from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import init


def draws(fill, shape=(200, 300)):
    mg.manual_seed(0)
    return fill(mg.empty(*shape)).numpy().astype(np.float64)


@pytest.mark.parametrize(("fill", "low", "high", "std"), [
    (lambda t: init.uniform_(t, -2, 3), -2, 3, 5 / math.sqrt(12)),
    (lambda t: init.normal_(t, 1, 2), None, None, 2),
    (lambda t: init.xavier_uniform_(t, 2.0), -2 * math.sqrt(6 / 500), 2 * math.sqrt(6 / 500), 2 * math.sqrt(2 / 500)),
    (lambda t: init.xavier_normal_(t), None, None, math.sqrt(2 / 500)),
    (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), -1 / math.sqrt(300), 1 / math.sqrt(300), 1 / math.sqrt(900)),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), None, None, math.sqrt(2 / 200)),
    (lambda t: init.trunc_normal_(t), -2, 2, 0.8796), (lambda t: init.trunc_normal_(t, 0, 1, 1.0, 1.5), 1, 1.5, 0.1428),
])
def test_distributions(fill, low, high, std):
    x = draws(fill)
    assert abs(x.std() / std - 1) < 0.02
    if low is not None:
        assert low <= x.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < x.max() <= high


def test_structured_values():
    q = draws(lambda t: init.orthogonal_(t, 2.0), (30, 20))
    np.testing.assert_allclose(q.T @ q, 4 * np.eye(20), atol=1e-5)
    np.testing.assert_allclose((q := draws(init.orthogonal_, (6, 4, 5)).reshape(6, 20)) @ q.T, np.eye(6), atol=1e-5)
    assert np.array_equal(draws(init.eye_, (3, 5)), np.eye(3, 5)) and (draws(init.ones_) == 1).all() and (draws(init.zeros_) == 0).all()
    assert (draws(lambda t: init.constant_(t, 3)) == 3).all() and ((draws(lambda t: init.sparse_(t, 0.25)) == 0).sum(0) == 50).all()
    dirac = draws(lambda t: init.dirac_(t, 2), (4, 3, 3, 5))
    want = np.zeros((4, 3, 3, 5))
    for group in range(2):
        for channel in range(2):
            want[2 * group + channel, channel, 1, 2] = 1
    assert np.array_equal(dirac, want)


def test_structured_values_are_pytorchs(torch):
    assert np.array_equal(draws(lambda t: init.dirac_(t, 2), (4, 3, 3, 5)), torch.nn.init.dirac_(torch.empty(4, 3, 3, 5), 2).numpy())
    for name, param in (("linear", None), ("tanh", None), ("relu", None), ("leaky_relu", 0.3), ("leaky_relu", None), ("selu", None)):
        assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


@pytest.mark.parametrize(("act", "error"), [
    (lambda: init.calculate_gain("swish"), ValueError), (lambda: init.calculate_gain("leaky_relu", "x"), ValueError),
    (lambda: init.xavier_uniform_(mg.empty(3)), ValueError), (lambda: init.kaiming_uniform_(mg.empty(3, 3), mode="in"), ValueError),
    (lambda: init.eye_(mg.empty(3)), ValueError), (lambda: init.dirac_(mg.empty(3, 3)), ValueError),
    (lambda: init.orthogonal_(mg.empty(3)), ValueError), (lambda: init.sparse_(mg.empty(3), 0.1), ValueError)])
def test_init_errors(act, error):
    with pytest.raises(error):
        act()


def test_layers_start_as_pytorchs_do():
    mg.manual_seed(0)
    m = nn.Linear(100, 400)
    weight, bias = m.weight.detach().numpy(), m.bias.detach().numpy()
    assert abs(weight.std() * math.sqrt(300) - 1) < 0.02 and abs(bias).max() <= 0.1 < 1.02 * abs(bias).max()
    mg.manual_seed(0)
    assert np.array_equal(nn.Linear(100, 400).weight.detach().numpy(), m.weight.detach().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert nn.Linear(0, 3).weight.shape == (3, 0)
