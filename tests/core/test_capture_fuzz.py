"""Random scripts of steps and of changes between them: an eager and a captured world hold the same bits after each.

`python tests/core/test_capture_fuzz.py 5000` runs more seeds; `... 17 18` runs those from 17 on to 18, and tells the script.
"""
from __future__ import annotations

import contextvars
import operator
import re
import sys
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F
from minigrad.ops.random import default_generator

SECONDS = 20


class Scaled(nn.Module):
    """A module of the user's own: Python attributes, a table, a buffer, a parameter that a global scales."""

    shift = 0.0

    def __init__(self):
        super().__init__()
        self.scale, self.table = 2.0, {"power": 1.0, "flag": False}
        self.gain = nn.Parameter(mg.ones(4))
        self.register_buffer("seen", mg.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen += 1
        y = x * self.gain * self.scale * self.table["power"] + self.shift + OFFSET
        return y.abs() if self.table["flag"] else y


class Config(dict):
    """A dict with attributes, as configurations often are."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Kind(type):
    """A class of classes, whose property reads a table."""

    power = property(lambda cls: FACTORS["power"])


class Odd(nn.Module, metaclass=Kind):
    """A module that reads what it does not spell out."""

    def __init__(self):
        super().__init__()
        self.part_0, self.part_1, self.config = 1.0, 2.0, Config(rate=1.0)
        self.gain, self.fetch = nn.Parameter(mg.ones(4)), operator.attrgetter("config.rate")

    def forward(self, x):
        y = x * self.gain * sum(getattr(self, f"part_{i}") for i in range(2)) * self.fetch(self) * type(self).power
        return y * self.config.rate + eval("OFFSET") + LEVEL.get() + sys.modules[__name__].FACTORS["shift"]


class Odder(Odd):
    """Another class for the same object."""

    def forward(self, x):
        return super().forward(x) + vars(self)["part_1"]


OFFSET = 0.0
FACTORS = {"power": 1.0, "shift": 0.0}
LEVEL = contextvars.ContextVar("level", default=0.0)
MODELS = [lambda: [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)],
          lambda: [nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)],
          lambda: [nn.Linear(3, 4), Scaled(), nn.Linear(4, 2, bias=False)],
          lambda: [nn.Linear(3, 4), nn.RMSNorm(4), Scaled(), nn.Dropout(0.2), nn.Linear(4, 2)],
          lambda: [nn.Linear(3, 4), Odd(), nn.Linear(4, 2)]]
OPTIMIZERS = [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {}), ("RMSprop", {}), ("RMSprop", {"momentum": 0.5}),
              ("Adagrad", {})]
OPTIONS = {"lr": [0.1, 0.01], "momentum": [0.0, 0.5, 0.9], "nesterov": [True, False], "maximize": [True, False],
           "weight_decay": [0.0, 0.1], "dampening": [0.0, 0.3], "amsgrad": [True, False], "betas": [(0.5, 0.9), (0.0, 0.9)],
           "eps": [1e-3], "alpha": [0.5], "centered": [True, False], "lr_decay": [0.1]}


class World:
    """One of the twins. `config` is what the seed chose."""

    def __init__(self, config, wrap):
        model, (kind, options), self.pieces = config
        mg.manual_seed(5)
        self.model = nn.Sequential(*MODELS[model]())
        self.kind, self.options = kind, options
        self.optimizer = self.make_optimizer()
        self.scheduler = optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.handles, self.factor, self.free = [], 1.0, mg.ones(2)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.initial = self.optimizer.state_dict()

        def loss_of(x):
            return (self.model(x) * self.free * self.factor).square().mean()

        def full(x):
            self.optimizer.zero_grad()
            loss = loss_of(x)
            loss.backward()
            self.optimizer.step()
            return loss

        def keeping(x):
            loss = loss_of(x)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=False)
            return loss, norm

        def back(x):
            loss = loss_of(x)
            loss.backward()
            return loss

        def scheduled(x):
            loss = full(x)
            self.scheduler.step()
            return loss

        def by_hand():
            with mg.no_grad():
                for p in self.model.parameters():
                    if p.grad is not None:
                        p -= p.grad * 0.01

        def averaged():
            with mg.no_grad():
                for a, p in zip(self.average, self.model.parameters(), strict=True):
                    a.mul_(0.9).add_(p * 0.1)
            return self.average[0].sum()

        def in_place(x):
            x.mul_(0.5).add_(self.free[0])
            return x.sum()
        self.functions = {"full": wrap(full), "keeping": wrap(keeping), "back": wrap(back), "scheduled": wrap(scheduled),
                          "by_hand": wrap(by_hand), "averaged": wrap(averaged), "in_place": wrap(in_place),
                          "forward": wrap(lambda x: F.softmax(self.model(x), -1)),
                          "step": wrap(lambda: self.optimizer.step()), "clear": wrap(lambda: self.optimizer.zero_grad()),
                          "clip": wrap(lambda: nn.utils.clip_grad_norm_(self.model.parameters(), 0.1))}

    def make_optimizer(self):
        return getattr(optim, self.kind)(self.model.parameters(), **{"lr": 0.05, **self.options})

    def bits(self):
        """All that a step may change."""
        state = [v for p in self.model.parameters() for v in self.optimizer.state.get(p, {}).values()]
        tensors = [*self.model.state_dict().values(), *[p.grad for p in self.model.parameters()], *self.average,
                   *[s for s in state if isinstance(s, mg.Tensor)], generator().get_state()]
        return [None if t is None else np.asarray(t.numpy(force=True)).tobytes() for t in tensors] + [
            self.optimizer.param_groups[0]["lr"], self.scheduler.last_epoch]


def generator():
    """That of the default device, on which the scripts run."""
    return default_generator(mg.get_default_device())


def values(n, k):
    return mg.tensor(np.random.default_rng([n, k]).standard_normal((n, 3)).astype(np.float32))


def doubled(*args):
    return args[-1] * 2


def act(w, name, a, b):
    """One action of a script on one world, chosen by the numbers a and b. Returns what a step returned."""
    parameters = list(w.model.parameters())
    p, m = parameters[a % len(parameters)], list(w.model)[a % len(w.model)]
    if name in w.functions:
        x = values(1 + b % 3 if name != "full" else 2 + b % 2, a)
        with mg.set_grad_enabled(not (name == "forward" and b % 4 == 0)), mg.autocast("cpu", mg.float16, enabled=b % 7 == 0):
            without = name in ("by_hand", "averaged", "step", "clear", "clip")
            made = w.functions[name]() if without else w.functions[name](x)
        made = made if isinstance(made, tuple) else (made, x)
        return [t.numpy(force=True).tobytes() for t in made if isinstance(t, mg.Tensor)]
    CHANGES[name](w, p, m, a, b)
    return None


def option(w, p, m, a, b):
    group = w.optimizer.param_groups[0]
    names = [n for n in OPTIONS if n in group]
    name = names[a % len(names)]
    group[name] = OPTIONS[name][b % len(OPTIONS[name])]
    if group.get("nesterov"):
        group["momentum"], group["dampening"] = group["momentum"] or 0.9, 0


def regroup(w, p, m, a, b):
    group = w.optimizer.param_groups[0]
    if len(group["params"]) > 1 and b % 2:
        w.optimizer.add_param_group({"params": [group["params"].pop(a % len(group["params"]))], "lr": 0.2})
    elif len(group["params"]) > 1:
        group["params"].pop(a % len(group["params"]))


def attribute(w, p, m, a, b):
    if isinstance(m, nn.Dropout):
        m.p = (0.1, 0.5, 0.0)[b % 3]
    elif isinstance(m, nn.BatchNorm1d):
        setattr(m, *(("momentum", 0.5), ("momentum", None), ("eps", 0.1), ("track_running_stats", False),
                     ("track_running_stats", True))[b % 5])
    elif isinstance(m, (nn.LayerNorm, nn.RMSNorm)):
        m.eps = (0.1, 1e-5)[b % 2]
    elif isinstance(m, Scaled):
        (lambda: setattr(m, "scale", 1.0 + b % 3), lambda: m.table.update(power=1.0 + b % 2), lambda: setattr(m, "shift", 0.5),
         lambda: m.table.update(flag=bool(b % 2)))[a % 4]()


def odd(w, p, m, a, b):
    global OFFSET
    for m in w.model:
        if isinstance(m, Odd):
            (lambda: setattr(m, "part_1", 1.0 + b % 3), lambda: m.config.update(rate=1.0 + b % 2), lambda: FACTORS.update(power=1.0 + b % 2),
             lambda: FACTORS.update(shift=b % 2 * 0.5), lambda: LEVEL.set(b % 2 * 0.5), lambda: setattr(m, "__class__", (Odd, Odder)[b % 2]),
             lambda: setattr(m, "part_2", b), lambda: setattr(m.config, "rate", b % 2 * 0.5))[a % 8]()
    OFFSET = b % 2 * 0.25 if a % 9 == 8 else OFFSET


def hook(w, p, m, a, b):
    kinds = [lambda: m.register_forward_hook(doubled), lambda: m.register_forward_pre_hook(lambda m, args: (args[0] + 1,)),
             lambda: p.register_hook(doubled), lambda: w.optimizer.register_step_pre_hook(lambda o, args, kw: p.mul_(0.5) and None),
             lambda: m.register_full_backward_hook(lambda m, given, out: tuple(g if g is None else g * 2 for g in given)),
             lambda: nn.module.register_module_forward_hook(doubled)]
    if b % 3 == 0 and w.handles:
        w.handles.pop(a % len(w.handles)).remove()
    elif a % 6 == 3:
        def halved(optimizer, args, kwargs):
            with mg.no_grad():
                p.mul_(0.5)
        w.handles.append(w.optimizer.register_step_pre_hook(halved))
    elif p.requires_grad or a % 6 != 2:
        w.handles.append(kinds[a % 6]())


def rebound(w, p, m, a, b):
    def module():
        mg.manual_seed(b)
        w.model[len(w.model) - 1] = nn.Linear(4, 2, bias=a % 2 == 0)
    def parameter():
        if getattr(m, "weight", None) is not None:
            m.weight = nn.Parameter(m.weight.detach() * 0.5)
    (module, parameter, lambda: setattr(w, "free", mg.full((2,), float(b % 3))), lambda: setattr(w, "factor", 1.0 + b % 2),
     lambda: setattr(w, "optimizer", w.make_optimizer()), lambda: setattr(p, "data", p.data * 0.9))[b % 6]()


def grads(w, p, m, a, b):
    (lambda: setattr(p, "grad", None), lambda: setattr(p, "grad", mg.ones(p.shape)), lambda: w.optimizer.zero_grad(),
     lambda: w.optimizer.zero_grad(False), lambda: p.grad is not None and p.grad.mul_(2),
     lambda: (w.model(values(3, a)) * w.free).sum().backward(), lambda: w.model.zero_grad())[b % 7]()


def state(w, p, m, a, b):
    def name():
        own = w.optimizer.state.get(p, {})
        for key in [k for k in own if k != "step"][:1]:
            own[key] = own[key] * 0.5 if own[key] is not None else None
    (lambda: w.optimizer.load_state_dict(w.initial), lambda: w.optimizer.state.clear(), name,
     lambda: w.optimizer.state.pop(p, None), lambda: w.optimizer.load_state_dict(w.optimizer.state_dict()),
     lambda: w.model.load_state_dict({k: v.clone() * 0.9 if v.is_floating_point() else v for k, v in w.model.state_dict().items()}),
     )[b % 6]()


def kept(w, p, m, a, b):
    w.held = [p.grad, p.grad is not None and p.grad.numpy(force=True)]


CHANGES = {"option": option, "regroup": regroup, "attribute": attribute, "hook": hook, "rebound": rebound, "grads": grads,
           "state": state, "kept": kept, "odd": odd,
           "freeze": lambda w, p, m, a, b: (p if a % 2 else m).requires_grad_(bool(b % 2)),
           "mode": lambda w, p, m, a, b: (m if a % 2 else w.model).train(bool(b % 2)),
           "schedule": lambda w, p, m, a, b: w.scheduler.step(),
           "seed": lambda w, p, m, a, b: mg.manual_seed(b)}
STEPS = ["full", "keeping", "back", "scheduled", "by_hand", "averaged", "in_place", "forward", "step", "clear", "clip"]


def script(seed):
    rng = np.random.default_rng(seed)
    config = (int(rng.integers(len(MODELS))), OPTIMIZERS[rng.integers(len(OPTIMIZERS))], None)
    favourite = rng.choice(STEPS, 2)
    actions = []
    for _ in range(int(rng.integers(6, 25))):
        name = rng.choice(STEPS) if rng.random() < 0.15 else rng.choice(favourite) if rng.random() < 0.6 else rng.choice(list(CHANGES))
        actions.append((str(name), int(rng.integers(100)), int(rng.integers(100))))
    return config, actions


def run(seed, verbose=False):
    """Runs a script in both worlds. AssertionError where they differ, or if only one of them raises."""
    config, actions = script(seed)
    worlds = [World(config, wrap) for wrap in (lambda f: f, mg.capture)]
    states = [generator().get_state()] * 2
    global OFFSET
    OFFSET, _ = 0.0, FACTORS.update(power=1.0, shift=0.0)
    LEVEL.set(0.0)
    try:
        for step, (name, a, b) in enumerate(actions):
            seen = []
            for i, w in enumerate(worlds):
                generator().set_state(states[i])
                try:
                    seen.append((act(w, name, a, b), w.bits()))
                except Exception as error:
                    seen.append((type(error), re.sub(r"\d{6,}", "an id", str(error))))
                states[i] = generator().get_state()
            if verbose:
                print(step, name, a, b, seen[1][0] if isinstance(seen[1][0], type) else "", seen[1][1] if isinstance(seen[1][1], str) else "")
            if isinstance(seen[0][0], type):
                assert seen[0] == seen[1], f"seed {seed}, action {step} {name}: {seen[0]} against {seen[1][:2]}"
                return
            assert seen[0] == seen[1], (f"seed {seed}, action {step} {name, a, b}: "
                                        f"{seen[1] if isinstance(seen[1][0], type) else 'other bits'}")
    finally:
        for handle in [h for w in worlds for h in w.handles]:
            handle.remove()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_random_scripts():
    start = time.perf_counter()
    for seed in range(100000):
        run(seed)
        if seed > 20 and time.perf_counter() - start > SECONDS:
            break


if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore")
    first, last = ([0, *map(int, sys.argv[1:])])[-2:] if len(sys.argv) > 1 else (0, 200)
    failed = 0
    for seed in range(first, last):
        try:
            run(seed, len(sys.argv) > 2)
        except AssertionError as error:
            failed += 1
            print(str(error)[:300])
    print(f"{last - first} scripts, {failed} failed")
