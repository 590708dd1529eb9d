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
        (lambda: nn.Embedding(4, 3, 4), AssertionError, "padding_idx"),
        (lambda: nn.Embedding(4, 3, _weight=mg.zeros(3, 3)), AssertionError, "num_embeddings"),
        (lambda: F.embedding(mg.tensor([0]), mg.zeros(3)), RuntimeError, "two dimensions"),
        (lambda: nn.Embedding.from_pretrained(mg.zeros(3)), AssertionError, "two dimensions"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"max_norm": 0.9}, {"include_last_offset": True}], ids=str)
@pytest.mark.parametrize("offsets", [None, [0, 2, 2, 6], [0, 0, 6]], ids=str)
def test_embedding_bag_is_torchs(torch, mode, options, offsets):
    if offsets is None and "include_last_offset" in options:
        pytest.skip("no such option")
    index = np.array([1, 2, 2, 4, 0, 2])
    index = index.reshape(2, 3) if offsets is None else index
    weights = RNG(1).standard_normal(index.shape)
    for weighted in (False, True) if mode == "sum" else (False,):
        other, ours = torch.nn.EmbeddingBag(5, 3, mode=mode, **options).double(), nn.EmbeddingBag(5, 3, mode=mode, **options).double()
        ours.load_state_dict({k: mg.tensor(v.numpy().copy()) for k, v in other.state_dict().items()})
        assert repr(ours) == repr(other)
        found = []
        for lib, layer in ((mg, ours), (torch, other)):
            w = lib.tensor(weights, requires_grad=True) if weighted else None
            y = layer(lib.tensor(index), None if offsets is None else lib.tensor(offsets), w)
            (y * y).sum().backward()
            found.append([y, layer.weight.grad, layer.weight, *([w.grad] if weighted else [])])
        for a, b in zip(*found, strict=True):
            same(a, b, 1e-9)


def test_embedding_bag_from_given_values_and_refusals():
    table = mg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    bag = nn.EmbeddingBag.from_pretrained(table, mode="sum")
    assert bag(mg.tensor([[0, 2]])).tolist() == [[6.0, 8.0]] and not bag.weight.requires_grad
    assert nn.EmbeddingBag(3, 2, padding_idx=-1).weight[2].tolist() == [0.0, 0.0]
    for mode in ("sum", "mean", "max"):                                 # bags that are all empty are in the graph, too
        empty = nn.EmbeddingBag(3, 2, mode=mode)
        empty(mg.tensor([], dtype=mg.int64), mg.tensor([0, 0])).sum().backward()
        assert empty.weight.grad.tolist() == [[0.0, 0.0]] * 3
    index, offsets = mg.tensor([0, 1, 2]), mg.tensor([0, 1])
    last = nn.EmbeddingBag.from_pretrained(table, include_last_offset=True)
    assert mg.equal(last(index, mg.tensor([0, 1, 1])), last(index, mg.tensor([0, 1, 3])))       # it stands for the length
    for bad, error, text in ((lambda: bag(index), ValueError, "which needs them"), (lambda: bag(index.reshape(1, 3), offsets), ValueError, "which needs them"),
                             (lambda: bag(index, offsets.reshape(1, 2)), ValueError, "1D Tensor"), (lambda: bag(index, mg.tensor([1, 2])), RuntimeError, "has to be 0"),
                             (lambda: bag(index, mg.tensor([0, 2, 1])), RuntimeError, "must not fall"), (lambda: bag(index, mg.tensor([0, 4])), RuntimeError, "larger than the length"),
                             (lambda: bag(index, offsets, mg.ones(3, dtype=mg.float64)), RuntimeError, "must have the dtype of weight"),
                             (lambda: bag(index, offsets, mg.ones(2)), ValueError, "same shape as the input"), (lambda: bag(index + 1, offsets), IndexError, "out of range"),
                             (lambda: F.embedding_bag(index, table, offsets, mode="prod"), ValueError, "sum, mean or max"),
                             (lambda: F.embedding_bag(index, table, offsets, mode="max", scale_grad_by_freq=True), ValueError, "max mode"),
                             (lambda: F.embedding_bag(index, table, offsets, mode="mean", per_sample_weights=mg.ones(3)), NotImplementedError, "mode='sum' only"),
                             (lambda: nn.EmbeddingBag(3, 2, padding_idx=3), AssertionError, "padding_idx"), (lambda: nn.EmbeddingBag.from_pretrained(mg.ones(3)), AssertionError, "two dimensions")):
        with pytest.raises(error, match=text):
            bad()


def test_embedding_bag_divides_gradients_by_how_often_a_row_comes():
    """As `Embedding` does; PyTorch's division on the CPU takes the counts of other rows."""
    table, index = mg.tensor(RNG(0).standard_normal((5, 3))), mg.tensor([[1, 2, 2], [4, 0, 2]])
    one, two = table.clone().requires_grad_(), table.clone().requires_grad_()
    weight = mg.tensor(RNG(1).standard_normal((2, 3)))
    (F.embedding_bag(index, one, scale_grad_by_freq=True, mode="sum") * weight).sum().backward()
    (F.embedding(index, two, scale_grad_by_freq=True).sum(1) * weight).sum().backward()
    np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), rtol=1e-12)
    assert np.allclose(one.grad.numpy()[4], weight.numpy()[1])


def test_sparse_gradients_are_dense(torch):
    found = []
    for lib in (mg, torch):
        layer = lib.nn.Embedding(5, 2, sparse=True)
        assert layer.sparse and "sparse=True" in repr(layer)
        (layer(lib.tensor([1, 3, 1])) * lib.tensor([[1.0, 2.0]])).sum().backward()
        found.append(layer.weight.grad.to_dense().numpy() if lib is torch else layer.weight.grad.numpy())
    np.testing.assert_array_equal(*found)
    bags = [nn.EmbeddingBag.from_pretrained(mg.eye(3), sparse=sparse)(mg.tensor([[0, 1]])).tolist() for sparse in (True, False)]
    assert bags[0] == bags[1]
