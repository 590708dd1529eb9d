"""Schedules against PyTorch's, and what they warn of."""
from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.optim import lr_scheduler

SHAPES = ((3, 4), (5,), ())


def parameters():
    return [nn.Parameter(mg.zeros(s)) for s in SHAPES]


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.001}),
    ("OneCycleLR", {"max_lr": [0.5, 0.8], "total_steps": 20}),
    ("OneCycleLR", {"max_lr": 0.5, "epochs": 4, "steps_per_epoch": 5, "three_phase": True, "anneal_strategy": "linear"}),
    ("CyclicLR", {"base_lr": [0.01, 0.02], "max_lr": 0.3, "step_size_up": 4, "step_size_down": 2}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 3, "mode": "triangular2", "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 3, "mode": "exp_range", "gamma": 0.8}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 3, "scale_fn": lambda x: 1 / (1 + x), "scale_mode": "iterations"}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("SWALR", {"swa_lr": [0.05, 0.9], "anneal_epochs": 7}),
    ("SWALR", {"swa_lr": 0.05, "anneal_epochs": 4, "anneal_strategy": "linear"}),
    ("SWALR", {"swa_lr": 0.05, "anneal_epochs": 0}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 1 - 0.1 / epoch}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.9**epoch}),
    ("LambdaLR", {"lr_lambda": [lambda epoch: 1 / (1 + epoch), lambda epoch: 0.5]}),
]


def optimizers(torch, name="SGD", **options):
    mine, theirs = parameters(), [torch.nn.Parameter(torch.zeros(2)) for _ in SHAPES]
    options = options or {"momentum": 0.9}
    return tuple(getattr(where, name)([{"params": ps[:1], "lr": 0.1}, {"params": ps[1:]}], lr=0.7, **options)
                 for where, ps in ((optim, mine), (torch.optim, theirs)))


def rates(o):
    return [tuple(g.get(k) for k in ("lr", "momentum", "betas")) for g in o.param_groups]


def same(a, b):
    for x, y in zip(rates(a), rates(b), strict=True):
        np.testing.assert_allclose(np.hstack([v for v in x if v is not None]), np.hstack([v for v in y if v is not None]), rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_are_pytorchs(torch, name, options):
    a, b = optimizers(torch)
    where = torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler
    mine, theirs = getattr(lr_scheduler, name)(a, **options), getattr(where, name)(b, **options)
    for step in range(19):
        same(a, b)
        a.step(), b.step()
        mine.step(), theirs.step()
        assert mine.get_last_lr() == [g["lr"] for g in a.param_groups]
        if step == 7:
            state = mine.state_dict()
            assert set(theirs.state_dict()) <= set(state) | {"_is_initial"}
            optimizer_state = a.state_dict()
            a, _ = optimizers(torch)
            mine = getattr(lr_scheduler, name)(a, **options)
            a.load_state_dict(optimizer_state)
            mine.load_state_dict(state)
            a.step(), mine._step_count
    same(a, b)


def test_adams_beta_cycles(torch):
    a, b = optimizers(torch, "Adam", eps=1e-7)
    mine, theirs = lr_scheduler.OneCycleLR(a, 0.3, total_steps=9), torch.optim.lr_scheduler.OneCycleLR(b, 0.3, total_steps=9)
    for _ in range(8):
        same(a, b)
        a.step(), b.step(), mine.step(), theirs.step()
    mine.step()
    with pytest.raises(ValueError, match="Tried to step"):
        mine.step()


@pytest.mark.parametrize("options", [
    {"patience": 1, "factor": 0.5},
    {"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "cooldown": 2, "patience": 0, "min_lr": [0.01, 0.2]}])
def test_plateau(torch, options):
    a, b = optimizers(torch)
    mine, theirs = lr_scheduler.ReduceLROnPlateau(a, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for metric in (1.0, 0.9, 0.95, 0.99, 1.2, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.5, 0.4):
        mine.step(mg.tensor(metric)), theirs.step(metric)
        same(a, b)
    assert mine.state_dict().keys() == theirs.state_dict().keys()


def test_sequence(torch):
    a, b = optimizers(torch)
    made = []
    for where, o in ((lr_scheduler, a), (torch.optim.lr_scheduler, b)):
        parts = [where.LinearLR(o, 0.1, total_iters=4), where.CosineAnnealingLR(o, 6), where.ExponentialLR(o, 0.9)]
        made.append(where.SequentialLR(o, parts, [4, 9]))
    mine, theirs = made
    for step in range(15):
        same(a, b)
        a.step(), b.step(), mine.step(), theirs.step()
        if step == 6:
            mine.load_state_dict(mine.state_dict())
    with pytest.raises(ValueError, match="number of milestones"):
        lr_scheduler.SequentialLR(a, [lr_scheduler.StepLR(a, 2)], [3])


def test_chained(torch):
    a, b = optimizers(torch)
    made = [(w.StepLR(o, 4, 0.5), w.ExponentialLR(o, 0.9)) for w, o in ((lr_scheduler, a), (torch.optim.lr_scheduler, b))]
    for _ in range(10):
        a.step(), b.step()
        for s in (*made[0], *made[1]):
            s.step()
        same(a, b)
    mine, theirs = lr_scheduler.ChainedScheduler(made[0]), torch.optim.lr_scheduler.ChainedScheduler(made[1])
    for i in range(10):
        a.step(), b.step(), mine.step(), theirs.step()
        same(a, b)
        assert mine.get_last_lr() == theirs.get_last_lr()
        if i == 4:
            mine.load_state_dict(mine.state_dict())
    assert set(mine.state_dict()) == set(theirs.state_dict())
    other = lr_scheduler.StepLR(optim.SGD(parameters(), lr=0.1), 2)
    for wrong, error, text in (([], ValueError, "at least one"), ([made[0][0], other], ValueError, "same optimizer"), ([3], (TypeError, AttributeError), "optimizer"),
                               ([lr_scheduler.ReduceLROnPlateau(a)], ValueError, "ReduceLROnPlateau")):
        with pytest.raises(error, match=text):
            lr_scheduler.ChainedScheduler(wrong)
    with pytest.raises(TypeError, match="should be a function, but got float"):
        lr_scheduler.MultiplicativeLR(a, 0.9)
    with pytest.raises(ValueError, match="mode is invalid"):
        lr_scheduler.CyclicLR(a, 0.1, 0.2, mode="square")
    with pytest.raises(ValueError, match="momentum or beta1"):
        lr_scheduler.CyclicLR(optim.Adagrad(parameters()), 0.1, 0.2)


def test_schedule_manners():
    (p, *_) = parameters()
    o = optim.SGD([p], lr=0.1)
    s = lr_scheduler.StepLR(o, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        s.step()
    with pytest.warns(UserWarning, match="get_last_lr"):
        s.get_lr()
    with pytest.raises(TypeError, match="is not an Optimizer"):
        lr_scheduler.StepLR(3, 2)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(optim.SGD([p], lr=0.1), 2, last_epoch=3)
    with pytest.raises(ValueError, match="total_steps"):
        lr_scheduler.OneCycleLR(o, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.grad = mg.ones_like(p)
        o.step()
        lr_scheduler.ExponentialLR(o, 0.5).step()


BEGUN = {
    "constant": lambda o, **at: lr_scheduler.ConstantLR(o, 0.5, 3, **at),
    "linear": lambda o, **at: lr_scheduler.LinearLR(o, 0.5, total_iters=3, **at),
    "exponential": lambda o, **at: lr_scheduler.ExponentialLR(o, 0.9, **at),
    "step": lambda o, **at: lr_scheduler.StepLR(o, 2, **at),
    "milestones": lambda o, **at: lr_scheduler.MultiStepLR(o, [1, 4, 4], **at),
    "polynomial": lambda o, **at: lr_scheduler.PolynomialLR(o, 5, **at),
    "cosine": lambda o, **at: lr_scheduler.CosineAnnealingLR(o, 4, **at),
    "restarts": lambda o, **at: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2, **at),
    "lambda": lambda o, **at: lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e), **at),
    "product": lambda o, **at: lr_scheduler.MultiplicativeLR(o, lambda e: 0.9 if e else 0.5, **at),
    "average": lambda o, **at: lr_scheduler.SWALR(o, 0.05, 4, **at),
    "chain": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.ConstantLR(o, 0.5, 2)]),
}


def rates_of(n, make, state=None, **at):
    o = optim.SGD([nn.Parameter(mg.ones(1))], lr=0.1)
    if state:
        o.load_state_dict(state)
    s, found = make(o, **at), []
    for _ in range(n):
        found.append(o.param_groups[0]["lr"])
        o.step(), s.step()
    return found, o.state_dict()


@pytest.mark.parametrize("name", [n for n in BEGUN if n != "chain"])
def test_a_schedule_goes_on_from_any_epoch(name):
    """The rate of the loaded optimiser is that of the epoch which begins: no milestone counts twice."""
    straight, _ = rates_of(16, BEGUN[name])
    for epoch in range(1, 15):
        _, state = rates_of(epoch, BEGUN[name])
        assert rates_of(16 - epoch, BEGUN[name], state, last_epoch=epoch - 1)[0] == pytest.approx(straight[epoch:])


@pytest.mark.parametrize("second", [n for n in BEGUN if n != "average"])
def test_a_sequence_runs_each_schedule_from_its_epoch_0(second):
    for first in BEGUN:
        def make(o, first=first):
            return lr_scheduler.SequentialLR(o, [BEGUN[first](o), BEGUN[second](o)], [4])
        expected = rates_of(4, BEGUN[first])[0] + rates_of(7, BEGUN[second])[0]
        assert rates_of(11, make)[0] == pytest.approx(expected)
        assert rates_of(11, lambda o, make=make: lr_scheduler.SequentialLR(o, [make(o)], []))[0] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore")
def test_warm_restarts_at_a_given_epoch():
    for T_0, T_mult in (1, 3), (2, 10), (3, 1), (5, 2):
        def make(o, T_0=T_0, T_mult=T_mult):
            return lr_scheduler.CosineAnnealingWarmRestarts(o, T_0, T_mult)
        straight, _ = rates_of(250, make)
        o = optim.SGD([nn.Parameter(mg.ones(1))], lr=0.1)
        s = make(o)
        for epoch in range(249, 0, -1):
            s.step(epoch)
            assert o.param_groups[0]["lr"] == pytest.approx(straight[epoch]), (T_0, T_mult, epoch)


@pytest.mark.parametrize("last_epoch", range(-1, 9))
def test_a_sequence_begins_at_any_epoch(last_epoch):
    def make(epoch):
        o = optim.SGD([nn.Parameter(mg.ones(1))], lr=1.0)
        inner = lr_scheduler.SequentialLR(o, [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 2, 0.5)], [3])
        return o, lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 0.1), inner], [3], epoch)

    def rates(o, s):
        found = []
        for _ in range(5):
            found.append((o.param_groups[0]["lr"], s.get_last_lr()[0], s.last_epoch))
            o.step(), s.step()
        return found
    o, straight = make(-1)
    for _ in range(max(last_epoch, 0)):
        o.step(), straight.step()
    expected = rates(o, straight)
    assert rates(*make(last_epoch)) == expected
    assert expected[0][0] == pytest.approx({-1: 0.1, 0: 0.1, 2: 0.1, 3: 1, 4: 0.9, 5: 0.81, 6: 1}.get(last_epoch, expected[0][0]))


def test_a_step_that_was_replaced():
    def make():
        return optim.SGD([nn.Parameter(mg.ones(1))], lr=1.0)
    o = make()
    s = lr_scheduler.StepLR(o, 2)
    o.step = lambda: None
    o.step()
    with pytest.warns(UserWarning, match=r"`optimizer.step\(\)` has been overridden"):
        s.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s.step()                                    # once is enough
        o = make()
        o.step = lambda: None                       # before the schedule is made
        s = lr_scheduler.StepLR(o, 2)
        o.step(), s.step()
        o = make()
        s = lr_scheduler.StepLR(o, 2)
        o.step(), s.step()
        lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 2), lr_scheduler.ExponentialLR(o, 0.5)], [2], 5)


def test_schedules_print_what_they_are():
    optimizer = optim.SGD([mg.ones(1, requires_grad=True)], lr=0.5)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    optimizer.step()
    scheduler.step()
    assert repr(scheduler) == "StepLR(SGD, step_size=1, last_epoch=1, lr=0.05)"
    assert repr(lr_scheduler.MultiStepLR(optimizer, [2, 2, 5], gamma=0.5)) == "MultiStepLR(SGD, [2, 2, 5], gamma=0.5, last_epoch=0, lr=0.05)"
    parts = [lr_scheduler.ConstantLR(optimizer, total_iters=2), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    assert "[ConstantLR(SGD, total_iters=2, " in repr(lr_scheduler.SequentialLR(optimizer, parts, milestones=[2]))
