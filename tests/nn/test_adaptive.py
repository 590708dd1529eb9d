"""Adaptive softmax."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


@pytest.mark.filterwarnings("ignore:Initializing zero-element")            # the third cluster's projection has none, as PyTorch's
@pytest.mark.parametrize("options", [{}, {"head_bias": True, "div_value": 2.0}], ids=str)
def test_adaptive_softmax_is_torchs(torch, options):
    mine, theirs = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10, 11], **options), torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10, 11], **options)
    mine.load_state_dict({k: mg.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    draw = np.random.default_rng(0)
    for target in (np.array([0, 5, 19, 3, 10, 7]), np.array([1, 2]), np.array(12)):
        x, found = draw.standard_normal((*target.shape, 8)).astype(np.float32), []
        for lib, layer in ((mg, mine), (torch, theirs)):
            layer.zero_grad()
            out = layer(lib.tensor(x, requires_grad=True), lib.tensor(target))
            out.loss.backward()
            found.append([out[0], out.loss, *[p.grad for p in layer.parameters() if p.grad is not None and lib.any(p.grad != 0)]])
        for a, b in zip(*found, strict=True):
            assert tuple(a.shape) == tuple(b.shape)
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)
    x = draw.standard_normal((50, 8)).astype(np.float32) * 3
    whole = mine.log_prob(mg.tensor(x))
    np.testing.assert_allclose(whole.detach().numpy(), theirs.log_prob(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mine.predict(mg.tensor(x)).numpy(), theirs.predict(torch.tensor(x)).numpy())
    np.testing.assert_allclose(whole.exp().sum(1).detach().numpy(), 1, rtol=1e-5)
    assert repr(mine) == repr(theirs)


def test_adaptive_softmax_refuses():
    for cutoffs in ([], [4, 4], [10, 4], [0, 4], [20], [2.5]):
        with pytest.raises(ValueError, match="increasing order"):
            nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs)
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4])
    before = layer.head.weight.detach().clone()
    layer.reset_parameters()
    assert not mg.equal(before, layer.head.weight)
    for x, target in ((mg.zeros(2, 8), mg.tensor([1])), (mg.zeros(8), mg.tensor([1])), (mg.zeros(1, 8), mg.tensor(1)), (mg.zeros(2, 16), mg.tensor([0, 1])), (mg.zeros(2, 8), mg.tensor([0, 20])), (mg.zeros(2, 8), mg.tensor([0, -1]))):
        with pytest.raises(RuntimeError, match="AdaptiveLogSoftmaxWithLoss"):
            layer(x, target)
