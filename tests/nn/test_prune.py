"""`nn.utils.prune` against PyTorch's."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn.utils import prune


@pytest.fixture
def other(torch):
    return pytest.importorskip("torch.nn.utils.prune")


STEPS = {
    "l1": [("l1_unstructured", {"amount": 0.3})],
    "l1 twice": [("l1_unstructured", {"amount": 5}), ("l1_unstructured", {"amount": 0.5})],
    "ln": [("ln_structured", {"amount": 0.5, "n": 2, "dim": 0})],
    "ln 1": [("ln_structured", {"amount": 1, "n": 1, "dim": -1})],
    "ln after l1": [("l1_unstructured", {"amount": 0.4}), ("ln_structured", {"amount": 0.4, "n": float("inf"), "dim": 1})],
    "ln twice": [("ln_structured", {"amount": 0.5, "n": 2, "dim": 0}), ("ln_structured", {"amount": 0.5, "n": 2, "dim": 0})],
    "none": [("identity", {})],
}


def layers(torch):
    mine, theirs = nn.Linear(6, 4), torch.nn.Linear(6, 4)
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    for layer, lib in ((mine, mg), (theirs, torch)):
        with lib.no_grad():
            layer.weight.copy_(lib.tensor(values))
            layer.bias.fill_(0.5)
    return mine, theirs


@pytest.mark.parametrize("name", STEPS)
def test_masks_gradients_and_names_are_pytorchs(torch, other, name):
    found = []
    for layer, lib, where in zip(layers(torch), (mg, torch), (prune, other), strict=True):
        for function, given in STEPS[name]:
            assert getattr(where, function)(layer, "weight", **given) is layer
        assert where.is_pruned(layer) and where.is_pruned(lib.nn.Sequential(layer))
        optimizer = lib.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss = (layer(lib.ones(3, 6)) ** 2).sum()
            loss.backward()
            optimizer.step()
        kept = sorted(layer.state_dict())
        mask = layer.weight_mask.numpy()
        gradient = layer.weight_orig.grad.numpy()
        where.remove(layer, "weight")
        assert not where.is_pruned(layer) and sorted(layer.state_dict()) == ["bias", "weight"] and isinstance(layer.weight, lib.nn.Parameter)
        found.append([loss.item(), mask, gradient, layer.weight.detach().numpy(), kept])
    for a, b in zip(*[f[:4] for f in found], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert found[0][4] == found[1][4]


def test_all_together(torch, other):
    found = []
    for lib, where in ((mg, prune), (torch, other)):
        one, two = lib.nn.Linear(3, 4), lib.nn.Linear(4, 2)
        with lib.no_grad():
            for k, p in enumerate((one.weight, two.weight)):
                p.copy_(lib.tensor(np.random.default_rng(k).standard_normal(tuple(p.shape)).astype(np.float32)))
        where.l1_unstructured(one, "weight", 2)
        where.global_unstructured([(one, "weight"), (two, "weight")], where.L1Unstructured, amount=0.4)
        found.append([one.weight_mask.numpy(), two.weight_mask.numpy()])
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a, b)
    assert sum(m.sum() for m in found[0]) == 20 - 2 - round(0.4 * 18)


def test_by_chance_and_by_a_method_of_ones_own():
    mg.manual_seed(0)
    layer = nn.Linear(10, 8)
    prune.random_unstructured(layer, "weight", amount=0.25)
    assert int(layer.weight_mask.sum()) == 60
    prune.random_structured(layer, "bias", amount=3, dim=0)
    assert int(layer.bias_mask.sum()) == 5
    prune.custom_from_mask(layer, "weight", mask=mg.zeros(8, 10))
    assert int(layer.weight_mask.sum()) == 0 and layer(mg.ones(1, 10)).tolist() == [layer.bias.tolist()]

    class EveryOther(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask
    other = nn.Linear(4, 1)
    assert EveryOther().prune(mg.ones(3)).tolist() == [0, 1, 0]
    EveryOther.apply(other, "weight")
    EveryOther.apply(other, "weight")                   # of the two that are left
    assert other.weight_mask.tolist() == [[0, 0, 0, 1]]
    prune.l1_unstructured(other, "bias", amount=1, importance_scores=mg.ones(1))
    assert other.bias.tolist() == [0]


def test_refusals(torch, other):
    for lib, where in ((nn, prune), (torch.nn, other)):
        layer = lib.Linear(3, 2)
        for call, kind in ((lambda: where.l1_unstructured(layer, "weight", amount=1.5), ValueError), (lambda: where.l1_unstructured(layer, "weight", amount=7), ValueError),
                           (lambda: where.l1_unstructured(layer, "weight", amount="a"), TypeError), (lambda: where.remove(layer, "weight"), ValueError),
                           (lambda: where.global_unstructured([(layer, "weight")], where.LnStructured, amount=1, n=2, dim=0), TypeError)):
            with pytest.raises(kind):
                call()
        assert isinstance(layer.weight, lib.Parameter) and not where.is_pruned(layer)


def test_copies_and_pickles_train_apart():
    layer, x = nn.Linear(6, 4), mg.ones(3, 6)
    prune.l1_unstructured(layer, "weight", amount=5)
    layer(x)
    assert repr(layer.weight).startswith("tensor([[") and "grad_fn=<MulBackward0>" in repr(layer.weight)
    average = optim.swa_utils.AveragedModel(layer)
    average.update_parameters(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), average.module):
        assert mg.equal(copied.weight, layer.weight) and mg.equal(copied(x), layer(x))
        copied(x).sum().backward()
        assert mg.equal(copied.weight_orig.grad, 3 * layer.weight_mask) and layer.weight_orig.grad is None
        with mg.no_grad():
            copied.weight_orig.fill_(2)
        assert mg.equal(copied(mg.eye(6)) - copied.bias, 2 * layer.weight_mask.mT)
        prune.remove(copied, "weight")
        assert not prune.is_pruned(copied) and prune.is_pruned(layer)


def test_a_captured_step_trains_what_is_left():
    ends = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        layer = prune.l1_unstructured(nn.Linear(6, 4), "weight", amount=5)
        optimizer = optim.SGD(layer.parameters(), lr=0.01)

        def step(x, layer=layer, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss
        step, first = wrap(step), layer.weight_orig.detach().clone()
        losses = [step(mg.ones(3, 6)).item() for _ in range(4)]
        assert losses[-1] < losses[0] and mg.equal(layer.weight_orig != first, layer.weight_mask != 0)
        ends.append((losses, layer.weight_orig.tolist()))
    assert ends[0] == ends[1]


def test_functions_have_their_names_and_pickle():
    for name in ("identity", "l1_unstructured", "random_unstructured", "ln_structured", "random_structured", "custom_from_mask"):
        function = getattr(prune, name)
        assert function.__name__ == function.__qualname__ == name and pickle.loads(pickle.dumps(function)) is function


def test_amounts_of_numpy_and_what_is_no_parameter():
    layer = nn.Linear(4, 2, bias=False)
    prune.l1_unstructured(layer, "weight", amount=np.int64(3))
    prune.l1_unstructured(layer, "weight", amount=np.float32(0.4))
    assert int(layer.weight_mask.sum()) == 3
    with pytest.raises(TypeError, match=r"\[prune\] bias must be a parameter of the module; got None in Linear"):
        prune.l1_unstructured(layer, "bias", amount=1)


def test_a_parameter_knows_what_pruned_it(torch, other):
    """As PyTorch's tutorial looks it up: the hook of the parameter, a container from the second method on."""
    found = []
    for layer, where in zip(layers(torch), (prune, other), strict=True):
        first = where.l1_unstructured(layer, "weight", 2) and next(iter(layer._forward_pre_hooks.values()))
        assert not isinstance(first, where.PruningContainer)
        where.ln_structured(layer, "weight", amount=0.5, n=2, dim=0)
        last = where.RandomUnstructured.apply(layer, "weight", amount=1)
        (hook,) = layer._forward_pre_hooks.values()
        assert hook is last and isinstance(hook, where.PruningContainer) and hook._tensor_name == "weight" and list(hook)[0] is first
        found.append([len(hook), [type(m).__name__ for m in hook], type(hook[1]).__name__])
        layer(torch.ones(1, 6) if where is other else mg.ones(1, 6))
        fresh = where.PruningContainer(first)
        with pytest.raises(TypeError):
            fresh.add_pruning_method(3)
        stranger = where.Identity()
        stranger._tensor_name = "bias"
        with pytest.raises(ValueError):
            fresh.add_pruning_method(stranger)
        where.remove(layer, "weight")
    assert found[0] == found[1]


def test_a_method_of_ones_own_sees_the_whole_parameter_first():
    class Rows(prune.BasePruningMethod):
        def compute_mask(self, t, default_mask):
            seen.append(tuple(t.shape))
            return (default_mask * (mg.arange(t.shape[0]) > 0).reshape(-1, *[1] * (t.ndim - 1))).int()
    seen, layer = [], nn.Linear(4, 2)
    Rows.apply(layer, "weight")
    assert layer.weight_mask.tolist() == [[0] * 4, [1] * 4] and layer.weight_mask.dtype == mg.float32
    Rows.apply(layer, "weight")
    assert seen == [(2, 4), (4,)] and layer.weight_mask.tolist() == [[0] * 4, [0, 1, 1, 1]]


def test_values_without_a_module(torch, other):
    t, mask = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1, 1, 0], [1, 0, 1]]
    for scores in (None, [[6.0, 1.0, 2.0], [0.5, 3.0, 9.0]]):
        got, want = [where.L1Unstructured(amount=2).prune(lib.tensor(t), lib.tensor(mask), *([] if scores is None else [lib.tensor(scores)])).tolist()
                     for lib, where in ((mg, prune), (torch, other))]
        assert got == want


@pytest.mark.parametrize("amount, kind", [("x", TypeError), (True, TypeError), (1.5, ValueError), (-1, ValueError), (-0.1, ValueError)])
@pytest.mark.parametrize("method", [prune.L1Unstructured, prune.RandomUnstructured, prune.LnStructured, prune.RandomStructured])
def test_amounts_are_checked_at_once(method, amount, kind):
    with pytest.raises(kind, match="amount"):
        method(amount)
