"""Norm."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import nn


def test_batch_norm_refuses_one_value_per_channel():
    for m, x in ((nn.BatchNorm1d(3), mg.ones(1, 3)), (nn.BatchNorm2d(3), mg.ones(1, 3, 1, 1))):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            m(x)
        assert m.num_batches_tracked.item() == 0 and m.eval()(x).shape == x.shape
    m = nn.BatchNorm1d(3)
    assert m(mg.ones(0, 3)).shape == (0, 3) and m.running_var.tolist() == [1.0] * 3 and m.num_batches_tracked.item() == 1
    with pytest.raises(ValueError, match="more than 1 spatial"):
        nn.InstanceNorm1d(3)(mg.ones(2, 3, 1))
    for m, x, text in ((nn.BatchNorm1d(3), mg.ones(2, 3, 1, 1), "2D or 3D"), (nn.BatchNorm2d(3), mg.ones(2, 3), "4D"),
                       (nn.InstanceNorm2d(3), mg.ones(2, 3), "3D or 4D")):
        with pytest.raises(ValueError, match=text):
            m(x)
    with pytest.raises(ValueError, match="divisible"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ValueError, match="eps"):
        nn.BatchNorm1d(3, eps=0.0)(mg.ones(2, 3))
