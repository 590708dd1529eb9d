"""Sorting beyond its samples: indices that were returned and written to."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import autograd


@pytest.mark.parametrize("pick", [lambda x: mg.sort(x, 1), lambda x: mg.topk(x, 2), lambda x: x.max(1), lambda x: x.min(1, keepdim=True),
                                  lambda x: mg.kthvalue(x, 2, 1), lambda x: mg.cummax(x, 1)])
def test_indices_that_were_returned_may_be_written_to(pick):
    x = mg.tensor([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]], requires_grad=True)
    want, = autograd.grad(pick(x)[0].sum(), x)
    values, indices = pick(x)
    indices.numpy()[...] = 1 << 60
    got, = autograd.grad(values.sum(), x)
    assert got.tolist() == want.tolist()


def test_an_empty_dimension_has_no_kth_value():
    with pytest.raises(IndexError, match="must not be empty"):
        mg.zeros(2, 0, 4).kthvalue(1, dim=1)
