"""Parameters as one vector, and back."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import nn


def test_parameters_as_a_vector():
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    v = nn.utils.parameters_to_vector(m.parameters())
    assert v.shape == (13,) and v.requires_grad
    nn.utils.vector_to_parameters(mg.arange(13).float(), m.parameters())
    assert m[0].weight.tolist() == [[0, 1], [2, 3], [4, 5]] and m[1].bias.tolist() == [12]
    with pytest.raises(TypeError):
        nn.utils.vector_to_parameters([1.0], m.parameters())
