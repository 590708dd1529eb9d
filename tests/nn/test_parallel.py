"""`DataParallel`: one device."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import nn


def test_it_runs_the_module_as_it_is():
    layer, x = nn.Linear(3, 2), mg.randn(4, 3)
    model = nn.DataParallel(layer, device_ids=[0])
    assert mg.equal(model(x), layer(x)) and list(model.state_dict()) == ["module.weight", "module.bias"] and model.module is layer
    assert mg.equal(nn.parallel.data_parallel(layer, x), layer(x)) and mg.equal(nn.parallel.data_parallel(layer, (x,), module_kwargs={}), layer(x))
    with pytest.warns(UserWarning, match=r"not on the devices \[0, 1\]"):
        nn.DataParallel(layer, device_ids=[0, 1])
