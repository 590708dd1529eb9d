"""`minigrad.func`: against formulas, and against `torch.func`."""
from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import minigrad as mg
from minigrad import func, nn

RNG = np.random.default_rng(0)


def close(got, want, tolerance=1e-6):
    np.testing.assert_allclose(got.numpy(force=True), want, tolerance, tolerance)


def test_grad_of_nested_arguments():
    params = {"w": mg.tensor([1.0, 2.0]), "b": (mg.tensor(3.0),)}
    gradient, (value, aux) = func.grad_and_value(lambda p, x: ((p["w"] * x).sum() * p["b"][0], "aux"), has_aux=True)(params, mg.tensor([4.0, 5.0]))
    close(gradient["w"], [12, 15])
    close(gradient["b"][0], 14)
    close(value, 42)
    assert aux == "aux" and not gradient["w"].requires_grad and not value.requires_grad
    a, b = func.grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(mg.tensor([1.0]), mg.tensor([2.0]))
    assert a.tolist() == [2] and b.tolist() == [1]


def test_derivatives_nest():
    f = lambda x: (x ** 4).sum()        # noqa: E731
    close(func.grad(lambda x: func.grad(lambda y: func.grad(f)(y).sum())(x).sum())(mg.tensor([2.0])), [48])
    close(func.hessian(f)(mg.tensor([1.0, 2.0])), [[12, 0], [0, 48]])


def test_arguments_and_closures_that_require_gradients_stay_connected():
    x, w = mg.tensor(2.0, requires_grad=True), mg.tensor(3.0, requires_grad=True)
    func.grad(lambda t: t ** 3)(x).backward()
    close(x.grad, 12)
    func.grad(lambda t: t ** 2 * w)(mg.tensor(2.0)).backward()
    close(w.grad, 4)
    with mg.no_grad():
        assert not func.grad(lambda t: t ** 2 * w)(mg.tensor(2.0)).requires_grad


def test_vjp_and_jvp():
    a = mg.tensor(RNG.standard_normal((3, 2)))
    x, v, u = (mg.tensor(RNG.standard_normal(n)) for n in (2, 2, 3))
    value, pull = func.vjp(lambda t: a @ t, x)
    close(value, (a @ x).numpy())
    close(pull(u)[0], (a.mT @ u).numpy())
    value, push = func.jvp(lambda t: {"y": a @ t.sin()}, (x,), (v,))
    close(push["y"], (a @ (x.cos() * v)).numpy())
    close(func.jvp(lambda t: a @ t, (x,), (v,), strict=True)[1], (a @ v).numpy())
    value, pull, aux = func.vjp(lambda t: (a @ t, t.sum()), x, has_aux=True)
    close(aux, x.sum().item())


@pytest.mark.parametrize("make", [func.jacrev, func.jacfwd])
def test_jacobians(make):
    x, y = mg.tensor(RNG.standard_normal(3)), mg.tensor(RNG.standard_normal(3))
    (dx, dy), (none, eye) = make(lambda a, b: (a * b, b), argnums=(0, 1))(x, y)
    close(dx, np.diag(y.numpy()))
    close(dy, np.diag(x.numpy()))
    close(none, np.zeros((3, 3)))
    close(eye, np.eye(3))


def test_vmap():
    a, b = mg.tensor(RNG.standard_normal((4, 3))), mg.tensor(RNG.standard_normal((3, 4)))
    close(func.vmap(mg.dot, in_dims=(0, 1))(a, b), (a * b.mT).sum(1).numpy())
    got = func.vmap(lambda t, s: {"sum": t + s, "twice": (2 * t,)}, in_dims=(0, None), out_dims=1)(a, b[:, 0])
    close(got["sum"], (a + b[:, 0]).mT.numpy())
    close(got["twice"][0], 2 * a.mT.numpy())
    close(func.vmap(func.grad(lambda t: (t ** 2).sum()))(a), 2 * a.numpy())
    for draws in (lambda t: t + mg.rand(2), mg.bernoulli, lambda t: t.clone().normal_()):
        with pytest.raises(RuntimeError, match=r'draws random numbers; say randomness="different"'):
            func.vmap(draws)(mg.zeros(3, 2))
        assert func.vmap(draws, randomness="different")(mg.zeros(3, 2)).shape == (3, 2)
    same = func.vmap(lambda t: t + mg.rand(2), randomness="same")(mg.zeros(3, 2))
    assert (same == same[0]).all()


def test_vmap_hears_of_every_generator():
    own = mg.Generator().manual_seed(3)
    attention = lambda t: nn.functional.scaled_dot_product_attention(t[:, None], mg.ones(2, 1), mg.ones(2, 1), dropout_p=0.5)      # noqa: E731
    for draw in (lambda t: t + mg.rand(2, generator=own), nn.functional.dropout, attention):
        with pytest.raises(RuntimeError, match="draws random numbers"):
            func.vmap(draw)(mg.ones(3, 2))
    start = own.get_state()
    draws = lambda t: t + mg.rand(2, generator=own) + mg.rand(2)        # noqa: E731
    same = func.vmap(attention, randomness="same")(mg.ones(9, 2))
    assert (same == same[0]).all()
    same = func.vmap(draws, randomness="same")(mg.zeros(3, 2))
    assert (same == same[0]).all() and not mg.equal(own.get_state(), start)     # drawn from once
    apart = func.vmap(draws, randomness="different")(mg.zeros(3, 2))
    assert not mg.equal(apart[0], apart[1])
    with pytest.raises(RuntimeError, match="draws random numbers"):             # nested: the outer one hears it as well
        func.vmap(lambda t: func.vmap(draws, randomness="different")(t))(mg.zeros(2, 3, 2))
    func.vmap(lambda t: (mg.manual_seed(1), t)[1])(mg.zeros(2))                 # seeding draws nothing
    assert mg.initial_seed() == 1 and mg.core.modes.mode.streams is None


def test_vmap_takes_keyword_arguments_whole():
    x = mg.arange(6.0).reshape(2, 3)
    assert func.vmap(lambda t, other: t.sum() + other.sum())(x, other=x).tolist() == [18, 27]


def test_what_has_no_batch_in_vmap():
    x, whole = mg.arange(3.0), mg.zeros(3)
    got = func.vmap(lambda t: (t, "text", None, whole * 2), out_dims=(0, None, None, None))(x)
    assert got[0].tolist() == [0, 1, 2] and got[1:3] == ("text", None) and got[3].tolist() == [0, 0, 0]
    assert type(func.vmap(lambda t: OrderedDict(b=t, a=t))(x)) is OrderedDict
    assert func.vmap(lambda t: t, out_dims=(1,))(mg.zeros(2, 3)).shape == (3, 2)
    for given in (lambda t: t, lambda t: t.item()):
        with pytest.raises(ValueError, match="different values where out_dims is None"):
            func.vmap(given, out_dims=None)(x)
    with pytest.raises(RuntimeError, match="without a batch in place"):
        func.vmap(lambda t, w: w.add_(t), in_dims=(0, None))(x, mg.zeros(()))


def test_functional_call_and_ensembles():
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval() for _ in range(3)]
    x = mg.randn(5, 3)
    before = {name: p.clone() for name, p in models[0].named_parameters()}
    out = func.functional_call(models[0], dict(models[1].named_parameters()), (x,))
    close(out, models[1](x).numpy(force=True))
    assert all(mg.equal(p, before[name]) for name, p in models[0].named_parameters())
    params, buffers = func.stack_module_state(models)
    got = func.vmap(lambda p, b: func.functional_call(models[0], (p, b), x))(params, buffers)
    close(got, np.stack([m(x).numpy(force=True) for m in models]))
    got.sum().backward()
    assert params["0.weight"].grad.shape == (3, 4, 3)


def test_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.a(x) + self.b(x)
    zero = {"a.weight": mg.zeros(2, 2)}
    assert func.functional_call(Tied(), zero, mg.ones(2)).tolist() == [0, 0]
    assert func.functional_call(Tied(), zero, mg.ones(2), tie_weights=False).tolist() != [0, 0]
    assert func.functional_call(Tied(), zero, mg.ones(2), strict=True).tolist() == [0, 0]
    with pytest.raises(ValueError, match="tied"):
        func.functional_call(Tied(), {**zero, "b.weight": mg.ones(2, 2)}, mg.ones(2))
    with pytest.warns(UserWarning, match="no tensors c, d"):
        assert func.functional_call(Tied(), {**zero, "d": mg.ones(1), "c": mg.ones(1)}, mg.ones(2)).tolist() == [0, 0]


def test_what_forward_assigns_is_found_in_the_dict():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", mg.zeros(1))

        def forward(self, x):
            self.count = self.count + 1
            return x + self.count
    module, given = Counts(), {"count": mg.tensor([2.0])}
    start = given["count"]
    assert func.functional_call(module, given, mg.ones(1)).item() == 4
    assert given["count"].item() == 3 and start.item() == 2 and module.count.item() == 0


def test_functional_call_of_plain_attributes():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale, self.depth = nn.Linear(1, 1), mg.ones(1), 3

        def forward(self, x):
            return x * self.scale + getattr(self, "extra", 0) + sum(p.sum() for p in self.parameters()) * 0
    module = Scaled()
    module.inner.outer = module                         # a circle: names are walked, not listed
    got = func.functional_call(module, {"inner.outer.scale": mg.tensor([5.0])}, mg.ones(1), tie_weights=False)
    assert got.item() == 5 and module.scale.item() == 1
    del module.inner.outer
    with pytest.warns(UserWarning, match="no tensors extra"):
        assert func.functional_call(module, {"extra": nn.Parameter(mg.tensor([2.0]))}, mg.ones(1)).item() == 3
    assert not hasattr(module, "extra") and len([*module.parameters()]) == 2
    for name, value, kind in (("depth", mg.ones(1), TypeError), ("scale", 2.0, TypeError), ("none.weight", mg.ones(1), AttributeError)):
        with pytest.raises(kind):
            func.functional_call(module, {name: value}, mg.ones(1))
    with pytest.raises(RuntimeError, match="nothing else|no others"):
        func.functional_call(module, {**dict(module.named_parameters()), "scale": mg.ones(1)}, mg.ones(1), strict=True)
    assert module.scale.item() == 1 and module.depth == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torch_gives(torch):
    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    programs = (lambda f, x, v: f.hessian(lambda t: (t.sin() * t).sum())(x), lambda f, x, v: f.jvp(lambda t: t.exp().cumsum(0), (x,), (v,))[1],
                lambda f, x, v: f.vjp(lambda t: t.exp().cumsum(0), x)[1](v)[0], lambda f, x, v: f.jacfwd(lambda t: t.tanh().flip(0))(x),
                lambda f, x, v: f.vmap(f.jacrev(lambda t, s: t * s, argnums=1))(x, v))
    for program in programs:
        close(program(func, mg.tensor(x), mg.tensor(v)), program(torch.func, torch.tensor(x), torch.tensor(v)).numpy(), 1e-9)


@pytest.mark.parametrize("call, kind, text", [
    (lambda: func.grad(lambda x: x)(mg.ones(2)), RuntimeError, "0-d tensor"),
    (lambda: func.grad(lambda x: x.sum(), argnums=1)(mg.ones(2)), RuntimeError, "argnums"),
    (lambda: func.grad(lambda x: x)(2.0), TypeError, "must be tensors"),
    (lambda: func.grad(lambda x: x.sum(), has_aux=True)(mg.ones(2)), TypeError, "output, aux"),
    (lambda: func.vjp(lambda x: x, mg.ones(2))[1](mg.ones(3)), RuntimeError, "shapes of the output"),
    (lambda: func.jvp(lambda x: x, mg.ones(2), mg.ones(2)), TypeError, "tuples"),
    (lambda: func.jvp(lambda x: x, (mg.ones(2),), (mg.ones(3),)), RuntimeError, "shapes of the primals"),
    (lambda: func.jvp(lambda x: (x * 2, mg.ones(3)), (mg.ones(2),), (mg.ones(2),), strict=True), RuntimeError, r"must depend .*float32\[3\]"),
    (lambda: func.vmap(mg.dot)(mg.ones(2, 2), mg.ones(3, 2)), ValueError, "one size"),
    (lambda: func.vmap(mg.dot, in_dims=(0, 0, 0))(mg.ones(2, 2), mg.ones(2, 2)), ValueError, "in_dims"),
    (lambda: func.vmap(mg.dot, in_dims=[0, 0])(mg.ones(2, 2), mg.ones(2, 2)), ValueError, "number or a tuple"),
    (lambda: func.vmap(mg.sum)(mg.ones(2, 2), 0), ValueError, "dimension 0 of what is no tensor .* got int"),
    (lambda: func.vmap(mg.sum, in_dims=2)(mg.ones(2, 2)), ValueError, "dimension 2 of what is no tensor with that"),
    (lambda: func.vmap(mg.sum)(mg.ones(())), ValueError, "dimension 0 of what is no tensor with that"),
    (lambda: func.vmap(lambda x: x.item())(mg.ones(2)), ValueError, "must be tensors"),
    (lambda: func.vmap(mg.dot, randomness="x"), RuntimeError, "randomness"),
    (lambda: func.functional_call(nn.Linear(1, 1), {"x": mg.ones(1)}, mg.ones(1), strict=True), RuntimeError, r"unknown \['x'\]"),
    (lambda: func.functional_call(nn.Linear(1, 1), {"bias": mg.ones(1)}, mg.ones(1), strict=True), RuntimeError, "missing"),
    (lambda: func.functional_call(nn.Linear(1, 1), ({"bias": mg.ones(1)},) * 2, mg.ones(1)), ValueError, "several"),
    (lambda: func.stack_module_state([]), RuntimeError, "at least one"),
    (lambda: func.stack_module_state([nn.Linear(1, 1), nn.ReLU()]), RuntimeError, "one class"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_linearize():
    x, v = mg.tensor([1.0, 2.0, 3.0]), mg.tensor([1.0, 0.5, -1.0])
    value, product = mg.func.linearize(lambda x: (x.sin(), (x * x).sum()), x)
    np.testing.assert_allclose(value[0].numpy(), np.sin(x.numpy()), rtol=1e-6)
    for u in (v, 2 * v):
        of_sin, of_sum = product(u)
        np.testing.assert_allclose(of_sin.numpy(), np.cos(x.numpy()) * u.numpy(), rtol=1e-6)
        np.testing.assert_allclose(of_sum.item(), float((2 * x * u).sum()), rtol=1e-6)


def test_states_are_stacked_of_modules_that_train_alike():
    models = [mg.nn.Linear(2, 2) for _ in range(3)]
    models[1].eval()
    with pytest.raises(RuntimeError, match="in one mode"):
        mg.func.stack_module_state(models)
    models[1].train()
    models[0].weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="in all modules or in none; got weight"):
        mg.func.stack_module_state(models)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_a_chunk_is_not_empty(chunk_size):
    with pytest.raises(ValueError, match=r"\[func.vmap\] chunk_size must be None or positive"):
        func.vmap(mg.sin, chunk_size=chunk_size)


def test_vmap_gives_as_strided_an_element_of_the_batch():
    """Offsets count from its beginning: each call read the first element's memory."""
    x = mg.arange(12.0).reshape(3, 4)
    got = mg.func.vmap(lambda row: row.as_strided((2, 2), (1, 1), 1))(x)
    assert got.tolist() == [[[1, 2], [2, 3]], [[5, 6], [6, 7]], [[9, 10], [10, 11]]]
    assert mg.func.vmap(lambda row: row[1:].as_strided((2,), (2,)))(x).tolist() == [[1, 3], [5, 7], [9, 11]]
    with pytest.raises(RuntimeError, match="outside the tensor"):
        mg.func.vmap(lambda row: row.as_strided((2,), (1,), 3))(x)
    assert x[1].as_strided((2,), (1,), 0).tolist() == [0, 1]            # elsewhere from that of the memory
