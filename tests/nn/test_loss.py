"""Losses."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


LOSSES = [("MSELoss", {}), ("L1Loss", {}), ("SmoothL1Loss", {"beta": 0.5}), ("SmoothL1Loss", {"beta": 0.0}), ("HuberLoss", {"delta": 0.7}),
          ("BCELoss", {}), ("BCEWithLogitsLoss", {}), ("KLDivLoss", {}), ("KLDivLoss", {"log_target": True}),
          ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 1}), ("NLLLoss", {"ignore_index": 2})]
WEIGHTED = ("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "options"), LOSSES)
@pytest.mark.filterwarnings("ignore:reduction")
def test_losses_are_pytorchs(torch, name, options, reduction, weighted):
    if (reduction == "batchmean" and name != "KLDivLoss") or (weighted and name not in WEIGHTED):
        pytest.skip("no such option")
    x, target = array(5, 4), 1 / (1 + np.exp(-array(5, 4, seed=1)))
    if name in ("CrossEntropyLoss", "NLLLoss"):
        target = np.array([0, 1, 3, 2, 3])
    if name == "BCELoss":
        x = 1 / (1 + np.exp(-x))
    weight = np.array([0.5, 1.0, 2.0, 0.25], np.float32) if weighted else None
    results = []
    for n, make in ((nn, mg.tensor), (torch.nn, torch.tensor)):
        w = {"weight": make(weight)} if weighted else {}
        t = make(x, requires_grad=True)
        loss = getattr(n, name)(reduction=reduction, **options, **w)(t, make(target))
        loss.sum().backward()
        results.append((loss.detach().numpy(), t.grad.numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_weighted_regression_losses(torch):
    x, y, w = array(3, 4), array(3, 4, seed=1), abs(array(3, 4, seed=2))
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        for reduction in ("none", "mean", "sum"):
            a = getattr(F, name)(mg.tensor(x), mg.tensor(y), reduction=reduction, weight=mg.tensor(w))
            b = getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor(y), reduction=reduction, weight=torch.tensor(w))
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="same size"):
        F.mse_loss(mg.tensor(x), mg.tensor(y), weight=mg.ones(3))
    with pytest.warns(UserWarning, match="target size"):
        assert F.mse_loss(mg.zeros(3, 4), mg.ones(4)).item() == 1.0
    with pytest.warns(UserWarning, match="reduction='sum'"):
        assert F.mse_loss(mg.zeros(3, 4), mg.ones(3, 4), size_average=False).item() == 12.0
    for reduction in ("batchmean", "average"):
        with pytest.raises(ValueError, match="not a valid value for reduction"):
            F.mse_loss(mg.tensor(x), mg.tensor(y), reduction=reduction)


@pytest.mark.parametrize("bad", [-0.5, 1.5, np.nan, np.inf])
def test_binary_cross_entropy_takes_probabilities_only(bad):
    good = np.full(300, 0.5, np.float32)
    for place in (0, 255, 299):
        wrong = good.copy()
        wrong[place] = bad
        with pytest.raises(RuntimeError, match="all elements of input should be between 0 and 1"):
            F.binary_cross_entropy(mg.tensor(wrong), mg.tensor(good))
        with pytest.raises(RuntimeError, match="all elements of target should be between 0 and 1"):
            nn.BCELoss()(mg.tensor(good), mg.tensor(wrong))
    assert F.binary_cross_entropy(mg.tensor([0.0, 1.0]), mg.tensor([0.0, 1.0])).item() == 0


def test_binary_cross_entropy_checks_in_a_captured_step():
    step = mg.capture(lambda x, t: F.binary_cross_entropy(x, t))
    assert step(mg.tensor([0.5]), mg.tensor([1.0])).item() == pytest.approx(np.log(2))
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        step(mg.tensor([1.5]), mg.tensor([1.0]))


@pytest.mark.parametrize("path", ["auto", "off"])
def test_0_log_0_is_0(path):
    with set_fused(path):
        x = mg.tensor([[-np.inf, 0.0]], requires_grad=True)
        loss = F.cross_entropy(x, mg.tensor([[0.0, 1.0]]))
        loss.backward()
        assert loss.item() == 0 and x.grad.tolist() == [[0, 0]]
        assert F.cross_entropy(mg.tensor([[-np.inf, 0.0]]), mg.tensor([[0.5, 0.5]])).item() == np.inf
        x = mg.tensor([-np.inf, 0.0], requires_grad=True)
        loss = F.kl_div(x, mg.tensor([0.0, 1.0]), reduction="sum")
        loss.backward()
        assert loss.item() == 0 and x.grad.tolist() == [0, -1]
        assert F.kl_div(mg.tensor([-np.inf, 0.0]), mg.tensor([-np.inf, 0.0]), reduction="sum", log_target=True).item() == 0
        assert F.kl_div(mg.tensor([0.0]), mg.tensor([-1.0]), reduction="sum").isnan()


def test_weights_have_the_dtype_of_the_input():
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(RuntimeError, match="weight must have the input's dtype"):
            loss(mg.zeros(2, 3), mg.tensor([0, 1]), weight=mg.ones(3, dtype=mg.float64))


def test_a_target_of_another_size_is_told():
    with pytest.warns(UserWarning, match=r"target size \(3,\) differs .* Please ensure they have the same size\."):
        nn.functional.mse_loss(mg.ones(3, 1), mg.ones(3))


def test_an_ignored_item_loses_0_and_not_minus_0():
    x, target = mg.tensor([[1.0, 0.0]]), mg.tensor([-100])
    for weight in (None, mg.ones(2)):
        for loss in (F.nll_loss, F.cross_entropy):
            assert not np.signbit(loss(x, target, weight, reduction="none").numpy()).any()


def test_labels_may_be_bytes():
    x = mg.randn(2, 3)
    for f in (F.cross_entropy, F.nll_loss):
        assert mg.equal(f(x, mg.tensor([0, 2], dtype=mg.uint8)), f(x, mg.tensor([0, 2])))
