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


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("pick", [mg.unique, mg.unique_consecutive])
def test_the_gradient_of_what_is_different_goes_to_the_first_of_equals(pick, dim):
    x = mg.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [0.0, 0.0, 3.0]], requires_grad=True)
    found, inverse, counts = pick(x, return_inverse=True, return_counts=True, dim=dim)
    plain = pick(x.detach(), return_inverse=True, return_counts=True, dim=dim)
    assert all(mg.equal(a.detach(), b) for a, b in zip((found, inverse, counts), plain, strict=True)) and not inverse.requires_grad
    weight = mg.arange(1.0, found.numel() + 1).reshape(found.shape)
    grad, = autograd.grad((found * weight).sum(), x)
    want, seen = mg.zeros(3, 3), set()
    for i in range(9 if dim is None else 3):                # of each group, the first place
        group = inverse.reshape(-1)[i].item()
        if group not in seen:
            seen.add(group)
            if dim is None:
                want.view(-1)[i] = weight[group]
            else:
                want.select(dim, i).copy_(weight.select(dim, group))
    assert grad.tolist() == want.tolist()


def test_the_weights_of_a_count_have_a_gradient():
    w = mg.tensor([1.0, 2.0, 4.0], requires_grad=True)
    grad, = autograd.grad((mg.bincount(mg.tensor([1, 0, 1]), w) * mg.tensor([3.0, 5.0])).sum(), w)
    assert grad.tolist() == [5, 3, 5]
    x = mg.tensor([0.1, 0.9, 5.0])
    for hist in (mg.histogram(x, 2, range=(0, 1), weight=w).hist, mg.histogramdd(x[:, None], 2, range=(0, 1), weight=w).hist):
        assert hist.tolist() == [1, 2]
        assert autograd.grad((hist * mg.tensor([3.0, 5.0])).sum(), w)[0].tolist() == [3, 5, 0]
