"""`parametrize`: parameters that are computed each time they are read."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn.utils import parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


class Exp(nn.Module):
    def forward(self, x):
        return x.exp()

    def right_inverse(self, y):
        return y.log()


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b

    def right_inverse(self, y):
        return y * 0.25, y * 0.75


def test_a_parameter_is_computed():
    mg.manual_seed(0)
    layer = nn.Linear(3, 3)
    weight, before = layer.weight, layer.weight.detach().clone()
    o = optim.SGD(layer.parameters(), lr=0.1)                   # made before: the parameter stays the same object
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight") and not parametrize.is_parametrized(layer, "bias")
    assert layer.parametrizations.weight.original is weight and type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert parametrize.type_before_parametrizations(layer) is nn.Linear and list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    w = layer.weight.detach().numpy()
    assert np.array_equal(w, w.T) and np.array_equal(np.triu(w), np.triu(before.numpy()))
    (layer(mg.randn(4, 3)) ** 2).sum().backward()
    o.step()
    w = layer.weight.detach().numpy()
    assert np.array_equal(w, w.T) and not np.array_equal(np.triu(w), np.triu(before.numpy()))
    twin = copy.deepcopy(layer)
    assert mg.equal(twin.weight, layer.weight) and twin.parametrizations.weight.original is not weight
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        layer.weight = mg.eye(3)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight is weight and np.array_equal(weight.detach().numpy(), w) and list(layer.state_dict()) == ["bias", "weight"]
    parametrize.remove_parametrizations(twin, "weight", leave_parametrized=False)
    assert not np.array_equal(twin.weight.detach().numpy(), w)
    assert not parametrize.is_parametrized(layer)


def test_inverses_and_chains():
    layer = nn.Linear(2, 2)
    with mg.no_grad():
        layer.weight.copy_(mg.tensor([[1.0, 2.0], [2.0, 3.0]]))
    parametrize.register_parametrization(layer, "weight", Exp())
    np.testing.assert_allclose(layer.weight.tolist(), [[1, 2], [2, 3]], rtol=1e-6)
    np.testing.assert_allclose(layer.parametrizations.weight.original.tolist(), np.log([[1, 2], [2, 3]]), rtol=1e-6)
    layer.weight = mg.tensor([[5.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(layer.weight.tolist(), [[5, 1], [1, 1]], rtol=1e-6)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    assert len(layer.parametrizations.weight) == 2 and layer.weight.tolist()[0][1] == layer.weight.tolist()[1][0]
    other = nn.Linear(2, 2)
    value = other.weight.detach().clone()
    parametrize.register_parametrization(other, "weight", Sum())
    assert list(dict(other.named_parameters())) == ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    np.testing.assert_allclose(other.weight.detach().numpy(), value.numpy(), rtol=1e-6)
    other.weight = value * 2
    np.testing.assert_allclose(other.parametrizations.weight.original1.detach().numpy(), 1.5 * value.numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be left unparametrized"):
        parametrize.remove_parametrizations(other, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(other, "weight")
    assert isinstance(other.weight, nn.Parameter) and other.weight.requires_grad
    norm = nn.BatchNorm1d(3)
    parametrize.register_parametrization(norm, "running_mean", Exp(), unsafe=True)
    parametrize.remove_parametrizations(norm, "running_mean")
    assert "running_mean" in norm._buffers


def test_cached():
    counts = []

    class Counting(nn.Module):
        def forward(self, x):
            counts.append(1)
            return x * 2
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Counting())
    counts.clear()
    with parametrize.cached():
        assert layer.weight is layer.weight
        with parametrize.cached():
            assert layer.weight is not None
    assert len(counts) == 1 and layer.weight is not layer.weight and len(counts) == 3


def test_refusals():
    class Half(nn.Module):
        def forward(self, x):
            return x[:1]

    class Number(nn.Module):
        def forward(self, x):
            return 3.0

    class Wide(nn.Module):
        def forward(self, x):
            return x

        def right_inverse(self, x):
            return x.double()

    class Odd(Wide):
        def right_inverse(self, x):
            return 5
    layer = nn.Linear(2, 2)
    for bad, text in ((lambda: parametrize.register_parametrization(layer, "w", Exp()), "no parameter, buffer"), (lambda: parametrize.register_parametrization(layer, "weight", Half()), "may not change dtype or shape"),
                      (lambda: parametrize.register_parametrization(layer, "weight", Number()), "must return a tensor"), (lambda: parametrize.register_parametrization(layer, "weight", Wide()), "may not change dtype or device"),
                      (lambda: parametrize.register_parametrization(layer, "weight", Odd()), "Tensor or a sequence"), (lambda: parametrize.remove_parametrizations(layer, "weight"), "no parametrization"),
                      (lambda: parametrize.ParametrizationList([], layer.weight), "one or more modules")):
        with pytest.raises(ValueError, match=text):
            bad()
    assert list(layer.state_dict()) == ["weight", "bias"] and type(layer) is nn.Linear
    parametrize.register_parametrization(layer, "weight", Half(), unsafe=True)
    assert layer.weight.shape == (1, 2)


class Skew(nn.Module):
    def forward(self, x):
        return x.triu(1) - x.triu(1).mT

    def right_inverse(self, x):
        assert mg.allclose(x, -x.mT)
        return x.triu(1)


class Cayley(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("base", mg.eye(n))

    def forward(self, x):
        one = mg.eye(x.shape[0])
        return self.base @ mg.linalg.solve(one + x, one - x)

    def right_inverse(self, x):
        assert mg.allclose(x.mT @ x, mg.eye(x.shape[0]), atol=1e-4)
        self.base = x
        return mg.zeros_like(x)


def test_a_second_parametrization_is_asked_for_the_inverse_of_what_it_gives():
    layer = nn.Linear(4, 4)
    with mg.no_grad():
        layer.weight.copy_(Skew()(layer.weight))
    parametrize.register_parametrization(layer, "weight", Skew())
    parametrize.register_parametrization(layer, "weight", Cayley(4))    # the skew matrix itself is not orthogonal
    x = nn.init.orthogonal_(mg.empty(4, 4))
    layer.weight = x
    assert mg.allclose(layer.weight, x, atol=1e-5) and mg.equal(layer.parametrizations.weight.original, mg.zeros(4, 4))


def test_copies_are_parametrized_and_pickles_are_refused():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    x = mg.ones(1, 3)
    for twin in (copy.copy(layer), copy.deepcopy(layer), copy.deepcopy(nn.Sequential(layer))[0]):
        assert parametrize.is_parametrized(twin, "weight") and mg.equal(twin(x), layer(x))
        assert isinstance(twin, nn.Linear)
    assert copy.copy(layer).parametrizations is layer.parametrizations is not copy.deepcopy(layer).parametrizations
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(RuntimeError, match=r"cannot be pickled; save its state_dict\(\)"):
            pickle.dumps(nn.Sequential(layer), protocol)
    square = parametrize.register_parametrization(nn.Linear(3, 3), "weight", nn.Tanh(), unsafe=True)
    pickle.dumps(parametrize.remove_parametrizations(square, "weight"))


def test_parametrizations_move_to_another_module(torch):
    for lib, utils in ((mg, mg.nn.utils), (torch, torch.nn.utils)):
        class Symmetric(lib.nn.Module):
            def forward(self, x):
                return x.triu() + x.triu(1).mT
        one, two, three, bare = (lib.nn.Linear(3, 3) for _ in range(4))
        utils.parametrize.register_parametrization(one, "weight", Symmetric())
        utils.parametrizations.weight_norm(one, "bias")
        move = utils.parametrize.transfer_parametrizations_and_params
        assert move(one, two) is two and move(one, three, "bias") is three and move(bare, lib.nn.Linear(3, 3)) is not bare
        assert two.parametrizations.weight.original is one.parametrizations.weight.original and (two.weight == one.weight).all() and (two.bias == one.bias).all()
        assert utils.parametrize.is_parametrized(three, "bias") and not utils.parametrize.is_parametrized(three, "weight") and (three.bias == one.bias).all()
        empty = move(one, lib.nn.ReLU(), "weight")
        assert (empty.weight == one.weight).all() and sorted(empty.state_dict()) == ["parametrizations.weight.original"]
