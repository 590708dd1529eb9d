"""What a captured step can reach in Python: a change of it between two calls is seen, or the step is refused.

Each program returns a step and the changes that are made one after another; an eager and a captured run give the same.
"""
from __future__ import annotations

import argparse
import array
import collections
import concurrent.futures
import configparser
import contextlib
import contextvars
import ctypes
import dataclasses
import fractions
import functools
import importlib
import io
import json
import logging
import operator
import os
import pathlib
import queue
import random
import statistics
import string
import sys
import threading
import types
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import data, distributions, nn, optim
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


def computed_names():
    def case(step):
        o = argparse.Namespace(rate=1.0, inner=argparse.Namespace(rate=1.0))
        return (lambda x: step(x, o)), [lambda: setattr(o, "rate", 2.0), lambda: setattr(o.inner, "rate", 3.0)]
    layer, name, fetch = nn.Linear(3, 3), "ra" + "te", operator.attrgetter("rate")
    both, call = operator.attrgetter("inner.rate"), operator.methodcaller("read")
    layer.rate_1 = 1.0

    class Reading:
        rate = 1.0

        def read(self):
            return self.rate
    reading = Reading()
    return [case(lambda x, o: x * getattr(o, name)), case(lambda x, o: x * getattr(o, "".join(("ra", "te")), 1.0)),
            case(lambda x, o: x * getattr(o, f"r{name[1:]}")), case(lambda x, o: x * sum(vars(o)[n] for n in ("rate",))),
            case(lambda x, o: x * (3.0 if hasattr(o, name * len(x)) else getattr(o, name))),
            case(lambda x, o: x * list(map(functools.partial(getattr, o), [name]))[0]),
            case(lambda x, o: x * sum(v for v in o.__dict__.values() if isinstance(v, float))),
            case(lambda x, o: x * sum(getattr(o, n) for n in dir(o) if n[:2] == "ra")),
            case(lambda x, o: x * eval("o.rate", {"o": o})), case(lambda x, o: x * fetch(o)), case(lambda x, o: x * both(o) * o.rate),
            case(lambda x, o: x * operator.attrgetter("inner.rate")(o)),
            scaled_by(lambda: eval("SETTING"), lambda: globals().update(SETTING=SETTING + 1)),
            scaled_by(lambda: call(reading), lambda: setattr(reading, "rate", 2.0)),
            scaled_by(lambda: getattr(layer, f"rate_{SETTING:.0f}"), lambda: setattr(layer, "rate_1", 2.0))]


SETTING = 1.0


def objects_of_computed_names():
    """Objects of which names are computed, found in other places than the code says; methods that are called so."""
    n, made, c = "ra" + "te", lambda: argparse.Namespace(rate=1.0, inner=argparse.Namespace(rate=1.0)), argparse.Namespace(k=1.0)

    class Base:
        rate = level = 1.0

    class Holder(Base):
        def __init__(self):
            self._kept, self.cfg, self.listed, self.kind = made(), made(), [made()], "with_k"

        hidden = property(lambda self: self._kept)
        hard = property(lambda self: c.k)

        def __call__(self, x, f):
            return x * f(self)

        def own(self, x):
            return x * getattr(self, "le" + n[:0] + "vel")

        def with_k(self):
            return c.k

        def computed(self, x):
            return x * getattr(self, "ha" + "rd"[n == "":]) * getattr(self, f"with_{'k'}")()

        def local(self, x):
            o = self.listed[0]
            return x * (lambda: getattr(o, n))()

        @staticmethod
        def of_another(self, x):
            return x * getattr(self, n)

    class Listed(list):
        def first(self, x):
            return x * getattr(self[0], n)

    class Passing:
        def __init__(self):
            self.of = argparse.Namespace(cfg=made())

        def __getattr__(self, name):
            return getattr(self.of, name)
    class OfOthers(dict):
        __module__ = "json"                         # installed code, into which nobody looks

        def __getattr__(self, name):
            return self[name]
    others = OfOthers(cfg=made())
    h, items, passing, chosen = Holder(), Listed([made()]), Passing(), made()
    to = lambda o, name="rate": lambda: setattr(o, name, 2.0)       # noqa: E731
    return [(lambda x: x * getattr(h.cfg, n), [to(h.cfg), lambda: setattr(h, "cfg", made())]),
            (lambda x: x * getattr(h.hidden, n), [to(h._kept)]), (lambda x: h.own(x), [to(Base, "level"), to(Holder, "level"), to(h, "level")]),
            (lambda x: h.computed(x), [to(c, "k")]), (lambda x: h.local(x), [to(h.listed[0])]), (lambda x: x * getattr(h, h.kind)(), [to(c, "k")]),
            (lambda x: h.of_another(h.listed[0], x), [to(h.listed[0])]), (lambda x: items.first(x), [to(items[0])]),
            (lambda x: x * getattr(passing.cfg, n), [to(passing.of.cfg)]), (lambda x: x * getattr(Holder, n), [to(Base), to(Holder)]),
            (lambda x: x * getattr(None or chosen, n), [to(chosen)]), (lambda x: x * vars(chosen.inner)[n], [to(chosen.inner)]),
            (lambda x: x * chosen.__dict__["inn" + n[:0] + "er"].rate, [to(chosen.inner)]), (lambda x: x * getattr(others.cfg, n), [to(others["cfg"])])]


def classes_of_classes():
    table, swapped, hidden = {"rate": 1.0}, nn.Sequential(nn.ReLU()), weakref.WeakKeyDictionary()

    class Meta(type):
        level = 1.0

        @property
        def rate(cls):
            return table["rate"]

    class Plain(metaclass=Meta):
        own = 1.0

    class Other(Plain):
        own = 2.0

    class Kept:
        def __get__(self, of, owner=None):
            return hidden[of]

    class Holder:
        rate = Kept()

        def scaled(self, factor):
            return factor[0]
        bound = functools.partialmethod(scaled, [1.0])

    class Read(mg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g * table["rate"]
    more = []
    plain, holder, w = Plain(), Holder(), mg.ones(3, requires_grad=True)
    hidden[holder] = 1.0
    factor = vars(Holder)["bound"].args[0]
    return [scaled_by(lambda: sum(c.own for c in Plain.__subclasses__()), lambda: setattr(Other, "own", 3.0), lambda: more.append(type("More", (Plain,), {}))),
            scaled_by(lambda: Plain.rate, lambda: table.update(rate=2.0)), scaled_by(lambda: Plain.level, lambda: setattr(Meta, "level", 2.0)),
            scaled_by(lambda: plain.own, lambda: setattr(plain, "__class__", Other)),
            (lambda x: swapped(x - 2), [lambda: setattr(swapped[0], "__class__", nn.Tanh)]),
            scaled_by(lambda: holder.rate, lambda: hidden.update({holder: 2.0})), scaled_by(lambda: holder.bound(), lambda: factor.insert(0, 2.0)),
            (lambda x: mg.autograd.grad(Read.apply(w * x).sum(), w)[0], [lambda: table.update(rate=2.0)])]


def other_modules():
    module = types.ModuleType("settings_of_a_program")
    module.rate, module.__file__ = 1.0, "/tmp/settings.py"
    sys.modules[module.__name__] = module
    os.environ["MINIGRAD_TEST"] = "1"
    get, kept = os.getenv, nn.functional.relu
    change = lambda: setattr(module, "rate", 2.0)           # noqa: E731
    string.settings = [1.0]
    late, levels = types.ModuleType("late_settings"), {"level": 1.0}
    late.__file__, late.__dict__["__getattr__"] = "/tmp/late.py", lambda name: levels[name]
    return [scaled_by(lambda: late.level, lambda: levels.update(level=2.0)),
            scaled_by(lambda: sys.modules["settings_of_a_program"].__dict__["rate"], change),
            scaled_by(lambda: sys.modules[__name__].SETTING, lambda: globals().update(SETTING=SETTING + 1)),
            scaled_by(lambda: importlib.import_module("settings_of_a_program").rate, change),
            scaled_by(lambda: float(get("MINIGRAD_TEST")), lambda: os.environ.update(MINIGRAD_TEST="2")),
            scaled_by(lambda: string.settings[0], lambda: string.settings.insert(0, 2.0)),
            (lambda x: nn.functional.relu(x - 2), [lambda: setattr(nn.functional, "relu", nn.functional.elu),
                                                   lambda: setattr(nn.functional, "relu", kept)])]


def holders():
    class Config(dict):
        pass

    class Listed(list):
        pass

    class Counted(np.ndarray):
        pass

    class Scale:
        s = 3.0
    config, listed, counted = Config(), Listed([1.0]), np.ones(2).view(Counted)
    config.rate = listed.rate = counted.rate = 1.0
    line, event, lock, raw = queue.SimpleQueue(), threading.Event(), threading.Lock(), bytearray(b"\1")
    view, number, target = memoryview(raw), ctypes.c_double(1.0), [argparse.Namespace(s=2.0)]
    reference, w, values = weakref.ref(target[0]), mg.ones(3), [1.0]

    @functools.lru_cache
    def cached():
        return values[0]
    ordered, members = {"a": 1.0, "b": 2.0}, [Scale(), Scale()]
    some = weakref.WeakSet(members[:1])
    return [scaled_by(lambda: next(iter(ordered.values())), lambda: ordered.update(a=ordered.pop("a"))),
            scaled_by(lambda: sum(o.s for o in some), lambda: some.add(members[1]), lambda: setattr(members[0], "s", 5.0)),
            scaled_by(lambda: config.rate, lambda: setattr(config, "rate", 2.0)),
            scaled_by(lambda: listed.rate * listed[0], lambda: setattr(listed, "rate", 2.0)),
            scaled_by(lambda: counted.rate, lambda: setattr(counted, "rate", 2.0)),
            scaled_by(lambda: line.qsize() + 1, lambda: line.put(1)), scaled_by(lambda: 2.0 if event.is_set() else 1.0, event.set),
            scaled_by(lambda: 2.0 if lock.locked() else 1.0, lock.acquire), scaled_by(lambda: view[0], lambda: raw.__setitem__(0, 2)),
            scaled_by(lambda: number.value, lambda: setattr(number, "value", 2.0)),
            scaled_by(lambda: reference().s if reference() else 1.0, target.clear),
            scaled_by(lambda: w._version + 1, lambda: w.add_(0)), scaled_by(cached, lambda: (values.insert(0, 2.0), cached.cache_clear()))]


def late_names():
    """Names that come later, which code only asks for, or which hide others."""
    class Base:
        pass

    class Plain(Base):
        pass

    class Meta(type):
        pass

    class Made(metaclass=Meta):
        pass

    class Net(nn.Module):
        def forward(self, x):
            return x * getattr(self, "rate", 1.0)

    class Swapped(Base):
        rate = 1.0

    class Other:
        rate = 4.0

    def tried(x):
        try:
            return x * plain.rate
        except AttributeError:
            return x
    o, plain, net, swapped = argparse.Namespace(rate=1.0), Plain(), Net(), Swapped()
    to = lambda of, value=2.0, name="rate": lambda: setattr(of, name, value)       # noqa: E731
    p, own = nn.Parameter(mg.ones(3)), type("Own", (nn.Parameter,), {"rate": 1.0})(mg.ones(3))
    named = lambda: 1.0     # noqa: E731
    return [scaled_by(lambda: getattr(plain, "rate", 1.0), to(Base), to(Plain, 3.0)), scaled_by(lambda: getattr(Plain, "rate", 1.0), to(Plain)),
            (tried, [to(Plain)]), (lambda x: net(x), [to(Net), to(net, 3.0)]), scaled_by(lambda: getattr(Made, "rate", 1.0), to(Meta)),
            scaled_by(lambda: 2.0 if plain else 1.0, to(Plain, lambda self: False, "__bool__")),
            scaled_by(lambda: getattr(plain, "rate", 1.0), to(Plain, lambda self, name: 4.0, "__getattr__")),
            scaled_by(lambda: swapped.rate if hasattr(swapped, "rate") else 9.0, to(Swapped, (Other,), "__bases__"), lambda: delattr(Swapped, "rate")),
            scaled_by(lambda: getattr(p, "rate", 1.0), to(p)), scaled_by(lambda: own.rate, to(type(own)), to(own, 3.0)),
            scaled_by(lambda: len(named.__name__), to(named, "renamed", "__name__")), scaled_by(lambda: o.rate, to(o, {"rate": 3.0}, "__dict__")),
            scaled_by(lambda: getattr(mg, "a_late_name", 1.0), to(mg, 2.0, "a_late_name"), lambda: delattr(mg, "a_late_name"))]


def of_others():
    """Objects of the standard library, which its own code or code in C reads."""
    table, values, raw = {"a": 1.0}, [1.0], ctypes.c_double(1.0)
    kept, objects = [argparse.Namespace(k=1.0)], collections.UserList([argparse.Namespace(k=1.0)])
    listed, text, chain = collections.UserList([1.0]), collections.UserString("12"), collections.ChainMap({}, table)
    view, ordered, pointer, fetch = table.values(), collections.OrderedDict(a=1.0), ctypes.pointer(raw), ([1.0],).__getitem__
    ordered_view, stream = ordered.items(), io.StringIO("1")
    default = contextvars.ContextVar("default", default=[1.0])       # noqa: B039
    error, shaped = ValueError(1.0), np.ones(4)
    options, keys = configparser.ConfigParser(), {}
    options.read_string("[a]\nk=1")
    part, ordering = functools.partial(abs), functools.cmp_to_key(lambda a, b: (a - b) * values[0])
    reference = weakref.WeakMethod(kept[0].__init__)
    kept.append(reference)

    class Of:
        k = 1.0

    @functools.cache
    def cached(n=0):
        return values[0]
    of = Of()
    keys[of] = 1
    part.k = 1.0
    cached()

    def refill():
        cached.cache_clear()
        values[0] = 2.0
        cached()
        values[0] = 1.0
    to = lambda of, name, value=2.0: lambda: setattr(of, name, value)       # noqa: E731
    return [scaled_by(lambda: sum(view), lambda: table.update(b=2.0)), scaled_by(lambda: sum(v for _, v in ordered_view), lambda: ordered.update(a=2.0)),
            scaled_by(lambda: sum(listed), lambda: listed.append(2.0)), scaled_by(lambda: objects[0].k, to(objects[0], "k")),
            scaled_by(lambda: float(str(text)), to(text, "data", "3")), scaled_by(lambda: chain["a"], lambda: chain.maps.insert(0, {"a": 2.0})),
            scaled_by(lambda: pointer.contents.value, to(raw, "value")), scaled_by(lambda: fetch(0)[0], lambda: fetch(0).insert(0, 2.0)),
            scaled_by(lambda: float(stream.getvalue()), lambda: stream.write("2")),
            scaled_by(lambda: default.get()[0], lambda: default.get().insert(0, 2.0)),
            scaled_by(lambda: error.args[0], to(error, "args", (2.0,))),
            scaled_by(lambda: options.getfloat("a", "k"), lambda: options.set("a", "k", "2")),
            scaled_by(lambda: next(iter(keys)).k, to(of, "k")), scaled_by(lambda: part.k, to(part, "k")),
            scaled_by(lambda: sorted([3.0, 1.0], key=ordering)[0], lambda: values.insert(0, -1.0)),
            scaled_by(cached, refill),
            scaled_by(lambda: shaped.shape[0], to(shaped, "shape", (2, 2))),
            scaled_by(lambda: float(f"{kept[0].k}"), to(kept[0], "k"))]


def read_by_others():
    """Objects whose own code, that of a library, reads them: what it reads is named nowhere in the step."""
    class Coder(json.JSONEncoder):
        def default(self, o):
            return values[0]

    class Filled(string.Formatter):
        rate = "1"

        def get_value(self, key, args, kwargs):
            return self.rate

    class Made(types.ModuleType):
        @property
        def rate(self):
            return self.__dict__.get("held", 1.0)

    class Rated:
        rate = 1.0

        @functools.singledispatchmethod
        def of(self, v):
            return self.rate

    def entered(x):
        with block as rate:
            return x * rate
    values, o, filled, made, rated = [1.0], argparse.Namespace(rate=1.0), Filled(), Made("made"), Rated()
    polynomial, vectorized, done = np.poly1d([1.0, 2.0]), np.vectorize(lambda v: v * values[0]), concurrent.futures.Future()
    barrier, block, template, fraction = threading.Barrier(2), contextlib.nullcontext(1.0), string.Template("$a"), fractions.Fraction(1, 2)
    normal, parser, default = statistics.NormalDist(1.0, 2.0), argparse.ArgumentParser(), collections.defaultdict(lambda: 1.0)
    parser.add_argument("--rate", type=float, default=1.0)
    kept, os.environ["MINIGRAD_TEST"] = json.JSONEncoder.item_separator, "1"
    four = data.TensorDataset(mg.ones(4, 1))
    loader, part, both, order = data.DataLoader(four, 2), data.Subset(four, [0, 1]), data.ConcatDataset([four, four]), data.SequentialSampler(four)
    linear, call = nn.Linear(3, 3), nn.Module.__call__
    to = lambda of, name, value=2.0: lambda: setattr(of, name, value)       # noqa: E731
    return [scaled_by(lambda: polynomial(1.0), lambda: polynomial.coeffs.__setitem__(0, 5.0)), scaled_by(lambda: float(vectorized(2.0)), lambda: values.insert(0, 3.0)),
            scaled_by(lambda: 2.0 if done.done() else 1.0, lambda: done.set_result(1)), scaled_by(lambda: 2.0 if barrier.broken else 1.0, barrier.abort),
            (entered, [to(block, "enter_result")]), scaled_by(lambda: float(template.substitute(a=2)), to(template, "template", "3$a")),
            scaled_by(lambda: float(fraction), to(fraction, "_numerator", 3)), scaled_by(lambda: normal.mean, to(normal, "_mu")),
            scaled_by(lambda: parser.parse_args([]).rate, lambda: parser.set_defaults(rate=3.0)),
            scaled_by(lambda: float(json.dumps(object(), cls=Coder)), lambda: values.insert(0, 2.0)), scaled_by(lambda: float(filled.format("{a}")), to(filled, "rate", "3")),
            scaled_by(lambda: len(json.JSONEncoder.item_separator), to(json.JSONEncoder, "item_separator", "abcd"), to(json.JSONEncoder, "item_separator", kept)),
            scaled_by(lambda: rated.of(1), to(rated, "rate")), scaled_by(lambda: float(str.format("{.rate}", o)), to(o, "rate")), scaled_by(lambda: made.rate, to(made, "held")),
            scaled_by(lambda: default.get("a") or default.default_factory(), to(default, "default_factory", lambda: 3.0)),
            scaled_by(lambda: float(os.path.expandvars("$MINIGRAD_TEST")), lambda: os.environ.update(MINIGRAD_TEST="2")),
            scaled_by(lambda: len(loader), to(four, "tensors", (mg.ones(8, 1),))), (lambda x: x * (part[0][0] + len(part)), [to(part, "indices", [3])]),
            scaled_by(lambda: len(both), to(both, "cumulative_sizes", [2, 9])), scaled_by(lambda: len(order), to(four, "tensors", (mg.ones(9, 1),))),
            (lambda x: linear(x), [to(nn.Module, "__call__", lambda self, x: x * 5), to(nn.Module, "__call__", call)])]


def made_modules():
    """Modules that a program makes or replaces, and what it replaces in this package."""
    module, other = types.ModuleType("a_made_module"), types.ModuleType("a_made_module")
    module.rate, other.rate, module.of = 1.0, 3.0, argparse.Namespace(rate=1.0)
    sys.modules["a_made_module"] = module
    sys.modules.pop("a_missing_module", None)
    linear, keep = nn.Linear(3, 3), nn.Linear.forward
    large, vocabulary, many = np.ones(300_000), {str(i): i for i in range(5000)}, list(range(5000))
    data = mg.data.TensorDataset(mg.ones(4, 1))
    part, w = mg.data.Subset(data, [0, 1]), nn.Parameter(mg.ones(3))
    optimizer = optim.SGD([w], lr=0.1)

    def imported(x):
        import a_made_module
        return x * a_made_module.rate

    def missed(x):
        try:
            import a_missing_module
        except ImportError:
            return x
        return x * a_missing_module.rate

    def replace():
        sys.modules["a_made_module"] = other
    to = lambda of, name="rate", value=2.0: lambda: setattr(of, name, value)       # noqa: E731
    return [scaled_by(lambda: module.of.rate, to(module.of)), scaled_by(lambda: getattr(module, "late", module.rate), to(module), to(module, "late", 5.0)),
            (imported, [replace]),
            (missed, [lambda: sys.modules.update(a_missing_module=other), lambda: sys.modules.pop("a_missing_module")]),
            (lambda x: linear(x), [to(nn.Linear, "forward", lambda self, x: x * 4), to(nn.Linear, "forward", keep)]),
            (lambda x: x * mg.tensor(large)[:3], [lambda: large.fill(2.0)]), (lambda x: x * mg.tensor(many)[:3], [lambda: many.insert(0, 2)]),
            scaled_by(lambda: vocabulary["7"], lambda: vocabulary.update({"7": 1})), scaled_by(lambda: many[-1], lambda: many.__setitem__(-1, 1)),
            (lambda x: x * part[0][0], [lambda: data.tensors[0].mul_(2)]),
            scaled_by(lambda: optimizer.defaults["lr"], lambda: optimizer.defaults.update(lr=0.5))]


@pytest.mark.parametrize("kind, number", [(kind, i) for kind, count in ((containers, 9), (functions, 5), (classes, 2), (hooks, 2),
                                                                        (members, 5), (families, 3), (computed_names, 15),
                                                                        (objects_of_computed_names, 14),
                                                                        (classes_of_classes, 8), (other_modules, 7), (holders, 13), (late_names, 13),
                                                                        (of_others, 18), (read_by_others, 22), (made_modules, 11)) for i in range(count)])
def test_changes_are_seen(kind, number, monkeypatch):
    seen = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        monkeypatch.setattr(sys.modules[__name__], "SETTING", 1.0)
        step, changes = kind()[number]
        step = wrap(step)
        found = [step(mg.ones(2, 3)).tolist() for _ in range(2)]
        for change in changes:
            change()
            found += [step(mg.ones(2, 3)).tolist() for _ in range(2)]
        seen.append(found)
    assert seen[0] == seen[1]
    assert any(found != seen[0][0] for found in seen[0])       # the changes do matter


@pytest.mark.parametrize("draw", [random.random, lambda: random.uniform(0, 1), lambda: np.random.rand(), np.random.random])
def test_numbers_from_the_generators_of_python_and_numpy_are_refused(draw):
    with pytest.raises(RuntimeError, match="drew numbers while recording"):
        mg.capture(lambda x: x * draw())(mg.ones(2))


@pytest.mark.parametrize("take", [lambda q, line, a: line.get(), lambda q, line, a: q.get(), lambda q, line, a: a.__iadd__(1)[0] - 1])
def test_a_step_that_changes_a_queue_or_an_array_runs_each_time(take):
    """What is told of them has a table of its own in each recording, whose address says nothing."""
    line, plain, array = queue.SimpleQueue(), queue.Queue(), np.zeros(1)
    for i in range(40):
        line.put(float(i))
        plain.put(float(i))
    step = mg.capture(lambda x: x * float(take(plain, line, array)))
    with pytest.warns(UserWarning, match="none replayed"):
        assert [step(mg.ones(1)).item() for _ in range(40)] == list(range(40))


def test_names_that_are_computed_of_counters_are_seen():
    o, number = argparse.Namespace(n1=0), 1

    def counting(x):
        setattr(o, f"n{number}", getattr(o, f"n{number}") + 1)
        return x * getattr(o, f"n{number}")
    step = mg.capture(counting)
    assert step(mg.ones(1)).item() == 1
    with pytest.raises(RuntimeError, match="was changed while recording"):
        step(mg.ones(1))
    with pytest.raises(RuntimeError, match="initial_seed"):
        mg.capture(lambda x: x * mg.initial_seed())(mg.ones(1))


def test_a_large_object_that_loses_a_name_and_gets_another_is_seen():
    o = argparse.Namespace(**{f"a{i}": i for i in range(400)})
    step = mg.capture(lambda x: x * getattr(o, "rate", 1.0))
    assert [step(mg.ones(1)).item() for _ in range(3)] == [1, 1, 1]
    del o.a5
    o.rate = 5.0
    assert step(mg.ones(1)).item() == 5


def test_names_that_code_spells_out_leave_other_attributes_alone():
    """`getattr(o, "rate", 1.0)` reads one attribute: a change of another is no reason to record anew."""
    o = argparse.Namespace(rate=1.0, count=0)
    step = mg.capture(lambda x: x * getattr(o, "rate", 1.0) * getattr(o, "shift" if False else "rate"))
    for _ in range(9):
        step(mg.ones(1))
        o.count += 1
    assert len(step.programs) == 1 and [len(p) for p in step.programs.values()] == [1]


def test_a_method_that_computes_names_reads_its_own_object_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.part_0, self.part_1 = 1.0, 2.0

        def forward(self, x):
            return x * sum([getattr(self, f"part_{i}") for i in range(2)])

    class Trainer:
        def __init__(self):
            self.net, self.count = Net(), 0

        def __repr__(self):
            return str(vars(self))

        def run(self, x):
            return self.net(x)
    trainer = Trainer()
    step = mg.capture(lambda x: trainer.run(x))
    for _ in range(5):
        assert step(mg.ones(1)).item() == 3
        trainer.count += 1
    assert [len(p) for p in step.programs.values()] == [1]
    trainer.net.part_1 = 3.0
    assert step(mg.ones(1)).item() == 4


CONFIG = argparse.Namespace(act="relu", reduction="mean")


def test_names_computed_of_one_object_leave_the_others_alone():
    """`getattr(F, self.act)` and `vars(self.cfg)` are in many programs, whose trainers count steps beside them."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.act, self.cfg, self.seen = nn.Linear(3, 3), "relu", argparse.Namespace(reduction="sum"), 0

        def forward(self, x):
            x = getattr(nn.functional, self.act)(self.lin(x)) * getattr(nn.functional, CONFIG.act)(x)
            return nn.functional.mse_loss(x, x * 2, **vars(self.cfg)) * nn.functional.l1_loss(x, x, reduction=self.cfg.__dict__["reduction"])

    class Trainer:
        def __init__(self):
            self.net, self.count = Net(), 0

        def run(self, x):
            return self.net(x) * (1 if hasattr(self.net.cfg, CONFIG.act) else 2)
    trainer = Trainer()
    step = mg.capture(lambda x: trainer.run(x))
    for _ in range(5):
        step(mg.ones(2, 3))
        trainer.count += 1
        trainer.net.seen += 1
    assert [len(p) for p in step.programs.values()] == [1]
    assert step(mg.ones(2, 3)).item() == trainer.run(mg.ones(2, 3)).item()
    assert mg.capture(lambda: [getattr, vars, lambda: getattr])()           # without a call


def test_equal_objects_are_other_arguments():
    """Of two objects that are equal, each has attributes of its own; a frozen record is its values."""
    class Batch:
        def __init__(self, scale):
            self.scale = scale

        def __eq__(self, other):
            return isinstance(other, Batch)

        def __hash__(self):
            return 1
    step = mg.capture(lambda x, batch: x * batch.scale)
    assert [step(mg.ones(1), Batch(s)).item() for s in (1.0, 2.0, 3.0)] == [1, 2, 3]
    Frozen = dataclasses.make_dataclass("Frozen", ["scale"], frozen=True)       # noqa: N806
    assert [step(mg.ones(1), Frozen(s)).item() for s in (1.0, 2.0, 2.0, 1.0)] == [1, 2, 2, 1]
    assert len(step.programs) == 5


LIMIT = 0.5


class _Hyper:
    weight = 1.0


class _Batch:
    def __init__(self, x, scale=None):
        self.x, self.mask = x, (x > LIMIT).float() * (_Hyper.weight if scale is None else scale)


class _Weighted(mg.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = _Hyper.weight

    def forward(self, x):
        return x.sum() * self.weight


@pytest.mark.parametrize("name, value", [("LIMIT", 2.0), ("weight", 3.0)])
def test_what_a_constructor_reads_is_seen(monkeypatch, name, value):
    """Of objects that the step makes: globals and class attributes that their `__init__` reads."""
    def step(x):
        batch = _Batch(x)
        return (batch.x * batch.mask).sum() + _Weighted()(x)
    captured, x = mg.capture(step), mg.ones(4, 3)
    assert captured(x).item() == step(x).item() == 24
    monkeypatch.setattr(*((sys.modules[__name__], name) if name == "LIMIT" else (_Hyper, name)), value)
    assert captured(x).item() == step(x).item() == (12 if name == "LIMIT" else 72)


def test_a_returned_container_is_a_new_one_at_each_call():
    step = mg.capture(lambda x: {"loss": x.sum(), "parts": [x.mean(), x.max()]})
    for _ in range(3):
        found = step(mg.ones(3))
        assert found.pop("loss").item() == 3 and [v.item() for v in found["parts"]] == [1, 1]
        found["parts"].clear()
    step = mg.capture(lambda x: (x.sum(), x.mean()))
    assert step(mg.ones(3)) is not None and [v.item() for v in step(mg.ones(3))] == [3, 1]


def test_a_returned_iterator_is_refused():
    with pytest.raises(RuntimeError, match="returns an iterator.*return a list"):
        mg.capture(lambda x: iter([x + 1]))(mg.ones(3))


def test_what_other_packages_change_for_themselves_is_left_to_them():
    """A log, a generator with a seed, a context of NumPy: they change while the step runs, which is nothing it reads."""
    seen, logger = [], logging.getLogger("minigrad.test.log")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)

    def run(x):
        logger.info("a step of %s", x.shape)
        seen.append(1)
        with np.errstate(all="ignore"):
            return x * float(np.random.default_rng(3).random()) * random.Random(4).random()
    step = mg.capture(run)
    first = step(mg.ones(2)).tolist()
    for _ in range(4):
        logger.info("outside")
        assert step(mg.ones(2)).tolist() == first
    assert len(seen) <= 2 and [len(p) for p in step.programs.values()] == [1]
    logger.removeHandler(handler)


def test_what_a_library_changes_of_its_objects_is_left_to_it():
    """In the step (a future, a cache), or beside it: the attributes of a record, a loader that is gone through."""
    done, record, path = [concurrent.futures.Future() for _ in range(3)], argparse.Namespace(rate=2.0, calls=0), pathlib.PurePath("a/b")
    loader, block, ran = data.DataLoader(data.TensorDataset(mg.ones(4, 2)), 2), contextlib.nullcontext(iter([1.0])), []

    def run(x):
        ran.append(1)
        if not done[0].done():
            done[0].set_result(1)
        with block:
            return x * record.rate * len(loader) * len(path.parts) * np.finfo(np.float32).nmant
    step = mg.capture(run)
    for _ in range(2):
        for (x,) in loader:
            assert step(x).tolist() == [[184.0] * 2] * 2
            record.calls += 1
    assert len(ran) == 1 and [len(p) for p in step.programs.values()] == [1]


@pytest.mark.parametrize(("read", "programs"), [
    (lambda s, o: s.last_epoch, 0), (lambda s, o: s.get_last_lr()[0], 0), (lambda s, o: float(s.state_dict()["last_epoch"]), 0),
    (lambda s, o: o.param_groups[0]["lr"], 0), (lambda s, o: 0.0, 1)])
def test_a_schedule_that_is_stepped_and_read_inside_is_right_at_each_call(read, programs):
    def losses(wrap):
        w = nn.Parameter(mg.ones(1))
        optimizer = optim.SGD([w], lr=0.1)
        schedule = optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = (w * w * x).sum() + read(schedule, optimizer) * w.abs().sum()
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss * 1 + read(schedule, optimizer)
        return [step(mg.ones(1)).item() for _ in range(7)], step
    want, _ = losses(lambda f: f)
    found, step = losses(mg.capture)
    assert found == want and sum(map(len, step.programs.values())) == programs


def test_a_schedule_of_ones_own_inside_is_recorded_once():
    class Half(optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            return [g["lr"] * 0.5 for g in self.optimizer.param_groups]
    w = nn.Parameter(mg.ones(1))
    optimizer = optim.SGD([w], lr=1.0)
    schedule = Half(optimizer)

    @mg.capture
    def step(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        schedule.step()
    rate = optimizer.param_groups[0]["lr"]
    for _ in range(4):
        step(mg.ones(1))
    assert w.item() == 1 - rate * 1.875 and sum(map(len, step.programs.values())) == 1
