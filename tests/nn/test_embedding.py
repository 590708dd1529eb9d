"""Embedding: against torch, from given values, refusals."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F

RNG = np.random.default_rng


def same(ours, other, tolerance, where=""):
    np.testing.assert_allclose(ours.numpy(force=True), other.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=where)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"padding_idx": -1, "scale_grad_by_freq": True}, {"max_norm": 1.0},
                                     {"max_norm": 0.7, "norm_type": 1.0, "padding_idx": 0}], ids=str)
@pytest.mark.parametrize("index", [np.array([[1, 2, 2], [4, 0, 2]]), np.array(3), np.zeros((0, 2), np.int64), np.array([1, 1], np.int32)], ids=str)
def test_embedding_is_torchs(torch, options, index):
    other, ours = torch.nn.Embedding(5, 3, **options).double(), nn.Embedding(5, 3, **options).double()
    assert repr(ours) == repr(other) and list(ours.state_dict()) == list(other.state_dict())
    ours.load_state_dict({"weight": other.weight.detach().numpy().copy()})
    y, z = ours(mg.tensor(index)), other(torch.tensor(index))
    same(y, z, 1e-12)
    same(ours.weight, other.weight, 1e-12)
    (y * y).sum().backward()
    (z * z).sum().backward()
    same(ours.weight.grad, other.weight.grad, 1e-12)


def test_embedding_from_pretrained_and_refusals():
    values = RNG(10).standard_normal((4, 3))
    frozen, free = nn.Embedding.from_pretrained(mg.tensor(values)), nn.Embedding.from_pretrained(mg.tensor(values), freeze=False)
    assert not frozen.weight.requires_grad and free.weight.requires_grad
    np.testing.assert_array_equal(frozen(mg.tensor([3, 1])).numpy(), values[[3, 1]])
    padded = nn.Embedding(50, 40, padding_idx=-1)
    assert not padded.weight[49].numpy(force=True).any() and abs(padded.weight.numpy(force=True)[:49].std() - 1) < 0.1
    cases = [
        (lambda: padded(mg.tensor([50])), IndexError, "index 50 is out of range"), (lambda: padded(mg.tensor([-1])), IndexError, "index -1"),
        (lambda: padded(mg.tensor([0.5])), RuntimeError, "int32 or int64"), (lambda: padded([1]), TypeError, "input must be a Tensor"),
        (lambda: nn.Embedding(4, 3, sparse=True), NotImplementedError, "sparse"), (lambda: nn.Embedding(4, 3, 4), AssertionError, "padding_idx"),
        (lambda: nn.Embedding(4, 3, _weight=mg.zeros(3, 3)), AssertionError, "num_embeddings"),
        (lambda: F.embedding(mg.tensor([0]), mg.zeros(3)), RuntimeError, "two dimensions"),
        (lambda: F.embedding(mg.tensor([0]), mg.zeros(3, 2), sparse=True), NotImplementedError, "sparse"),
        (lambda: nn.Embedding.from_pretrained(mg.zeros(3)), AssertionError, "two dimensions"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()
