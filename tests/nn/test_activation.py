"""Activations: in place, and what they say."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def tensor(*shape, seed=0, grad=False):
    return mg.tensor(array(*shape, seed=seed), requires_grad=grad)


IN_PLACE = {"relu": lambda n: n.ReLU(inplace=True), "leaky": lambda n: n.LeakyReLU(0.2, True), "elu": lambda n: n.ELU(0.5, True),
            "selu": lambda n: n.SELU(True), "celu": lambda n: n.CELU(0.7, True), "silu": lambda n: n.SiLU(True), "threshold": lambda n: n.Threshold(0.1, 2.0, True), "rrelu": lambda n: n.RReLU(0.1, 0.3, True).eval(), "mish": lambda n: n.Mish(True),
            "hardtanh": lambda n: n.Hardtanh(inplace=True), "relu6": lambda n: n.ReLU6(True), "hardswish": lambda n: n.Hardswish(True),
            "hardsigmoid": lambda n: n.Hardsigmoid(True)}


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_activations_in_a_graph(torch, case):
    """The input holds the result from then on; gradients of orders 1 and 2 flow through it."""
    values = np.linspace(-4, 4, 24).reshape(4, 6).astype("float64")
    found = []
    for m, n in ((torch, torch.nn), (mg, nn)):
        x = m.tensor(values, requires_grad=True)
        y = x * 1.5
        z = IN_PLACE[case](n)(y)
        assert z is y and not y.is_leaf
        g, = m.autograd.grad((y * z).sum(), x, create_graph=True)
        h = g if case == "hardsigmoid" else m.autograd.grad((g ** 2).sum(), x)[0]       # PyTorch has no second derivative of it
        found.append([t.detach().numpy() for t in (y, g, h)])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("before", [lambda n: n.Linear(6, 6), lambda n: n.BatchNorm1d(6), lambda n: n.LayerNorm(6),
                                    lambda n: n.Conv1d(1, 1, 3, padding=1), lambda n: n.AvgPool1d(2), lambda n: n.GroupNorm(1, 6)])
def test_in_place_behind_a_layer(torch, before):
    """What the layers keep for their backward is not the memory that is overwritten."""
    conv = before(nn).__class__.__name__ in ("Conv1d", "AvgPool1d")
    values = np.random.default_rng(0).normal(size=(4, 1, 6) if conv else (4, 6)).astype("float32")
    theirs, ours = (n.Sequential(before(n), n.ReLU(inplace=True), n.Dropout(0.0, inplace=True)) for n in (torch.nn, nn))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    found = []
    for m, net in ((torch, theirs), (mg, ours)):
        x = m.tensor(values, requires_grad=True)
        net(x).square().sum().backward()
        found.append([x.grad.numpy(), *(p.grad.numpy() for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_in_place_options():
    x = tensor(3)
    with mg.no_grad():
        assert nn.ReLU(inplace=True)(x) is x and (x >= 0).all()
    y = tensor(3, grad=True) * 2
    product = y * y
    nn.ReLU(inplace=True)(y)
    with pytest.raises(RuntimeError, match="modified by an inplace"):      # its old values were needed
        product.sum().backward()
    with pytest.raises(RuntimeError, match="leaf"):
        nn.ReLU(inplace=True)(tensor(3, grad=True))
    x = mg.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = x * 2
    nn.ReLU(inplace=True)(y[1:])
    y.sum().backward()
    assert y.tolist() == [2, 0, 6] and x.grad.tolist() == [2, 0, 2]


def test_softmax_without_dim_warns():
    with pytest.warns(UserWarning, match="Implicit dimension"):
        assert nn.Softmax()(mg.ones(2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_gumbel_softmax_draws_by_the_logits():
    mg.manual_seed(0)
    logits = mg.tensor([1.0, 2.0, 0.0]).expand(20000, 3)
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True)
    expected = np.exp([1, 2, 0]) / np.exp([1, 2, 0]).sum()
    np.testing.assert_allclose(np.sort(hard.numpy(), 1), np.tile([0, 0, 1], (20000, 1)), atol=1e-6)
    np.testing.assert_allclose(hard.numpy().mean(0), expected, atol=0.015)
    x = mg.randn(4, 3, requires_grad=True)
    mg.manual_seed(1)
    soft = F.gumbel_softmax(x, dim=0)
    np.testing.assert_allclose(soft.detach().numpy().sum(0), 1, rtol=1e-6)
    weight = mg.randn(4, 3)
    (soft * weight).sum().backward()
    first, x.grad = x.grad, None
    mg.manual_seed(1)
    (F.gumbel_softmax(x, hard=True, dim=0) * weight).sum().backward()
    assert np.array_equal(x.grad.numpy(), first.numpy()) and first.numpy().any()       # the gradient is that of the softmax


def test_rrelu_in_training():
    mg.manual_seed(0)
    x = mg.full((10000,), -1.0, requires_grad=True)
    y = nn.RReLU(0.1, 0.3)(x)
    values = -y.detach().numpy()
    assert values.min() >= 0.1 and values.max() <= 0.3 and abs(values.mean() - 0.2) < 0.002 and values.std() > 0.05
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), values, rtol=1e-6)
    z = mg.full((5,), -1.0)
    assert F.rrelu(z, 0.1, 0.3, True, True) is z and (z.numpy() > -0.3).all()
    for lower, upper in ((0.5, 0.1), (-np.inf, 0.1), (0.1, np.inf), (np.nan, 0.1)):
        with pytest.raises(RuntimeError, match="finite numbers lower <= upper"):
            F.rrelu(z, lower, upper, True)


@pytest.mark.parametrize(("name", "args"), [("relu", ()), ("elu", (0.5,)), ("selu", ()), ("celu", (0.5,)), ("leaky_relu", (0.2,)),
                                            ("rrelu", (0.3, 0.3)), ("hardtanh", (-0.5, 0.5)), ("threshold", (0.1, 7.0)), ("silu", ())])
def test_functions_that_change_their_argument(name, args):
    x = mg.linspace(-2, 2, 9)
    y = x.clone()
    assert getattr(nn.functional, name + "_")(y, *args) is y
    assert mg.equal(y, getattr(nn.functional, name)(x, *args))
    for wrong in ("tanh_", "gelu_", "none_", "_"):
        with pytest.raises(AttributeError, match=wrong):
            getattr(nn.functional, wrong)
