"""autograd.functional: products with Jacobians and Hessians, whole matrices."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.autograd import functional

A, B = np.random.default_rng(0).standard_normal((2, 3, 4))


def flat(value):
    return [x for v in value for x in flat(v)] if isinstance(value, tuple | list) else [value]


def pair(x, y):
    return (x * y).sin().sum(0), x.exp().sum() * y[0]


def number(x, y):
    return (x ** 3 * y).sum() + (y ** 2).sum().exp()


@pytest.mark.parametrize("create_graph", [False, True])
def test_products(on_both, create_graph):
    def run(lib, a, b):
        f = lib.autograd.functional
        v_out = (lib.tensor(B[0]), lib.tensor(B[1]))
        v_in = (lib.tensor(B), lib.tensor(A))
        found = [f.vjp(pair, (a, b), v_out, create_graph), f.jvp(pair, (a, b), v_in, create_graph), f.vhp(number, (a, b), v_in, create_graph),
                 f.hvp(number, (a, b), v_in, create_graph), f.vjp(lambda x: (x ** 2).sum(), a, create_graph=create_graph),
                 f.jvp(lambda x: x * a, a[0, 0], create_graph=create_graph), f.hvp(lambda x: (x ** 3).sum(), a, lib.tensor(B), create_graph),
                 f.vhp(lambda x: (x ** 3).sum(), a, lib.tensor(B), create_graph)]
        assert all(t.requires_grad == create_graph for t in flat(found))
        again = []
        if create_graph:
            again = [lib.autograd.grad(sum((t ** 2).sum() for t in flat(one)), a, retain_graph=True) for one in found]
        return found, again
    on_both(run, A, B)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("vectorize", [False, True])
def test_matrices(on_both, create_graph, vectorize):
    def run(lib, a, b):
        f, options = lib.autograd.functional, {"create_graph": create_graph, "vectorize": vectorize}
        found = [f.jacobian(pair, (a, b), **options), f.jacobian(lambda x: x.sin() @ x.t(), a, **options), f.jacobian(lambda x: x.sum(), (a,), **options),
                 f.hessian(number, (a, b), **options), f.hessian(lambda x: (x ** 3).sum(), a, **options),
                 f.jacobian(lambda x: (x * 2, lib.ones(2, dtype=lib.float64)), a, **options), f.hessian(lambda x: x.sum(), a, **options)]
        again = [lib.autograd.grad((found[i][0][0] ** 2).sum(), a) for i in (0, 3)] if create_graph else []
        return found, again
    on_both(run, A, B)


def test_the_same_tensor_from_elsewhere_is_constant(on_both):
    def run(lib, a):
        f = lib.autograd.functional
        return f.jacobian(lambda x: x * a, a), f.vjp(lambda x: (x * a).sum(), a), f.jvp(lambda x: x * a, a, lib.ones_like(a))
    on_both(run, A[0])


def test_strict_and_wrong_arguments(on_both):
    def run(lib, a, b):
        f, raised = lib.autograd.functional, []
        ones = lib.ones(2, 2, dtype=lib.float64)
        calls = [
            lambda: f.vjp(lambda x: ones.sum(), a, strict=True), lambda: f.vjp(lambda x, y: x.sum(), (a, b), strict=True),
            lambda: f.vjp(lambda x: x.sum(), a, create_graph=True, strict=True), lambda: f.jvp(lambda x: ones, a, b, strict=True),
            lambda: f.jvp(lambda x, y: x * 2, (a, b), (a, b), strict=True), lambda: f.hvp(lambda x: x.sum(), a, b, strict=True),
            lambda: f.vhp(lambda x: x.sum(), a, b, strict=True), lambda: f.vhp(lambda x, y: (x ** 3).sum(), (a, b), (a, b), strict=True),
            lambda: f.jacobian(lambda x: ones, a, strict=True), lambda: f.jacobian(lambda x: x * 2, a, create_graph=True, strict=True),
            lambda: f.hessian(lambda x: x.sum(), a, strict=True),
            lambda: f.hessian(lambda x: x * 2, a), lambda: f.hvp(lambda x: (x.sum(), x.sum()), a, b), lambda: f.vjp(lambda x: x, a),
            lambda: f.jvp(lambda x: x, a), lambda: f.vjp(lambda x: x, a, b[0]), lambda: f.jvp(lambda x, y: x, (a, b), a), lambda: f.vjp(lambda x: 3.0, a),
            lambda: f.vjp(lambda x: x, [a, b]), lambda: f.jacobian(lambda x: x, a, strict=True, vectorize=True),
            lambda: f.vjp(lambda x: (x ** 2).sum(), a, strict=True), lambda: f.hessian(lambda x: (x ** 3).sum(), a, strict=True),
            lambda: f.jvp(lambda x: x ** 2, a, b, strict=True), lambda: f.hvp(lambda x: (x ** 3).sum(), a, b, strict=True),
            lambda: f.vjp(lambda x: ones.sum(), a), lambda: f.jvp(lambda x: ones, a, b), lambda: f.hvp(lambda x: ones.sum(), a, b),
        ]
        for call in calls:
            try:
                call()
                raised.append("")
            except (RuntimeError, TypeError) as error:
                raised.append(type(error).__name__)
        return raised
    on_both(run, A, B)
    assert functional.jacobian(lambda x: x * x, mg.ones(2), strategy="forward-mode", vectorize=True).tolist() == [[2, 0], [0, 2]]
    with pytest.raises(ValueError, match="strategy must be"):
        functional.hessian(lambda x: x.sum(), mg.ones(2), outer_jacobian_strategy="backwards")
    with pytest.raises(RuntimeError, match=r"\[vjp\] v must have the shapes of the output.*\[4\]"):
        functional.vjp(lambda x: x, mg.ones(3), mg.ones(4))


def test_batched_vectors_are_pytorchs(torch):
    found = []
    for lib in (mg, torch):
        x, w = (lib.tensor(v, dtype=lib.float64, requires_grad=True) for v in ([1.0, 2.0, 3.0], [0.5, -1.0, 2.0]))
        y, z, unused = x * x * w, x.sin(), lib.ones(2, dtype=lib.float64, requires_grad=True)
        eye, other = lib.eye(3, dtype=lib.float64), lib.arange(9.0, dtype=lib.float64).reshape(3, 3)
        rows = lib.autograd.grad(y, (x, w), eye, is_grads_batched=True, retain_graph=True)
        both = lib.autograd.grad((y, z), (x, unused), (eye, other), is_grads_batched=True, create_graph=True, allow_unused=True)
        (second,) = lib.autograd.grad(both[0].sum(), x, retain_graph=True)
        assert both[1] is None
        lib.autograd.grad(z, x, eye, is_grads_batched=True)
        with pytest.raises(RuntimeError):
            lib.autograd.grad(z, x, eye, is_grads_batched=True)         # the graph of z is freed
        found.append([t.detach().numpy() for t in (*rows, both[0], second)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for bad in (None, mg.tensor(1.0), mg.ones(0, 3), (mg.ones(2, 3), mg.ones(3, 3))):
        with pytest.raises(RuntimeError, match="is_grads_batched"):
            mg.autograd.grad((y, z) if isinstance(bad, tuple) else y, x, bad, is_grads_batched=True)
