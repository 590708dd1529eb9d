"""Fuzzing the functions, Tensor's methods, the ops' samples and indexing: see fuzzing.py."""
from __future__ import annotations

import numpy as np
import pytest
from fuzzing import (  # noqa: F401
    DTYPES,
    SEEDS,
    Draw,
    compare,
    exact_blocks,
    exact_memory,
    examples,
    memory_of,
    numpy_twin,
    run,
    takes_inplace,
    text_of,
)
from hypothesis import given

import minigrad as mg
from minigrad import nn, ops, testing
from minigrad.core.op import Op, registry
from minigrad.core.tensor import Tensor

pytestmark = pytest.mark.filterwarnings("ignore")


def public_functions():
    found = {f"minigrad.{n}": getattr(mg, n) for n in ops.__all__}
    for module in (nn.functional, nn.init):
        for name, value in vars(module).items():
            if callable(value) and not name.startswith("_") and not isinstance(value, type) and \
                    getattr(value, "__module__", "").startswith(("minigrad.nn", "minigrad.ops")):
                found[f"{module.__name__}.{name}"] = value
    return found


FUNCTIONS = public_functions()
METHODS = [n for n in dir(Tensor) if callable(getattr(Tensor, n)) and (not n.startswith("_") or (getattr(getattr(Tensor, n), "__module__", None)
                                                                                               or "").startswith("minigrad.ops"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FUNCTIONS))
@examples(8)
@given(SEEDS)
def test_function(name, seed):
    draw, function = Draw(seed), FUNCTIONS[name]
    args, named = draw.arguments(function)
    call = f"{name}({', '.join(map(text_of, args))}, {named})"
    result = run(draw, call, function, args, named, writes=name.endswith("_") or ".init." in name or takes_inplace(function))
    if isinstance(result, Tensor):
        want = numpy_twin(name.split(".")[-1], args, named, result)
        if want is not None:
            compare(call, result, want)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@examples(5)
@given(SEEDS)
def test_method(name, seed):
    draw, method = Draw(seed), getattr(Tensor, name)
    t = draw.tensor()
    args, named = draw.arguments(method, skip=1)
    call = f"{text_of(t)}.{name}({', '.join(map(text_of, args))}, {named})"
    run(draw, call, method, [t, *args], named, writes=name.endswith("_") or name.startswith("__i") or name == "__setitem__")


def mutated(draw, args, attrs):
    """An op's sample with something about it wrong, or only unusual."""
    args, attrs = list(args), dict(attrs)
    for k, a in enumerate(args):
        if not isinstance(a, Tensor):
            continue
        values = a.numpy(force=True)
        kind = draw.rng.randrange(9)
        if kind == 0 and values.ndim:
            values = values[:draw.rng.randrange(len(values) + 1)]
        elif kind == 1:
            values = values[None]
        elif kind == 2 and values.ndim:
            values = values[..., :draw.rng.randrange(values.shape[-1] + 1)]
        elif kind == 3:
            values = values.astype(draw.one_of(DTYPES))
        elif kind == 4 and values.dtype.kind == "i":
            values = values + draw.one_of((1, -1, -100, 40, 2**31, -2**31, 2**62))
        elif kind == 5 and values.ndim:
            values = values.T
        elif kind == 6:
            args[k] = draw.one_of((None, draw.tensor, draw.absurd))
            args[k] = args[k]() if callable(args[k]) else args[k]
            continue
        t = mg.tensor(np.ascontiguousarray(values))
        if draw.chance(40):
            t = draw.one_of([t, *[other for _, other in testing.relaid(t)]])
        held = memory_of(t)
        draw.inputs.append((t, held, held.copy()))
        args[k] = t.requires_grad_() if t.is_floating_point() and draw.chance(60) else t
    for key in attrs:
        if draw.chance(25):
            attrs[key] = draw.one_of((draw.integer, draw.sizes, draw.absurd))()
    return args, attrs


# a primitive below the public functions (`take`, `place`, ...) trusts the function above it with the values of an index
SAMPLED = {name: getattr(mg, name.lstrip("_"), op if isinstance(op, Op) else None) for name, op in registry.items() if op.sample_function}


@pytest.mark.parametrize("name", [n for n, f in SAMPLED.items() if f is not None])
@examples(12)
@given(SEEDS)
def test_sample(name, seed):
    draw = Draw(seed)
    samples = [testing._split(s) for s in registry[name].sample_function(testing.Make(draw.one_of((np.float32, np.float64))))]
    args, attrs = mutated(draw, *draw.one_of(samples))
    run(draw, f"{name}({', '.join(map(text_of, args))}, {attrs})", SAMPLED[name], args, attrs)


def index(draw, shape):
    """One part of t[...]."""
    kind = draw.rng.randrange(12)
    if kind == 0:
        return draw.integer()
    if kind == 1:
        return slice(*[draw.one_of((None, draw.integer())) for _ in range(3)])
    if kind == 2:
        return draw.one_of((None, ..., True, False))
    if kind == 3:
        return draw.tensor("bool", shape if draw.chance(60) else None)
    if kind == 4:
        return draw.tensor("int64")
    if kind == 5:
        return [draw.rng.randrange(-3, 3) for _ in range(draw.rng.randrange(4))]
    if kind == 6:
        return np.array([draw.rng.randrange(-6, 6) for _ in range(3)])
    if kind == 7:
        return draw.absurd()
    if kind == 8:
        return draw.tensor(draw.one_of(DTYPES))
    return draw.rng.randrange(-2, 2)


def in_numpy(i):
    if isinstance(i, tuple):
        return tuple(in_numpy(j) for j in i)
    return i.numpy(force=True) if isinstance(i, Tensor) else i


@examples(500)
@given(SEEDS)
def test_indexing(seed):
    draw = Draw(seed)
    t = draw.tensor()
    i = tuple(index(draw, t.shape) for _ in range(draw.rng.randrange(1, 5))) if draw.chance(60) else index(draw, t.shape)
    call = f"{text_of(t)}[{text_of(i)}]"
    got = run(draw, call, lambda: t[i], (), {})
    if isinstance(got, Tensor):
        parts = i if isinstance(i, tuple) else (i,)
        if any(isinstance(j, int) for j in parts) and any(isinstance(j, (Tensor, list, np.ndarray)) for j in parts):
            return                  # NumPy counts a number beside arrays as an array, PyTorch takes it first: other places of the dimensions
        try:
            want = t.numpy(force=True)[in_numpy(i)]
        except (IndexError, TypeError, ValueError):
            want = None
        if want is not None and np.asarray(want).dtype == t.dtype and not any(isinstance(j, Tensor) and j.dtype == np.uint8
                                                                              for j in (i if isinstance(i, tuple) else (i,))):
            np.testing.assert_array_equal(got.numpy(force=True), want, err_msg=call)


@examples(500)
@given(SEEDS)
def test_index_assignment(seed):
    draw = Draw(seed)
    t = draw.tensor()
    target = t.detach().clone()
    i = tuple(index(draw, t.shape) for _ in range(draw.rng.randrange(1, 5))) if draw.chance(60) else index(draw, t.shape)
    value = draw.one_of((draw.tensor, draw.integer, draw.absurd, lambda: 1.5))()
    run(draw, f"{text_of(target)}[{text_of(i)}] = {text_of(value)}", target.__setitem__, (i, value), {})
