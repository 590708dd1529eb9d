"""CTC; the sum over all paths is the op's reference in `nn/ctc.py`."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F

LENGTHS = [((9, 9, 9), (4, 2, 3)), ((9, 5, 7), (4, 2, 0)), ((2, 0, 0), (4, 2, 0))]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("inputs", "lengths"), LENGTHS)
def test_losses_and_gradients_of_logits_are_pytorchs(torch, inputs, lengths, joined, reduction):
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((9, 3, 5)), draw.integers(1, 5, (3, 4))
    y[0, 1] = y[0, 0]                                   # a label twice needs a blank between
    if joined:
        y = np.concatenate([row[:n] for row, n in zip(y, lengths, strict=True)])
    found = []
    for lib, functions in ((mg, F), (torch, torch.nn.functional)):
        leaf = lib.tensor(x, requires_grad=True)
        loss = functions.ctc_loss(functions.log_softmax(leaf, 2), lib.tensor(y), inputs, lengths, reduction=reduction, zero_infinity=True)
        loss.sum().backward()
        found.append((loss.detach().numpy(), leaf.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_is_infinite():
    x = F.log_softmax(mg.randn(3, 2, 4), 2).requires_grad_()
    y = mg.tensor([[1, 1], [2, 3]])                     # the first needs a blank: 3 steps, and has 2
    loss = F.ctc_loss(x, y, (2, 3), (2, 2), reduction="none")
    assert mg.isinf(loss).tolist() == [True, False]
    F.ctc_loss(x, y, (2, 3), (2, 2), reduction="sum", zero_infinity=True).backward()
    assert not x.grad[:, 0].any() and x.grad[:, 1].any() and mg.isfinite(x.grad).all()


def test_a_captured_loss():
    draw = np.random.default_rng(0)
    captured = mg.capture(lambda x, y: F.ctc_loss(F.log_softmax(x, 2), y, (5, 4), (2, 1)))
    for seed in range(3):
        x, y = mg.tensor(draw.standard_normal((5, 2, 4))), mg.tensor(draw.integers(1, 4, (2, 2)))
        assert captured(x, y).item() == F.ctc_loss(F.log_softmax(x, 2), y, (5, 4), (2, 1)).item(), seed
