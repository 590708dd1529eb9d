"""Every layer against PyTorch's: text, state dict, values, gradients, running statistics."""
from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


# One constructor for both libraries: the rows of the tests below. `n` is minigrad.nn or torch.nn.
LAYERS = {
    "linear": lambda n: n.Linear(4, 3), "linear, no bias": lambda n: n.Linear(4, 3, bias=False), "identity": lambda n: n.Identity(3, a=4),
    "flatten": lambda n: n.Flatten(), "unflatten": lambda n: n.Unflatten(1, (2, 2)), "dropout": lambda n: n.Dropout(0.2),
    "dropout2d": lambda n: n.Dropout2d(0.3, inplace=True), "layer": lambda n: n.LayerNorm(4),
    "layer, no bias": lambda n: n.LayerNorm((2, 4), 1e-3, bias=False), "layer, plain": lambda n: n.LayerNorm(4, elementwise_affine=False),
    "rms": lambda n: n.RMSNorm(4), "rms, plain": lambda n: n.RMSNorm((4,), 1e-5, False), "group": lambda n: n.GroupNorm(2, 4),
    "group, no bias": lambda n: n.GroupNorm(2, 4, 1e-4, bias=False), "group, plain": lambda n: n.GroupNorm(1, 4, affine=False),
    "batch": lambda n: n.BatchNorm1d(4), "batch2": lambda n: n.BatchNorm2d(4, momentum=None),
    "batch3": lambda n: n.BatchNorm3d(4, bias=False), "batch, plain": lambda n: n.BatchNorm1d(4, 1e-3, 0.2, False, False),
    "instance": lambda n: n.InstanceNorm1d(4), "instance2": lambda n: n.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "instance3": lambda n: n.InstanceNorm3d(4, affine=True, bias=False), "relu": lambda n: n.ReLU(),
    "relu in place": lambda n: n.ReLU(inplace=True), "leaky": lambda n: n.LeakyReLU(0.2), "elu": lambda n: n.ELU(0.5, True),
    "celu": lambda n: n.CELU(), "selu": lambda n: n.SELU(), "gelu": lambda n: n.GELU("tanh"), "silu": lambda n: n.SiLU(),
    "mish": lambda n: n.Mish(), "softplus": lambda n: n.Softplus(2.0), "softsign": lambda n: n.Softsign(),
    "sigmoid": lambda n: n.Sigmoid(), "tanh": lambda n: n.Tanh(), "hardtanh": lambda n: n.Hardtanh(-2.0, 2.0),
    "relu6": lambda n: n.ReLU6(), "hardswish": lambda n: n.Hardswish(), "hardsigmoid": lambda n: n.Hardsigmoid(),
    "glu": lambda n: n.GLU(1), "prelu": lambda n: n.PReLU(4), "softmax": lambda n: n.Softmax(1),
    "log_softmax": lambda n: n.LogSoftmax(dim=-1), "logsigmoid": lambda n: n.LogSigmoid(), "mse": lambda n: n.MSELoss(reduction="sum"),
    "l1": lambda n: n.L1Loss(), "huber": lambda n: n.HuberLoss(), "smooth": lambda n: n.SmoothL1Loss(),
    "ce": lambda n: n.CrossEntropyLoss(label_smoothing=0.1), "nll": lambda n: n.NLLLoss(), "bce": lambda n: n.BCELoss(),
    "bcel": lambda n: n.BCEWithLogitsLoss(), "kl": lambda n: n.KLDivLoss(reduction="batchmean"),
    "tree": lambda n: n.Sequential(OrderedDict(a=n.Linear(2, 3), b=n.Sequential(n.BatchNorm1d(3), n.ReLU()))),
    "list": lambda n: n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.ReLU(), n.Linear(2, 2)]),
    "dict": lambda n: n.ModuleDict({"x": n.Linear(2, 2), "y": n.Sequential()}), "empty": lambda n: n.ModuleList(),
}
INPUTS = {"linear": (5, 4), "linear, no bias": (2, 3, 4), "flatten": (2, 3, 4), "unflatten": (3, 4), "layer": (3, 4),
          "layer, no bias": (5, 2, 4), "layer, plain": (3, 4), "rms": (3, 4), "rms, plain": (2, 3, 4), "group": (3, 4, 5),
          "group, no bias": (3, 4, 2, 2), "group, plain": (3, 4, 5), "batch": (6, 4), "batch2": (3, 4, 2, 3), "batch3": (2, 4, 2, 2, 2),
          "batch, plain": (4, 4, 3), "instance": (2, 4, 6), "instance2": (2, 4, 3, 3), "instance3": (4, 2, 2, 3), "glu": (3, 4),
          "prelu": (3, 4, 2)}
ACTIVATIONS = ["relu", "leaky", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "sigmoid", "tanh", "hardtanh", "relu6",
               "hardswish", "hardsigmoid", "softmax", "log_softmax", "logsigmoid"]


@pytest.mark.parametrize("name", LAYERS)
def test_text_and_state_dicts_are_pytorchs(torch, name):
    mine, theirs = LAYERS[name](nn), LAYERS[name](torch.nn)
    assert repr(mine) == repr(theirs)
    ours, other = mine.state_dict(), theirs.state_dict()
    assert list(ours) == list(other) and ours._metadata == other._metadata
    assert [tuple(v.shape) for v in ours.values()] == [tuple(v.shape) for v in other.values()]
    assert [str(v.dtype) for v in ours.values()] == [str(v.dtype).removeprefix("torch.") for v in other.values()]
    assert str(mine.load_state_dict(other)) == str(theirs.load_state_dict(other))
    assert all(np.array_equal(v.numpy(), other[k].numpy()) for k, v in mine.state_dict().items())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in mine.named_modules()] == [n for n, _ in theirs.named_modules()]


@pytest.mark.parametrize("name", [*INPUTS, "identity", *ACTIVATIONS])
@pytest.mark.parametrize("training", [True, False])
def test_layers_are_pytorchs(torch, name, training):
    mine, theirs = LAYERS[name](nn), LAYERS[name](torch.nn)
    shape = INPUTS.get(name, (3, 4))
    for i, p in enumerate(theirs.parameters()):
        p.data = torch.tensor(array(*p.shape, seed=7 + i))
    mine.load_state_dict(theirs.state_dict())
    for step in range(3):
        x = array(*shape, seed=step)
        a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        mine.train(training or step < 2), theirs.train(training or step < 2)
        ya, yb = mine(a), theirs(b)
        g = array(*yb.shape, seed=20 + step)
        ya.backward(mg.tensor(g)), yb.backward(torch.tensor(g))
        np.testing.assert_allclose(ya.detach().numpy(), yb.detach().numpy(), rtol=3e-5, atol=2e-6)
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=3e-5, atol=5e-6)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=3e-5, atol=1e-5)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)
