"""What a captured step can reach in Python: a change of it between two calls is seen, or the step is refused.

Each program returns a step and the changes that are made one after another; an eager and a captured run give the same.
"""
from __future__ import annotations

import argparse
import array
import collections
import contextvars
import functools
import os
import random
import sys
import types
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import distributions, nn, optim
from minigrad.nn.module import register_module_forward_hook


def scaled_by(get, *changes):
    return lambda x: x * get(), changes


def containers():
    large, table, numbers = [1.0] * 1000, {i: mg.ones(3) for i in range(1000)}, np.ones((300, 300))
    values, raw, objects = array.array("d", [1.0]), bytearray(b"\1"), np.array([1.0, None], dtype=object)
    inside, user, chained = np.array([{"s": 1.0}], dtype=object), collections.UserDict(s=1.0), {"s": 1.0}
    chain, proxy = collections.ChainMap({}, chained), types.MappingProxyType(chained)
    return [scaled_by(lambda: large[500], lambda: large.__setitem__(500, 2.0)),
            scaled_by(lambda: table[500], lambda: table.update({500: mg.full((3,), 2.0)})),
            scaled_by(lambda: float(numbers.sum()), lambda: numbers.fill(2)),
            scaled_by(lambda: values[0], lambda: values.__setitem__(0, 2.0)),
            scaled_by(lambda: raw[0], lambda: raw.__setitem__(0, 2)),
            scaled_by(lambda: objects[0], lambda: objects.__setitem__(0, 2.0)),
            scaled_by(lambda: inside[0]["s"], lambda: inside[0].update(s=2.0)),
            scaled_by(lambda: user["s"], lambda: user.update(s=2.0)),
            scaled_by(lambda: chain["s"] + proxy["s"], lambda: chained.update(s=2.0))]


def functions():
    def plain(x, s=1.0, *, t=1.0):
        return x * s * t

    def other(x, s=1.0, *, t=1.0):
        return x - s - t
    module = types.ModuleType("settings_of_a_program")
    module.rate, module.__file__ = 1.0, "/tmp/settings.py"
    sys.modules[module.__name__] = module

    def imports(x):
        import settings_of_a_program
        return x * settings_of_a_program.rate
    value, holder = contextvars.ContextVar("value"), argparse.Namespace(s=1.0)
    value.set(1.0)
    reference, kept = weakref.ref(holder), [holder]
    os.environ["MINIGRAD_TEST"] = "1"
    return [(lambda x: plain(x), [lambda: setattr(plain, "__defaults__", (2.0,)), lambda: plain.__kwdefaults__.update(t=3.0),
                                  lambda: setattr(plain, "__code__", other.__code__)]),
            (imports, [lambda: setattr(module, "rate", 2.0)]),
            scaled_by(value.get, lambda: value.set(2.0)), scaled_by(lambda: reference().s, lambda: setattr(kept[0], "s", 2.0)),
            scaled_by(lambda: float(os.environ["MINIGRAD_TEST"]), lambda: os.environ.update(MINIGRAD_TEST="2"))]


def classes():
    class Base:
        rate = 1.0

    class Below(Base):
        pass
    below = Below()

    class Plain(optim.SGD):
        rate = 0.5

        def step(self):
            with mg.no_grad():
                for p in self.param_groups[0]["params"]:
                    p -= p.grad * self.rate
    w = nn.Parameter(mg.ones(3))
    w.rate, o = 1.0, Plain([w], 0.1)

    def step(x):
        o.zero_grad()
        (w * w * x).sum().backward()
        o.step()
        return w * w.rate
    return [scaled_by(lambda: below.rate, lambda: setattr(Base, "rate", 2.0), lambda: setattr(Below, "rate", 3.0),
                      lambda: setattr(below, "rate", 4.0)),
            (step, [lambda: setattr(o, "rate", 0.1), lambda: setattr(w, "rate", 2.0)])]


def hooks():
    w, c, m = nn.Parameter(mg.ones(3)), [2.0], nn.Linear(3, 3)
    w.register_hook(lambda g: g * c[0])
    w.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", p.grad * c[0]))
    o = optim.SGD([w], 0.1)
    o.register_step_pre_hook(lambda o, args, kwargs: setattr(w, "grad", w.grad + c[0]))

    def step(x):
        o.zero_grad()
        (w * w * x).sum().backward()
        o.step()
        return w * 1
    handle = register_module_forward_hook(lambda m, args, out: out * c[0])
    return [(step, [lambda: c.__setitem__(0, 5.0), handle.remove]),
            (lambda x: m(x), [lambda: c.__setitem__(0, 5.0), handle.remove])]


def members():
    layers, named, plain = nn.Sequential(nn.Linear(3, 3)), nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}), nn.Linear(3, 3)
    norm, listed = nn.BatchNorm1d(3).eval(), nn.ModuleList([nn.Linear(3, 3), nn.Tanh()])
    return [(lambda x: layers(x), [lambda: layers.insert(0, nn.Tanh()), lambda: layers._modules.update({"1": nn.Linear(3, 3)})]),
            (lambda x: functools.reduce(lambda y, m: m(y), named.values(), x), [lambda: named.pop("a"), named.clear]),
            (lambda x: functools.reduce(lambda y, m: m(y), listed, x), [lambda: listed.insert(0, nn.Tanh()), lambda: listed.__delitem__(1)]),
            (lambda x: plain(x), [lambda: plain._parameters.update(weight=nn.Parameter(mg.ones(3, 3)))]),
            (lambda x: norm(x), [lambda: norm._buffers.update(running_mean=mg.ones(3))])]


def families():
    normal, probs = distributions.Normal(mg.zeros(3), mg.ones(3)), mg.full((3,), 0.3)
    coin, affine = distributions.Bernoulli(probs=probs), distributions.AffineTransform(1.0, 2.0)
    return [(lambda x: normal.log_prob(x), [lambda: setattr(normal, "loc", mg.ones(3)), lambda: setattr(normal, "scale", mg.full((3,), 2.0))]),
            (lambda x: coin.logits * x, [lambda: probs.add_(0.1), lambda: vars(coin).pop("logits")]), (lambda x: affine(x), [lambda: setattr(affine, "loc", 3.0)])]


@pytest.mark.parametrize("kind, number", [(kind, i) for kind, count in ((containers, 9), (functions, 5), (classes, 2), (hooks, 2),
                                                                        (members, 5), (families, 3)) for i in range(count)])
def test_changes_are_seen(kind, number):
    seen = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        step, changes = kind()[number]
        step = wrap(step)
        found = [step(mg.ones(2, 3)).tolist() for _ in range(2)]
        for change in changes:
            change()
            found += [step(mg.ones(2, 3)).tolist() for _ in range(2)]
        seen.append(found)
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][-1]                    # the changes do matter


@pytest.mark.parametrize("draw", [random.random, lambda: random.uniform(0, 1), lambda: np.random.rand(), np.random.random])
def test_numbers_from_the_generators_of_python_and_numpy_are_refused(draw):
    with pytest.raises(RuntimeError, match="drew numbers while recording"):
        mg.capture(lambda x: x * draw())(mg.ones(2))
