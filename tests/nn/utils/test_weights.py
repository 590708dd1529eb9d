"""Weight and spectral normalization, by hooks and by parametrizations."""
from __future__ import annotations

import copy

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn.utils import parametrizations, parametrize

LAYERS = [("Linear", (4, 3), (2, 4)), ("Conv2d", (3, 4, 2), (2, 3, 5, 5)), ("ConvTranspose1d", (3, 4, 2), (2, 3, 5))]
KINDS = [("weight_norm", {}), ("weight_norm", {"dim": None}), ("weight_norm", {"dim": 1}), ("spectral_norm", {}), ("spectral_norm", {"n_power_iterations": 3, "dim": 1})]


def pair(torch, name, arguments, shape):
    """The same layer of both libraries, float64, and an input."""
    theirs = getattr(torch.nn, name)(*arguments).double()
    mine = getattr(nn, name)(*arguments).double()
    mine.load_state_dict({k: mg.tensor(v.numpy().copy()) for k, v in theirs.state_dict().items()})
    return mine, theirs, np.random.default_rng(0).standard_normal(shape)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["utils", "parametrizations"])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS, ids=[n for n, _, _ in LAYERS])
def test_training_is_pytorchs(torch, name, arguments, shape, kind, options, way):
    mine, theirs, x = pair(torch, name, arguments, shape)
    for where, layer in ((nn.utils, mine), (torch.nn.utils, theirs)):
        made = getattr(where if way == "utils" else where.parametrizations, kind)(layer, **options)
        assert made is layer
    state = theirs.state_dict()
    assert {k: tuple(v.shape) for k, v in mine.state_dict().items()} == {k: tuple(v.shape) for k, v in state.items()}
    mine.load_state_dict({k: mg.tensor(v.numpy().copy()) for k, v in state.items()})       # the random vectors, too
    a, b = optim.SGD(mine.parameters(), lr=0.05), torch.optim.SGD(theirs.parameters(), lr=0.05)
    for step in range(4):
        if step == 3:
            mine.eval(), theirs.eval()
        for lib, layer, o in ((mg, mine, a), (torch, theirs, b)):
            o.zero_grad()
            loss = (layer(lib.tensor(x)) ** 2).mean() - layer(lib.tensor(x * 0.5)).mean()       # twice before one backward
            loss.backward()
            o.step()
        for (k, u), v in zip(sorted(mine.state_dict().items()), [v for _, v in sorted(theirs.state_dict().items())], strict=True):
            np.testing.assert_allclose(u.numpy(), v.numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{k}, step {step}")
    before = mine(mg.tensor(x)).detach().numpy()
    if way == "parametrizations":                               # a hook leaves a tensor of the graph in its module
        np.testing.assert_allclose(copy.deepcopy(mine)(mg.tensor(x)).detach().numpy(), before, rtol=1e-12)
    if way == "utils":
        getattr(nn.utils, f"remove_{kind}")(mine)
    else:
        parametrize.remove_parametrizations(mine, "weight")
    assert sorted(mine.state_dict()) == ["bias", "weight"] and type(mine) is getattr(nn, name) and isinstance(mine.weight, nn.Parameter)
    np.testing.assert_allclose(mine(mg.tensor(x)).detach().numpy(), before, rtol=1e-12)


def test_what_they_compute():
    mg.manual_seed(0)
    layer = nn.utils.weight_norm(nn.Linear(4, 3))
    with mg.no_grad():
        layer.weight_g.fill_(2.0)
    layer(mg.ones(1, 4))
    np.testing.assert_allclose(layer.weight.detach().norm(dim=1).numpy(), 2.0, rtol=1e-6)
    layer = nn.utils.spectral_norm(nn.Linear(6, 5), n_power_iterations=200)
    layer(mg.ones(1, 6))
    assert abs(np.linalg.norm(layer.weight.detach().numpy(), 2) - 1) < 1e-4
    one = parametrizations.spectral_norm(nn.Linear(6, 5), n_power_iterations=200)
    assert abs(np.linalg.norm(one.weight.detach().numpy(), 2) - 1) < 1e-4
    vector = parametrizations.spectral_norm(nn.Linear(6, 5), "bias")
    np.testing.assert_allclose(vector.bias.detach().norm().item(), 1, rtol=1e-6)
    older = nn.utils.weight_norm(nn.Linear(4, 3)).state_dict()
    newer = parametrizations.weight_norm(nn.Linear(4, 3))
    newer.load_state_dict(older)
    assert mg.equal(newer.parametrizations.weight.original1, older["weight_v"])


def test_captured():
    mg.manual_seed(0)
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), parametrizations.weight_norm(nn.Linear(5, 2)))
    twin = copy.deepcopy(model)

    def step_of(net):
        o = optim.SGD(net.parameters(), lr=0.1)

        def step(x):
            o.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            o.step()
            return loss
        return step
    eager, captured = step_of(model), mg.capture(step_of(twin))
    for seed in range(4):
        x = mg.tensor(np.random.RandomState(seed).randn(3, 4), dtype=np.float32)
        assert eager(x).item() == captured(x).item(), seed
    assert all(mg.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))


def test_refusals():
    layer = nn.utils.weight_norm(nn.Linear(4, 3))
    for bad, error, text in ((lambda: nn.utils.weight_norm(layer), RuntimeError, "Cannot register two weight_norm hooks"), (lambda: nn.utils.weight_norm(nn.Linear(4, 3), "w"), ValueError, "no parameter 'w'"),
                             (lambda: nn.utils.remove_weight_norm(nn.Linear(4, 3)), ValueError, "not found"), (lambda: nn.utils.remove_spectral_norm(layer), ValueError, "not found"),
                             (lambda: nn.utils.spectral_norm(nn.Linear(4, 3), n_power_iterations=0), ValueError, "to be positive"),
                             (lambda: nn.utils.spectral_norm(nn.Linear(4, 3, bias=False), "bias"), ValueError, "no parameter 'bias'"),
                             (lambda: nn.utils.weight_norm(nn.LazyLinear(3)), ValueError, "has no shape yet"),
                             (lambda: parametrizations.spectral_norm(nn.Linear(4, 3), "w"), ValueError, "no parameter or buffer 'w'"),
                             (lambda: parametrizations.spectral_norm(nn.Linear(4, 3), n_power_iterations=-1), ValueError, "to be positive"),
                             (lambda: parametrizations.spectral_norm(nn.Linear(4, 3), dim=2), IndexError, "dim"),
                             (lambda: parametrizations.orthogonal(nn.Linear(4, 3), "bias"), ValueError, "matrix"),
                             (lambda: parametrizations.orthogonal(nn.Linear(4, 3), orthogonal_map="polar"), ValueError, "orthogonal_map")):
        with pytest.raises(error, match=text):
            bad()


@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize("chosen", ["matrix_exp", "cayley", "householder", None])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_orthogonal(torch, shape, chosen, trivial):
    mg.manual_seed(0)
    mine, theirs, x = pair(torch, "Linear", shape[::-1], (2, shape[1]))
    for where, layer in ((parametrizations, mine), (torch.nn.utils.parametrizations, theirs)):
        where.orthogonal(layer, orthogonal_map=chosen, use_trivialization=trivial)
    state = theirs.state_dict()
    assert list(mine.state_dict()) == list(state)
    w = mine.weight.detach().numpy()
    if not trivial:
        np.testing.assert_allclose(w, theirs.weight.detach().numpy(), atol=1e-10)       # the orthogonal part of the weight
    w = w if shape[0] >= shape[1] else w.T
    np.testing.assert_allclose(w.T @ w, np.eye(min(shape)), atol=1e-10)
    mine.load_state_dict({k: mg.tensor(v.numpy().copy()) for k, v in state.items()})
    a, b = optim.SGD(mine.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        for lib, layer, o in ((mg, mine, a), (torch, theirs, b)):
            o.zero_grad()
            (layer(lib.tensor(x)) ** 3).sum().backward()
            o.step()
        np.testing.assert_allclose(mine.weight.detach().numpy(), theirs.weight.detach().numpy(), rtol=1e-7, atol=1e-9)
    if trivial:
        given = np.linalg.qr(np.random.default_rng(1).standard_normal(shape if shape[0] >= shape[1] else shape[::-1]))[0]
        given = given if shape[0] >= shape[1] else given.T
        mine.weight = mg.tensor(given)
        if shape[0] == shape[1]:
            np.testing.assert_allclose(mine.weight.detach().numpy(), given, atol=1e-10)


@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_copy_of_a_module_with_a_normalized_weight_is_apart(normed):
    model = nn.Sequential(normed(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 1)).eval()
    x = mg.ones(2, 3)
    for ran in (False, True):                       # the weight is a result with a graph, from the start and after each call
        if ran:
            model(x)
        copied = copy.deepcopy(model)
        assert not copied[0].weight.requires_grad and copied[0].weight.tolist() == model[0].weight.tolist()
        assert copied(x).tolist() == model(x).tolist() and copied[0].weight.requires_grad
        for p in copied[0].parameters():
            p.data.mul_(0.5)
        copied(x).sum().backward()
        assert copied(x).tolist() != model(x).tolist() and all(p.grad is None for p in model.parameters())
