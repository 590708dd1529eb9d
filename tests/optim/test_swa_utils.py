"""Averages of parameters over training, against their formulas and PyTorch's."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.data import DataLoader, TensorDataset
from minigrad.optim import swa_utils
from minigrad.optim.swa_utils import AveragedModel, update_bn

DECAY = 0.7
FUNCTIONS = {
    "default": lambda where: {},
    "swa": lambda where: {"avg_fn": where.get_swa_avg_fn()},
    "swa lists": lambda where: {"multi_avg_fn": where.get_swa_multi_avg_fn()},
    "ema": lambda where: {"avg_fn": where.get_ema_avg_fn(DECAY)},
    "ema lists": lambda where: {"multi_avg_fn": where.get_ema_multi_avg_fn(DECAY)},
    "user's": lambda where: {"avg_fn": lambda average, current, count: average * current + count},
}


def net(where=nn, double=True):
    model = where.Sequential(where.Conv1d(2, 3, 2), where.BatchNorm1d(3), where.Flatten(), where.Linear(9, 4))
    return model.double() if double else model


def moved(model, rng):
    with mg.no_grad():
        for p in [*model.parameters(), *model.buffers()]:
            p.add_(mg.tensor(rng.normal(size=p.shape)).to(p.dtype) if p.is_floating_point() else 3)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("functions", FUNCTIONS)
def test_averages_are_pytorchs(torch, functions, use_buffers):
    from torch.optim import swa_utils as theirs
    rng, model, other = np.random.default_rng(0), net(), net(torch.nn)
    kinds = {"use_buffers": use_buffers}
    mine = AveragedModel(model, **FUNCTIONS[functions](swa_utils), **kinds)
    refused = functions == "swa lists" and use_buffers          # by PyTorch, for whole numbers
    other_average = theirs.AveragedModel(other, **FUNCTIONS["default" if refused else functions](theirs), **kinds)
    for _ in range(4):
        moved(model, rng)
        other.load_state_dict({k: torch.from_numpy(np.array(v.detach().numpy())) for k, v in model.state_dict().items()})
        mine.update_parameters(model)
        other_average.update_parameters(other)
        a, b = mine.state_dict(), other_average.state_dict()
        assert list(a) == list(b)
        for key in a:
            if not (functions.startswith("ema") and "num_batches" in key):      # PyTorch's rounds 0.7 * 3 + 0.3 * 3 below 3
                np.testing.assert_allclose(a[key].numpy(), b[key].numpy(), rtol=1e-6, atol=1e-7, err_msg=key)


def test_means_are_exact_to_rounding():
    rng, model = np.random.default_rng(0), net()
    average, seen = AveragedModel(model), []
    for _ in range(9):
        moved(model, rng)
        average.update_parameters(model)
        seen.append([p.detach().numpy().copy() for p in model.parameters()])
    for p, *all_seen in zip(average.parameters(), *seen, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), np.mean(all_seen, axis=0), rtol=1e-13, atol=1e-15)
    assert average.n_averaged.item() == 9
    assert all(mg.equal(a, b) for a, b in zip(average.module.buffers(), model.buffers(), strict=True))


def test_a_first_update_copies_and_whole_numbers_stay_whole():
    model = net()
    average = AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True)
    moved(model, np.random.default_rng(0))
    for _ in range(5):                              # 0.9 * 3 + 0.1 * 3 is below 3 in floating point
        average.update_parameters(model)
    assert average.module[1].num_batches_tracked.item() == 3
    for a, b in zip(average.module.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-15)


def test_half_precision_rounds_once():
    model = nn.Linear(40, 50).half()
    average = AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.7))
    average.update_parameters(model)
    before = average.module.weight.detach().numpy().astype(np.float64)
    with mg.no_grad():
        model.weight.normal_()
    average.update_parameters(model)
    exact = before + (1 - 0.7) * (model.weight.detach().numpy().astype(np.float64) - before)
    assert np.mean(average.module.weight.detach().numpy() != exact.astype(np.float16)) < 0.01


def test_the_state_is_saved_and_trains_on():
    rng, model = np.random.default_rng(0), net()
    average = AveragedModel(model)
    for _ in range(3):
        moved(model, rng)
        average.update_parameters(model)
    other = AveragedModel(net())
    other.load_state_dict(average.state_dict())
    for copied in (copy.deepcopy(average), pickle.loads(pickle.dumps(average)), other):
        copied.update_parameters(model)
        assert copied.n_averaged.item() == 4
    average.update_parameters(model)
    assert all(mg.equal(a, b) for a, b in zip(average.parameters(), other.parameters(), strict=True))
    average(mg.zeros(2, 2, 4, dtype=mg.float64)).sum().backward()
    assert average.module[0].weight.grad is not None and model[0].weight.grad is None


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_update_bn(pairs, training):
    x = mg.randn(40, 2, 4)
    model = net(double=False).train(training)
    model[1].momentum = 0.3
    model[3].train(not training)
    loader = DataLoader(TensorDataset(x, mg.arange(40)), batch_size=10) if pairs else [x[i:i + 10] for i in range(0, 40, 10)]
    for _ in range(2):                              # starts anew each time
        update_bn(loader, model, device="cpu")
        inner = model[0](x).detach().numpy()
        np.testing.assert_allclose(model[1].running_mean.numpy(), inner.mean((0, 2)), rtol=1e-5, atol=1e-6)
        batches = inner.reshape(4, 10, 3, 3).var((1, 3), ddof=1).mean(0)
        np.testing.assert_allclose(model[1].running_var.numpy(), batches, rtol=1e-5)
    assert [m.training for m in model] == [training, training, training, not training]
    assert model[1].momentum == 0.3 and model.training is training


def test_update_bn_that_fails_leaves_the_model_as_it_was():
    model = net(double=False).eval()
    with pytest.raises(RuntimeError, match="channels"):
        update_bn([mg.randn(10, 7, 4)], model)
    assert model[1].momentum == 0.1 and not any(m.training for m in model.modules())
    update_bn(None, nn.Linear(2, 2))                # without batch norms, there is nothing to read


def test_what_cannot_be():
    model = nn.Linear(2, 2)
    with pytest.raises(AssertionError, match="Only one"):
        AveragedModel(model, avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    for get in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match="Invalid decay value"):
            get(1.1)
    for other in (nn.Linear(2, 2, bias=False), nn.Linear(2, 1), nn.Sequential(model, nn.BatchNorm1d(2))):
        average = AveragedModel(model)
        with pytest.raises(ValueError, match=r"\[AveragedModel\] the shapes must be those of the average; got \[.*\] for \[.*\]; "):
            average.update_parameters(other)
        assert average.n_averaged.item() == 0
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for wrong in ({"swa_lr": [0.1, 0.2]}, {"swa_lr": 0.1, "anneal_strategy": "exp"}, {"swa_lr": 0.1, "anneal_epochs": -1}):
        with pytest.raises(ValueError):
            swa_utils.SWALR(optimizer, **wrong)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("functions", FUNCTIONS)
def test_a_captured_step_averages_as_an_eager_one(functions, use_buffers):
    found = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        model = net()
        average = AveragedModel(model, **FUNCTIONS[functions](swa_utils), use_buffers=use_buffers)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        with mg.no_grad():
            average.module[0].weight.fill_(float("nan"))        # the first update copies: nothing of it is left

        def step(x, model=model, average=average, optimizer=optimizer):
            optimizer.zero_grad()
            (model(x) ** 2).sum().backward()
            optimizer.step()
            average.update_parameters(model)
        step = wrap(step)
        for k in range(5):
            step(mg.full((4, 2, 4), 1.0 + k, dtype=mg.float64))
        found.append({name: t.tolist() for name, t in average.state_dict().items()})
    assert found[0] == found[1] and found[0]["n_averaged"] == 5 and np.isfinite(found[0]["module.0.weight"]).all()


@pytest.mark.parametrize("functions", ["default", "swa lists", "ema", "ema lists"])
def test_large_whole_numbers_keep_their_digits(functions):
    model = nn.BatchNorm1d(2)
    average = AveragedModel(model, **FUNCTIONS[functions](swa_utils), use_buffers=True)
    for count in (2**40 + 1, 2**40 + 11):
        model.num_batches_tracked.fill_(count)
        average.update_parameters(model)
    assert average.module.num_batches_tracked.item() == 2**40 + (4 if functions.startswith("ema") else 6)


def test_half_precision_means_are_pytorchs(torch):
    from torch.optim import swa_utils as theirs
    model, other = nn.Linear(40, 50).half(), torch.nn.Linear(40, 50).half()
    mine, yours = AveragedModel(model), theirs.AveragedModel(other)
    for k in range(4):
        with mg.no_grad():
            model.weight.normal_(k)
        other.load_state_dict({n: torch.from_numpy(np.array(t.detach().numpy())) for n, t in model.state_dict().items()})
        mine.update_parameters(model)
        yours.update_parameters(other)
        np.testing.assert_allclose(mine.module.weight.detach().numpy(), yours.module.weight.detach().numpy(), rtol=2e-3, atol=2e-3)
