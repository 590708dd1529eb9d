"""Optimisers against PyTorch's, and what they promise by themselves."""
from __future__ import annotations

import copy
import inspect
import pickle
import random

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.optim import lr_scheduler

SHAPES = ((3, 4), (5,), ())
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.2, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "weight_decay": 0.1, "momentum": 0.8, "centered": True, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-8, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-5, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.05, 0.2), "maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 3, "weight_decay": 0.1, "maximize": True}),
]
IDS = [f"{name}-{'-'.join(map(str, options)) or 'defaults'}" for name, options in OPTIMIZERS]


def parameters(dtype=np.float32, seed=0):
    draw = np.random.RandomState(seed)
    return [nn.Parameter(mg.tensor(draw.randn(*s), dtype=dtype)) for s in SHAPES]


def gradients(step, dtype=np.float32):
    draw = np.random.RandomState(100 + step)
    return [np.asarray(draw.randn(*s), dtype) for s in SHAPES]


def give(params, step, skip=None):
    for i, (p, g) in enumerate(zip(params, gradients(step, params[0].dtype), strict=False)):
        p.grad = None if i == skip else mg.tensor(g)


def values(params):
    return [p.detach().numpy().copy() for p in params]


def close(a, b, dtype=np.float32):
    for x, y in zip(a, b, strict=True):
        rtol, atol = (2e-5, 1e-6) if dtype == np.float32 else (1e-11, 1e-12)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)


@pytest.fixture
def float64_numbers(torch):
    """Numbers in PyTorch's states (`step`, `mu_product`, `eta`, `mu`) are float64, as ours are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=IDS)
def test_steps_are_pytorchs(torch, float64_numbers, name, options, dtype):
    mine = parameters(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values(mine)]
    a, b = getattr(optim, name)(mine, **options), getattr(torch.optim, name)(theirs, **options)
    for step in range(12):
        skip = 1 if step in (0, 5) else None            # a parameter without a gradient keeps its own step count
        give(mine, step, skip)
        for i, (p, g) in enumerate(zip(theirs, gradients(step, dtype), strict=True)):
            p.grad = None if i == skip else torch.tensor(g)
        a.step()
        b.step()
        close(values(mine), [p.detach().numpy() for p in theirs], dtype)
    mine_state, their_state = a.state_dict(), b.state_dict()
    assert mine_state["param_groups"] == their_state["param_groups"]
    assert [list(g) for g in mine_state["param_groups"]] == [list(g) for g in their_state["param_groups"]]
    assert {k: set(v) for k, v in mine_state["state"].items()} == {k: set(v) for k, v in their_state["state"].items()}
    for number, state in their_state["state"].items():
        close([mine_state["state"][number][k].numpy() for k in state], [v.numpy() for v in state.values()], dtype)
    # a PyTorch state goes on here
    c = getattr(optim, name)(fresh := [nn.Parameter(mg.tensor(v)) for v in values(mine)], **options)
    c.load_state_dict(their_state)
    give(fresh, 50), give(mine, 50)
    a.step(), c.step()
    close(values(fresh), values(mine), dtype)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=IDS)
def test_definition_and_kernel_agree(name, options, monkeypatch):
    one, two = parameters(), parameters()
    a, b = getattr(optim, name)(one, **options), getattr(optim, name)(two, **options)
    monkeypatch.setattr(b, "_kernel", "no_such_kernel")
    monkeypatch.setattr(b, "_elementwise", False, raising=False)
    for step in range(8):
        give(one, step, 1 if step == 0 else None), give(two, step, 1 if step == 0 else None)
        a.step(), b.step()
    close(values(one), values(two))
    assert all(batch.kernel is None for made in b._batches.values() for batch in made.batches)
    assert name in ("Adafactor",) or all(batch.kernel is not None for made in a._batches.values() for batch in made.batches)


class Crossed(optim.Adadelta):
    """What it writes is read later, was made earlier, is a number of the step, or is what it got."""

    def _define(self, flags, hyper, p, g, state, step):
        first, second = state
        early = first + g * p
        both = first * 2 - second
        first.copy_(early)
        second.copy_(step * 3 if flags[0] else both * g + early)
        p.copy_(first if flags[1] else both)


class Given(optim.Adadelta):
    def _define(self, flags, hyper, p, g, state, step):
        state[1].copy_(state[0])
        state[0].copy_(p)
        p.copy_(g)


class Summed(optim.Adadelta):
    """No program can be made of it."""

    def _define(self, flags, hyper, p, g, state, step):
        p.sub_(g.sum() * hyper[0])


BIT_CASES = [*[(getattr(optim, name), options) for name, options in OPTIMIZERS if getattr(optim, name)._elementwise],
             *[(Crossed, {"maximize": m, "weight_decay": w}) for m in (False, True) for w in (0, 0.1)], (Given, {}), (Summed, {})]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, mg.bfloat16], ids=["f32", "f64", "bf16"])
@pytest.mark.parametrize(("kind", "options"), BIT_CASES, ids=[f"{of.__name__}-{'-'.join(options)}" for of, options in BIT_CASES])
def test_a_program_has_the_bits_of_its_definition(kind, options, dtype, monkeypatch):
    """Sizes around a piece; parameters that miss steps; states that a gradient of 0 leaves alone; a layout without a program."""
    def trained(programs):
        draw = np.random.default_rng(0)
        params = [mg.tensor(draw.standard_normal(n), dtype=dtype) for n in (1, 5, (33, 70), 1024, 1025, 0, 70000)]
        params = [p.requires_grad_() for p in (*params, mg.tensor(draw.standard_normal((3, 4)), dtype=dtype).t().detach())]
        optimizer = kind(params, **options)
        monkeypatch.setattr(optimizer, "_elementwise", programs, raising=False)
        for step in range(5):
            for i, p in enumerate(params):
                g = draw.standard_normal(p.shape) * (draw.random(p.shape) > 0.1)
                p.grad = None if (step + i) % 4 == 0 else mg.tensor(g, dtype=dtype)
            optimizer.param_groups[0]["lr"] *= 0.5 + (step < 3) / 2
            optimizer.step()
        made = {batch.kernel is not None for made in optimizer._batches.values() for batch in made.batches}
        assert made == {False} if not programs or kind is Summed else True in made
        return [t.detach().double().numpy() for p in params for t in (p, *optimizer.state[p].values())]
    for got, want in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=IDS)
def test_resume_gives_the_same_bits(name, options):
    one = parameters()
    a = getattr(optim, name)(one, **options)
    for step in range(5):
        give(one, step)
        a.step()
    two = [nn.Parameter(mg.tensor(v)) for v in values(one)]
    b = getattr(optim, name)(two, **options)
    b.load_state_dict(a.state_dict())
    three = copy.deepcopy((one, a))
    four = pickle.loads(pickle.dumps((one, a)))
    for step in range(5, 9):
        for params, o in ((one, a), (two, b), three, four):
            give(params, step)
            o.step()
    for other in (two, three[0], four[0]):
        assert all(np.array_equal(x, y) for x, y in zip(values(one), values(other), strict=True))


CHOICES = {"lr": (0.01, 0.3, 1), "momentum": (0, 0.9), "dampening": (0, 0.2), "weight_decay": (0, 0.1), "nesterov": (False, True), "maximize": (False, True),
           "betas": ((0.9, 0.999), (0.5, 0.7), (0.0, 0.9)), "eps": (1e-8, 1e-3), "amsgrad": (False, True), "decoupled_weight_decay": (False, True),
           "rho": (0.9, 0.5), "momentum_decay": (0.004, 0.2), "lambd": (1e-4, 0.1), "t0": (0, 3, 1e6), "etas": ((0.5, 1.2), (0.9, 1.1)), "step_sizes": ((1e-6, 50), (0.1, 0.3)),
           "beta2_decay": (-0.8, 0), "d": (1, 2), "alpha": (0.99, 0.5, 1), "centered": (False, True), "lr_decay": (0, 0.2), "initial_accumulator_value": (0, 0.5), "foreach": (None, True, False), "fused": (None, False)}

NOT_IN_GROUPS = {"nesterov", "momentum", "dampening",              # in a group, PyTorch does not check that they fit
                 "initial_accumulator_value"}                      # nor read this one


def drawn(draw, names):
    return {name: draw.choice(CHOICES[name]) for name in names if draw.random() < 0.6}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS}))
def test_random_options_and_groups_are_pytorchs(torch, float64_numbers, name):
    draw, made = random.Random(name), 0
    names = [n for n in inspect.signature(getattr(optim, name)).parameters if n in CHOICES and (n, name) != ("eps", "Adafactor")]
    for _ in range(120):
        options, dtype = drawn(draw, names), draw.choice([np.float32, np.float64])
        dtype = np.float64 if name == "Adafactor" else dtype        # its sums over a parameter round in another order
        mine = parameters(dtype, draw.randrange(99))
        theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values(mine)]
        groups = [[0], [1, 2]] if draw.random() < 0.5 else [[0, 1, 2]]
        own = [drawn(draw, sorted(set(names) - NOT_IN_GROUPS)) for _ in groups]
        sides = []
        for library, params in ((optim, mine), (torch.optim, theirs)):
            try:
                sides.append(getattr(library, name)([{"params": [params[i] for i in g], **o} for g, o in zip(groups, own, strict=True)], **options))
            except ValueError as error:
                sides.append(str(error))
        a, b = sides
        if isinstance(a, str):
            assert a == b
            continue
        made += 1
        for step in range(10):
            skip = draw.choice([None, None, 0, 2])
            give(mine, step, skip)
            for i, (p, g) in enumerate(zip(theirs, gradients(step, dtype), strict=True)):
                p.grad = None if i == skip else torch.tensor(g)
            if step == 4:                           # each goes on from the other's state
                a_state, b_state = a.state_dict(), b.state_dict()
                theirs_now = {n: {k: torch.tensor(v.numpy()) for k, v in s.items()} for n, s in a_state["state"].items()}
                a.load_state_dict(b_state), b.load_state_dict({"state": theirs_now, "param_groups": a_state["param_groups"]})
            if step == 7:
                rate, decay = draw.choice([0.5, 0.02]), draw.choice([0, 0.3])
                for o in (a, b):
                    o.param_groups[-1].update(lr=rate, weight_decay=decay, maximize=not o.param_groups[-1]["maximize"])
            a.step(), b.step()
            if not all(abs(p.detach().numpy()).max() < 1e3 for p in theirs):        # it diverges
                break
            close(values(mine), [p.detach().numpy() for p in theirs], dtype)
    assert made > 60


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=IDS)
def test_states_saved_before_an_option_existed(name, options):
    """What is off by default is off, other options stay as they are here."""
    kind = getattr(optim, name)
    usual = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
    for missing in kind(parameters(), **options).param_groups[0]:
        if missing == "params":
            continue
        params = parameters()
        a = kind(params, **options)
        give(params, 0)
        a.step()
        state = a.state_dict()
        state["param_groups"][0].pop(missing)
        state["param_groups"][0]["from the future"] = [1, 2]
        a.load_state_dict(state)
        expected = kind(parameters(), **options).param_groups[0][missing]
        if not usual.get(missing, True):
            expected = usual[missing]
        assert a.param_groups[0][missing] == expected and a.param_groups[0]["from the future"] == [1, 2]
        give(params, 1)
        a.step()
        del a.param_groups[0][missing]
        copied = pickle.loads(pickle.dumps((params, a)))
        give(copied[0], 2)
        copied[1].step()


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS} - {"LBFGS"}))
def test_what_another_optimiser_left_in_a_state_does_not_count(name):
    """Its numbers are none of the kernel's columns."""
    def trained(more):
        o = getattr(optim, name)(params := [p for p in parameters() if p.ndim == 2 or name != "Muon"])
        give(params, 0)
        o.step()
        state = o.state_dict()
        for of in state["state"].values():
            of.update({key: mg.tensor(0.5, dtype=mg.float64) for key in more if key not in of})
        o.load_state_dict(state)
        give(params, 1)
        o.step()
        return [p.tolist() for p in params]
    assert trained(("mu_product", "mu", "eta")) == trained(())


def test_a_loaded_state_shares_nothing():
    params = parameters()
    o = optim.Adam(params, lr=mg.tensor(0.1))
    give(params, 0)
    o.step()
    state = copy.deepcopy(o.state_dict())
    before = copy.deepcopy(state)
    other = optim.Adam(fresh := parameters(), lr=mg.tensor(0.5))
    other.load_state_dict(state)
    give(fresh, 1)
    other.step()
    other.param_groups[0]["lr"].mul_(2)
    assert state["param_groups"][0]["lr"].item() == before["param_groups"][0]["lr"].item()
    assert all(np.array_equal(state["state"][n][k].numpy(), before["state"][n][k].numpy()) for n in before["state"] for k in before["state"][n])


def test_groups_have_their_own_options():
    p, q, r = parameters()
    o = optim.SGD([{"params": [p], "lr": 1.0}, {"params": q}], lr=0.5)
    o.add_param_group({"params": [r], "lr": 0.25})
    give([p, q, r], 0)
    before = values([p, q, r])
    o.step()
    for x, y, g, lr in zip(before, values([p, q, r]), gradients(0), (1.0, 0.5, 0.25), strict=True):
        np.testing.assert_allclose(y, x - lr * g, rtol=1e-6)
    assert [g["lr"] for g in o.state_dict()["param_groups"]] == [1.0, 0.5, 0.25]
    o.zero_grad()
    assert all(t.grad is None for t in (p, q, r))


def test_changes_between_steps_are_seen():
    (p, *_), (q, *_) = parameters(), parameters()
    a, b = optim.SGD([p], lr=0.1, momentum=0.9), optim.SGD([q], lr=0.1, momentum=0.9)
    for step in range(4):
        if step == 2:
            a.param_groups[0].update(lr=0.3, momentum=0.5)
            b.load_state_dict(b.state_dict())           # a plan made anew
            b.param_groups[0].update(lr=0.3, momentum=0.5)
        if step == 3:
            p.data = p.data.clone()                     # the parameter's memory moves
        give([p], step), give([q], step)
        a.step(), b.step()
    assert np.array_equal(p.detach().numpy(), q.detach().numpy())
    a.state.clear()
    give([p], 9)
    a.step()
    np.testing.assert_array_equal(a.state[p]["momentum_buffer"].numpy(), gradients(9)[0])


def test_closure_and_hooks():
    (p, *_) = parameters()
    o = optim.SGD([p], lr=0.1)
    seen = []
    o.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    o.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    give([p], 0)
    assert o.step(lambda: seen.append("closure") or 7.0) == 7.0
    assert seen == ["before", "closure", "after"]
    told = []
    o.register_step_pre_hook(lambda o, args, kwargs: told.append(args) or ((*args, lambda: 9.0), kwargs))
    assert o.step() == 9.0 and told == [(o,)]                   # the arguments begin with the optimizer


def test_in_place_steps_are_counted():
    (p, *_) = parameters()
    before = p._version
    give([p], 0)
    optim.Adam([p]).step()
    assert p._version > before


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda p: optim.SGD(p[0], lr=0.1), TypeError, "iterable"),
    (lambda p: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
    (lambda p: optim.SGD(set(p)) if False else optim.SGD([{"params": set(p)}]), TypeError, "ordered"),
    (lambda p: optim.SGD([3.0]), TypeError, "float"),
    (lambda p: optim.SGD([p[0] * 2]), ValueError, "non-leaf"),
    (lambda p: optim.SGD([{"params": [p[0]]}, {"params": [p[0]]}]), ValueError, "more than one parameter group"),
    (lambda p: optim.SGD(p, lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda p: optim.SGD(p, momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda p: optim.SGD(p, nesterov=True), ValueError, "Nesterov"),
    (lambda p: optim.Adam(p, betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda p: optim.Adam(p, betas=(0.9, -0.1)), ValueError, "index 1"),
    (lambda p: optim.Adam(p, eps=-1e-8), ValueError, "Invalid epsilon value"),
    (lambda p: optim.Adam(p, lr=float("nan")), ValueError, "Invalid learning rate: nan"),
    (lambda p: optim.Adam(p, fused=True, foreach=True), RuntimeError, "`foreach` cannot be `True` together"),
    (lambda p: optim.Adam(p, fused=True, differentiable=True), RuntimeError, "`differentiable` cannot be `True` together"),
    (lambda p: optim.Adam(p, lr=mg.tensor(0.1), foreach=True), ValueError, "lr as a Tensor is not supported"),
    (lambda p: optim.AdamW(p, betas=(mg.tensor(0.9), mg.tensor(0.99)), foreach=True), ValueError, r"betas\[0\] as a Tensor is not supported"),
    (lambda p: optim.RMSprop(p, alpha=-1), ValueError, "Invalid alpha value"),
    (lambda p: optim.Adagrad(p, lr_decay=-1), ValueError, "Invalid lr_decay value"),
    (lambda p: optim.Adadelta(p, rho=1.1), ValueError, "Invalid rho value: 1.1"),
    (lambda p: optim.Adadelta(p, lr=-1), ValueError, "Invalid learning rate"),
    (lambda p: optim.Adamax(p, betas=(0.0, 1.0)), ValueError, "index 1"),
    (lambda p: optim.NAdam(p, momentum_decay=-0.2), ValueError, "Invalid momentum_decay value: -0.2"),
    (lambda p: optim.RAdam(p, weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
    (lambda p: optim.Rprop(p, etas=(1.0, 0.5)), ValueError, "Invalid eta values: 1.0, 0.5"),
    (lambda p: optim.ASGD(p, weight_decay=-0.5), ValueError, "Invalid weight_decay value: -0.5"),
    (lambda p: optim.Adafactor(p, d=0.5), ValueError, "Clipping threshold d should be >= 1 but is: 0.5"),
    (lambda p: optim.Muon(p), ValueError, "only supports 2D"),
    (lambda p: optim.Muon(p[:1], momentum=-1), ValueError, "momentum should be >= 0"),
    (lambda p: optim.Muon(p[:1], ns_steps=100), ValueError, "less than 100"),
    (lambda p: optim.Muon(p[:1], ns_steps=2.5), TypeError, "interpreted as an integer"),
    (lambda p: optim.Muon(p[:1], ns_coefficients=(1.0, 2.0)), ValueError, "exactly 3 values"),
    (lambda p: optim.Muon([{"params": p[:1], "ns_steps": 100}]), ValueError, "less than 100"),
    (lambda p: optim.Muon(p[:1], adjust_lr_fn="rms"), ValueError, "rms is not supported"),
    (lambda p: optim.SparseAdam(p, lr=0), ValueError, "Invalid learning rate: 0"),
    (lambda p: optim.SparseAdam(p, eps=0), ValueError, "Invalid epsilon value: 0"),
    (lambda p: optim.LBFGS(p, lr=-0.5), ValueError, "Invalid learning rate: -0.5"),
    (lambda p: optim.LBFGS([{"params": p[:1]}, {"params": p[1:]}]), ValueError, "per-parameter options"),
    (lambda p: optim.SGD([{"params": p[:1]}, {"params": p[1:], "param_names": ["a", "b"]}]), ValueError, "with names"),
    (lambda p: optim.SGD(p).load_state_dict(optim.SGD(p[:1]).state_dict()), ValueError, "doesn't match the size"),
    (lambda p: optim.SGD(p).load_state_dict({"state": {}, "param_groups": []}), ValueError, "different number of parameter groups"),
])
def test_bad_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make(parameters())


@pytest.mark.parametrize("make", [getattr(optim, name) for name in sorted({name for name, _ in OPTIMIZERS})])
def test_one_implementation_is_what_foreach_fused_and_capturable_ask_for(make):
    found = []
    for option in ("foreach", "fused", "capturable", None):
        if option and option not in inspect.signature(make).parameters:         # PyTorch has none either
            continue
        p = nn.Parameter(mg.tensor([1.0, -2.0]))
        optimizer = make([p], lr=0.1, **({option: True} if option else {}))
        p.grad = mg.tensor([0.5, 3.0])
        optimizer.step()
        found.append(p.tolist())
        assert option is None or optimizer.state_dict()["param_groups"][0][option] is True
    assert all(values == found[0] for values in found)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=IDS)
def test_captured_steps_follow_the_schedule(name, options):
    """Eager and captured training give the same bits, while the schedule moves the rates."""
    def make():
        mg.manual_seed(0)
        model = nn.Linear(6, 3)
        o = getattr(optim, name)(model.parameters(), **options)
        s = lr_scheduler.ExponentialLR(o, 0.9)

        def step(x, y):
            o.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            o.step()
            s.step()
            return loss
        return model, o, step

    draw = np.random.RandomState(0)
    data = [(mg.tensor(draw.randn(8, 6), dtype=np.float32), mg.tensor(draw.randn(8, 3), dtype=np.float32)) for _ in range(6)]
    (one, _, eager), (two, o, step) = make(), make()
    captured = mg.capture(step)
    for x, y in data:
        a, b = eager(x, y), captured(x, y)
        assert a.item() == b.item()
        assert all(np.array_equal(p.detach().numpy(), q.detach().numpy()) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    give_rate = o.param_groups[0]["lr"]
    assert give_rate == pytest.approx(options.get("lr", o.defaults["lr"]) * 0.9**6)


# ---- L-BFGS ----

LBFGS = [{}, {"lr": 0.1}, {"line_search_fn": "strong_wolfe"}, {"line_search_fn": "strong_wolfe", "history_size": 2, "max_iter": 5},
         {"max_iter": 4, "max_eval": 3}, {"line_search_fn": "strong_wolfe", "max_eval": 4}, {"lr": 1e-3, "tolerance_grad": 10.0}]


def rosenbrock(params):
    """A narrow valley in all numbers of the parameters."""
    total = 0
    for p in params:
        p = p.reshape(-1)
        total = total + (100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2).sum() + (p[-1] - 1) ** 2
    return total


@pytest.mark.parametrize("options", [pytest.param(o, marks=() if "history_size" in o else pytest.mark.slow) for o in LBFGS], ids=str)
def test_lbfgs_steps_are_pytorchs(torch, options):
    mine = parameters(np.float64)
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values(mine)]
    a, b, losses = optim.LBFGS(mine, **options), torch.optim.LBFGS(theirs, **options), []

    def closure(params, o):
        def compute():
            o.zero_grad()
            loss = rosenbrock(params)
            loss.backward()
            losses.append(float(loss.detach()))
            return loss
        return compute
    for step in range(8):
        if step == 5:                               # each goes on from the other's state
            def torch_state(v):
                return torch.tensor(v.numpy()) if isinstance(v, mg.Tensor) else [torch_state(x) for x in v] if isinstance(v, list) else v
            state = a.state_dict()
            moved = {"state": {n: {k: torch_state(v) for k, v in s.items()} for n, s in state["state"].items()}, "param_groups": state["param_groups"]}
            a.load_state_dict(b.state_dict()), b.load_state_dict(moved)
        first, second = a.step(closure(mine, a)).item(), b.step(closure(theirs, b)).item()
        # atol: at the bottom of the valley the loss, 1e-11, is a square of differences that are rounding of numbers near 1
        np.testing.assert_allclose(first, second, rtol=1e-7, atol=1e-14)
        half = len(losses) // 2
        np.testing.assert_allclose(losses[:half], losses[half:], rtol=1e-6, atol=1e-14, err_msg="the same evaluations")
        losses.clear()
        for p, q in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6, atol=1e-9)
    one, two = a.state_dict(), b.state_dict()
    assert one["param_groups"] == two["param_groups"] and set(one["state"][0]) == set(two["state"][0])
    assert all(one["state"][0][k] == two["state"][0][k] for k in ("func_evals", "n_iter"))


def test_lbfgs_by_itself():
    params = parameters(np.float64)
    o = optim.LBFGS(params, max_iter=300, max_eval=1000, line_search_fn="strong_wolfe")

    def closure():
        assert mg.is_grad_enabled()
        o.zero_grad()
        loss = rosenbrock(params)
        loss.backward()
        return loss
    o.step(closure)
    assert all(np.allclose(v, 1) for v in values(params)), "the bottom of the valley"
    before = values(params)
    o.step(closure)                                 # nothing to do: the gradient is 0
    assert all(np.allclose(x, y) for x, y in zip(before, values(params), strict=True))
    with pytest.raises(TypeError, match="closure"):
        o.step()
    p = nn.Parameter(mg.tensor([3.0]))
    bad = optim.LBFGS([p], line_search_fn="weak")
    with pytest.raises(RuntimeError, match="None or 'strong_wolfe'"):
        bad.step(lambda: (p * p).sum().backward() or (p * p).sum())
    captured = mg.capture(lambda: o.step(closure))
    with pytest.raises(RuntimeError, match="number of iterations depends on values"):
        captured()


def test_the_text_has_a_line_between_groups(torch):
    a, b = ([{"params": [lib.nn.Parameter(lib.ones(2))]}, {"params": [lib.nn.Parameter(lib.ones(2))], "lr": 0.5}] for lib in (mg, torch))
    assert repr(optim.SGD(a)) == repr(torch.optim.SGD(b))


@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 0.0}, {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "eps": 10.0}], ids=str)
def test_muon_is_pytorchs(torch, monkeypatch, options):
    """Which computes its matrices in bfloat16, unless it is kept from it."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    draw = np.random.RandomState(0)
    start = [draw.randn(3, 4), draw.randn(5, 2)]
    mine, theirs = [nn.Parameter(mg.tensor(v)) for v in start], [torch.nn.Parameter(torch.tensor(v)) for v in start]
    a, b = optim.Muon(mine, **options), torch.optim.Muon(theirs, **options)
    for step in range(6):
        for p, q in zip(mine, theirs, strict=True):
            g = draw.randn(*p.shape)
            p.grad, q.grad = (None, None) if step == 1 and p is mine[1] else (mg.tensor(g), torch.tensor(g))
        a.step(), b.step()
        close(values(mine), [q.detach().numpy() for q in theirs], np.float64)
    one, two = a.state_dict(), b.state_dict()
    assert one["param_groups"] == two["param_groups"] and {k: set(v) for k, v in one["state"].items()} == {k: set(v) for k, v in two["state"].items()}
    for i, state in two["state"].items():
        close([one["state"][i][k].numpy() for k in state], [v.numpy() for v in state.values()], np.float64)
    c = optim.Muon(fresh := [nn.Parameter(mg.tensor(v)) for v in values(mine)], **options)
    c.load_state_dict(two)
    for p, q in zip(mine, fresh, strict=True):
        p.grad = q.grad = mg.ones(*p.shape, dtype=mg.float64)
    a.step(), c.step()
    close(values(fresh), values(mine), np.float64)


def test_muon_steps_along_all_singular_directions():
    p = nn.Parameter(mg.zeros(4, 6))
    p.grad = mg.tensor(np.diag([100.0, 10.0, 1.0, 0.1])[:, [0, 1, 2, 3, 0, 1]] * np.array([1, 1, 1, 1, 0, 0]), dtype=np.float32)
    optim.Muon([p], lr=1.0, ns_steps=8).step()
    sizes = mg.linalg.svdvals(p.detach()).numpy()
    assert ((sizes > 0.6) & (sizes < 1.3)).all()
    optimizer = optim.Muon([p])
    with pytest.raises(ValueError, match="2D"):
        optimizer.add_param_group({"params": [nn.Parameter(mg.zeros(3))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "maximize": True}], ids=str)
def test_sparse_adam_is_pytorchs(torch, options):
    draw = np.random.RandomState(0)
    tables = [lib.nn.Embedding(7, 3, sparse=True).double() for lib in (mg, torch)]
    tables[0].weight.data = mg.tensor(tables[1].weight.detach().numpy())
    sides = [where.SparseAdam(t.parameters(), **options) for where, t in zip((optim, torch.optim), tables, strict=True)]
    for _ in range(6):
        rows, scale = draw.randint(0, 7, (3,)), draw.randn(3, 3)
        for lib, table, o in zip((mg, torch), tables, sides, strict=True):
            o.zero_grad()
            (table(lib.tensor(rows)) * lib.tensor(scale)).sum().backward()
            o.step()
        close([tables[0].weight.detach().numpy()], [tables[1].weight.detach().numpy()], np.float64)
    one, two = (o.state_dict() for o in sides)
    assert one["param_groups"] == two["param_groups"] and set(one["state"][0]) == set(two["state"][0])
    close([one["state"][0][k].numpy() for k in ("exp_avg", "exp_avg_sq")], [two["state"][0][k].numpy() for k in ("exp_avg", "exp_avg_sq")], np.float64)
    vector = nn.Parameter(mg.ones(3))
    o = optim.SparseAdam([vector], lr=0.5)
    vector.grad = mg.tensor([1.0, 0.0, -1.0])
    o.step()
    np.testing.assert_allclose(values([vector])[0], [0.5, 1.0, 1.5], atol=1e-5)


def test_new_optimizers_follow_a_captured_step():
    def make():
        mg.manual_seed(0)
        table, layer = nn.Embedding(6, 4, sparse=True), nn.Linear(4, 3)
        both = [optim.SparseAdam(table.parameters(), lr=0.1), optim.Muon([layer.weight], lr=0.05)]

        def step(x):
            for o in both:
                o.zero_grad()
            loss = (layer(table(x)) ** 2).mean()
            loss.backward()
            for o in both:
                o.step()
            return loss
        return table, layer, both, step
    (t1, l1, o1, eager), (t2, l2, o2, step) = make(), make()
    captured = mg.capture(step)
    for i in range(5):
        for o in (*o1, *o2):
            o.param_groups[0]["lr"] = 0.1 / (i + 1)
        x = mg.tensor([i, 2, 5 - i])
        assert eager(x).item() == captured(x).item()
    assert mg.equal(t1.weight, t2.weight) and mg.equal(l1.weight, l2.weight)


@pytest.mark.parametrize("name, options", [
    ("SGD", {"momentum": 0.9, "nesterov": True}), ("SGD", {"weight_decay": 0.1}), ("Adam", {"amsgrad": True, "weight_decay": 0.1}), ("AdamW", {}), ("RAdam", {}), ("NAdam", {}), ("Adamax", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "maximize": True}), ("Adagrad", {"lr_decay": 0.1}), ("Adadelta", {}), ("ASGD", {"t0": 1, "weight_decay": 0.1}), ("Rprop", {})])
def test_steps_can_be_differentiated(name, options):
    """By parameters, gradients and learning rate, through three steps."""
    def stepped(start, slope, lr):
        p = start.clone()
        optimizer = getattr(optim, name)([p], lr=lr, differentiable=True, **options)
        for k in range(3):
            p.grad = slope * (k + 1) + slope.sin()
            optimizer.step()
        assert all(s.requires_grad for s in optimizer.state[p].values() if s.ndim)
        return p
    given = [mg.tensor(v, dtype=mg.float64, requires_grad=True) for v in ([0.5, -1.0, 2.0], [0.4, 0.7, -1.2], 0.05)]
    assert mg.autograd.gradcheck(stepped, given if name not in ("ASGD", "Rprop") else (*given[:2], 0.05))
    plain = mg.tensor([0.5, -1.0, 2.0], dtype=mg.float64)
    optimizer = getattr(optim, name)([plain], lr=0.05, **options)
    for k in range(3):
        plain.grad = (given[1] * (k + 1) + given[1].sin()).detach()
        optimizer.step()
    assert mg.allclose(stepped(*given), plain, rtol=1e-12)


def test_a_differentiable_step_is_no_captured_one():
    p = mg.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], differentiable=True)
    with pytest.raises(RuntimeError, match="leaf"):                     # as in PyTorch: a clone can be changed in a graph
        p.grad = mg.ones(2)
        optimizer.step()
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([p * 1])
    q = (p * 1).detach()
    q.grad = mg.ones(2)
    captured = optim.SGD([q], differentiable=True)
    with pytest.raises(RuntimeError, match="cannot be differentiable"):
        mg.capture(lambda: captured.step())()
    assert not mg.core.tape.observers


def test_lbfgs_has_one_group():
    p, q = mg.ones(2, requires_grad=True), mg.ones(1, requires_grad=True)
    o = optim.LBFGS([p])
    with pytest.raises(ValueError, match="LBFGS doesn't support per-parameter options"):
        o.add_param_group({"params": [q]})
    assert len(o.param_groups) == 1
