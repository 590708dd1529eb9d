"""Reductions: sums and squares that leave float32's range, infinite and NaN extremes."""
from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused

NAN, INF = math.nan, math.inf
SCALES = [1e-30, 1e-20, 1.0, 1e15, 1e19, 1e30, 1e37]
SHAPES = [(5, 33), (8, 6, 4), (3, 4, 300), (2, 600, 3), (2, 2, 3000)]
RESULTS = {"std": lambda x: x.std(-1), "std 0": lambda x: x.std(0), "std_mean": lambda x: mg.std_mean(x, 1)[0], "mean": lambda x: x.mean(0),
           "mean of all": lambda x: x.mean(), "norm": lambda x: x.norm(2, -1), "norm 0": lambda x: x.norm(2, 0), "norm 3": lambda x: x.norm(3, 1),
           "norm 0.5": lambda x: x[..., :5].norm(0.5, 1)}


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("name", RESULTS)
def test_the_scale_does_not_matter(name, path):
    f, rng = RESULTS[name], np.random.default_rng(0)
    for shape in SHAPES:
        values = rng.uniform(-1, 1, shape) + 0.3
        exact = mg.tensor(values, requires_grad=True)
        want = f(exact)
        want.sum().backward()
        for scale in SCALES[:None if path == "auto" else -1]:
            if float(want.detach().abs().max()) * scale > 3e38:
                continue
            x = mg.tensor((values * scale).astype(np.float32), requires_grad=True)
            with set_fused(path):
                got = f(x)
                got.sum().backward()
            np.testing.assert_allclose(got.detach().numpy().astype(np.float64) / scale, want.detach().numpy(), 3e-5, 1e-6)
            np.testing.assert_allclose(x.grad.numpy(), exact.grad.numpy(), 1e-3, 2e-5)


def test_ends_of_the_range():
    assert mg.tensor([1e20, 2e20, 3e20]).std().item() == pytest.approx(1e20)
    assert mg.tensor([3e38, -3e38, 0, 0]).std().item() == pytest.approx(2.449490e38)
    assert mg.full((3,), 3e38).mean().item() == pytest.approx(3e38)
    assert mg.full((300, 70), 3e38).mean(0).tolist() == pytest.approx([3e38] * 70)
    assert mg.tensor([3e38, 3e38, -3e38]).sum().item() == pytest.approx(3e38)
    assert mg.full((3,), 3e38).sum().item() == INF
    assert mg.tensor([1e30, -1e30]).var().item() == INF             # 2e60 is no float32
    assert mg.tensor([1.5e19, -1.5e19]).var().item() == INF and mg.tensor([1.2e19, -1.2e19]).var().item() == pytest.approx(2.88e38)
    assert F.normalize(mg.tensor([3e30, 4e30]), dim=0).tolist() == pytest.approx([0.6, 0.8])
    assert F.normalize(mg.tensor([3e-30, 4e-30]), dim=0, eps=1e-38).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("path", ["auto", "off"])
def test_infinite_and_nan_elements(path):
    with set_fused(path):
        assert mg.tensor([1.0, INF]).mean().item() == INF and mg.tensor([1.0, INF]).norm().item() == INF
        assert math.isnan(mg.tensor([-INF, INF]).mean().item()) and math.isnan(mg.tensor([1.0, INF]).std().item())
        assert math.isnan(mg.tensor([1.0, NAN]).norm().item())
        assert mg.zeros(3).norm().item() == 0 and mg.zeros(3).std().item() == 0 and mg.full((40,), 7.0).std().item() == 0


EXTREMES = [lambda x: x.max(), lambda x: x.min(), lambda x: x.amax(0), lambda x: x.amin(0), lambda x: mg.aminmax(x).max]


@pytest.mark.parametrize("f", EXTREMES)
def test_nans_share_the_gradient_of_an_extreme(f):
    for values, want in (([NAN, NAN], [0.5, 0.5]), ([NAN, 1.0, NAN], [0.5, 0, 0.5]), ([NAN, 1.0], [1, 0])):
        x = mg.tensor(values, requires_grad=True)
        f(x).backward()
        assert x.grad.tolist() == want


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("shape", [(2,), (6, 3), (3, 2000)])
def test_logsumexp_beside_inf(shape, path):
    """d/dx of a finite element is exp(x - inf) = 0, also where exp(x) is inf; the infinite ones share the gradient."""
    for dim in range(len(shape)):
        values = np.full(shape, 200.0, np.float32)
        np.moveaxis(values, dim, 0)[0] = INF
        x = mg.tensor(values, requires_grad=True)
        with set_fused(path):
            y = mg.logsumexp(x, dim)
            y.sum().backward()
        assert (y == INF).all()
        gradient = np.moveaxis(x.grad.numpy(), dim, 0)
        assert (gradient[1:] == 0).all() and (gradient[0] == 1).all()


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("dtype", [mg.float32, mg.float64, mg.float16])
def test_logsumexp_of_infinities_in_a_chain(dtype, path):
    """A state that cannot be reached does not spoil the others: -inf stays -inf, its gradient is what comes, shared."""
    for shape in ((3, 4), (5, 3, 4), (3, 300)):
        for dim in range(len(shape)):
            x = mg.full(shape, -INF, dtype=dtype, requires_grad=True)
            with set_fused(path):
                y = mg.logsumexp(x, dim)
                mg.logsumexp(mg.stack([y, mg.ones_like(y)]), 0).sum().backward()
                assert (y == -INF).all() and (x.grad == 0).all()
                grad, = mg.autograd.grad(mg.logsumexp(x, dim).sum(), x)
                np.testing.assert_allclose(grad.float().numpy(), 1 / shape[dim], rtol=1e-3)
    for values, want in (([INF, 1.0, INF], [0.5, 0, 0.5]), ([NAN, INF], [NAN] * 2), ([NAN, -INF], [NAN] * 2), ([-INF], [1])):
        x = mg.tensor(values, dtype=dtype, requires_grad=True)
        with set_fused(path):
            mg.logsumexp(x, 0).backward()
        np.testing.assert_array_equal(x.grad.float().numpy(), want)


def test_logsumexp_of_no_elements():
    assert mg.zeros(9, 0, 8, 0).logsumexp((1, 3)).tolist() == [[-INF] * 8] * 9


@pytest.mark.parametrize("path", ["auto", "off"])
def test_gradients_of_what_is_divided_by_its_own_size(path):
    """They are as 1 / x: the gradient that comes to the norm or deviation is 1e30 at 1e-30."""
    weight = mg.tensor([[1.0, 0.3, -0.7], [0.2, 0.5, 0.9]])
    functions = [*[partial(F.normalize, p=p, dim=1, eps=0.0) for p in (2.0, 1.0, 3.0, INF)],
                 lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)]
    for f in functions:
        found = []
        for scale in (2.0 ** -100, 1.0, 2.0 ** 100):
            x = mg.tensor(np.float32([[1, -2, 0.5], [0.25, 3, -1]]) * np.float32(scale), requires_grad=True)
            with set_fused(path):
                y = f(x)
                (y * weight).sum().backward()
            found.append((y.detach().numpy(), x.grad.numpy() * np.float32(scale)))
        for y, g in found:
            np.testing.assert_allclose(y, found[1][0], 1e-6)
            np.testing.assert_allclose(g, found[1][1], 2e-5, 2e-6)


def test_norms_of_negative_order_are_those_of_the_smallest_elements():
    inf = float("inf")
    for values, p, want in (([inf, 1.0], -2.0, 1.0), ([1e30, 1e-30], -2.0, 1e-30), ([1e30, 1e30], -2.0, 0.5 ** 0.5 * 1e30), ([inf, inf], -1.0, inf),
                            ([0.0, 1.0], -2.0, 0.0), ([0.0, 0.0], -2.0, 0.0), ([1e-30, 3.0, inf], -0.5, 1e-30), ([3.0], -3.0, 3.0)):
        x = mg.tensor(values, requires_grad=True)
        norm = mg.linalg.vector_norm(x, p)
        norm.backward()
        np.testing.assert_allclose(norm.item(), want, rtol=1e-6)
        assert not mg.isnan(x.grad).any() and (x.grad[0] == 0) == (values[0] in (0, inf, 1e30) and values != [1e30, 1e30]), (values, p, x.grad)


@pytest.mark.parametrize("size", [1e200, 1e-200, 5e307, 1e-310])
@pytest.mark.parametrize("shape, dim", [((6,), 0), ((5, 700), 1), ((5, 700), 0), ((3, 4, 5), 1), ((2, 300000), 1), ((4, 6), (0, 1))])
def test_float64_whose_sums_or_squares_leave_the_range(shape, dim, size):
    """As float32, which sums in double: an output that is out of range is computed again, of scaled numbers."""
    values = np.random.default_rng(5).uniform(0.5, 1, shape) * np.random.default_rng(6).choice([-1, 1], shape)
    wide = values.astype(np.longdouble)
    axis = dim if isinstance(dim, tuple) else (dim,)
    x = mg.tensor(values * size, requires_grad=True)
    for f, want in ((lambda x: mg.linalg.vector_norm(x, 2, dim), np.sqrt((wide ** 2).sum(axis))), (lambda x: x.std(dim), wide.std(axis, ddof=1)),
                    (lambda x: x.mean(dim), wide.mean(axis)), (lambda x: x.abs().mean(dim), abs(wide).mean(axis)), (lambda x: mg.std_mean(x, dim)[1], wide.mean(axis))):
        want = want * np.longdouble(size)
        if abs(want).max() > 1.7e308:
            continue
        y = f(x)
        np.testing.assert_allclose(y.numpy(force=True).astype(np.longdouble), want, rtol=1e-13 if size > 1e-300 else 1e-9, atol=float(abs(wide).max() * size * 1e-15))
        g, = mg.autograd.grad(y.sum(), x)
        assert mg.isfinite(g).all() and (size < 1e-300 or g.any())
    assert mg.tensor([1e308, 1e308, -1e308, -1e308], dtype=mg.float64).sum().item() == 0
    for values, want in (([INF, 1e308], INF), ([NAN, 1e308], NAN), ([1e308] * 20, INF), ([INF, -INF], NAN)):
        np.testing.assert_array_equal(mg.tensor(values, dtype=mg.float64).sum().item(), want)
    assert mg.zeros(3, dtype=mg.float64).norm().item() == mg.zeros(3, dtype=mg.float64).std().item() == mg.full((9,), 7e200, dtype=mg.float64).std().item() == 0
    assert mg.tensor([INF, 1.0], dtype=mg.float64).norm().item() == INF


@pytest.mark.filterwarnings("ignore:.var. divides by count")
@pytest.mark.parametrize("shape, dim", [((0,), 0), ((0, 3), 0), ((3, 0), 0), ((2, 0, 3), (0, 1)), ((0, 0), 1)])
def test_float64_of_no_elements(shape, dim):
    """What is not finite is computed again: of nothing, there is nothing to read."""
    x = mg.zeros(shape, dtype=mg.float64)
    for f in (mg.mean, mg.nanmean, mg.std, mg.var, lambda x, d: mg.std_mean(x, d)[1]):
        assert mg.isnan(f(x, dim)).all()
    assert (x.sum(dim) == 0).all() and (mg.linalg.vector_norm(x, 2, dim) == 0).all()


@pytest.mark.parametrize("shape, dim", [((40,), 0), ((5, 33), 1), ((33, 5), 0), ((3, 31, 4), (0, 2))])
def test_float64_beside_infinite_elements_finite_ones_do_not_count(shape, dim):
    """Their own sum leaves the range, perhaps to the other side: the result was NaN."""
    for infinite, want in ((INF, INF), (-INF, -INF), (NAN, NAN)):
        for finite in (1.5e308, -1.5e308):
            values = np.full(shape, finite)
            values[tuple([n // 2 for n in shape])] = infinite
            for f, of_finite in ((mg.sum, np.sign(finite) * INF), (mg.mean, finite)):
                y = f(mg.tensor(values), dim).numpy()
                odd = ~np.isfinite(values).all(dim)
                np.testing.assert_array_equal(y[odd], want)
                np.testing.assert_allclose(y[~odd], of_finite)
    assert mg.isnan(mg.tensor([INF, -INF, 1e308, 1e308], dtype=mg.float64).sum())


def test_float64_deviations_of_equal_and_of_close_numbers():
    """No squares were lost where the numbers are of ordinary size: the first result stays."""
    for size in (1.0, 2.0 ** -390, 2.0 ** -410, 2.0 ** 470, 2.0 ** 490):
        values = np.full((3, 50), size)
        values[1, 7] = np.nextafter(size, 9e9 * size)
        got = mg.tensor(values).std(1).numpy()
        assert got[0] == got[2] == 0
        np.testing.assert_allclose(got[1], (values[1, 7] - size) / 50 ** 0.5, rtol=0.05)


@pytest.mark.parametrize("call", [lambda: mg.ones(1, 13).var(0), lambda: mg.ones(13, 5).std(1, correction=5),
                                  lambda: mg.cov(mg.ones(13, 1)), lambda: mg.corrcoef(mg.ones(11, 1))])
def test_a_variance_of_too_few_elements_warns(call):
    """The result is nan, and nothing else would say why. Once for each signature."""
    with pytest.warns(UserWarning, match=r"\[(var|cov)\] divides by .* - correction, which is not positive"):
        call()


def test_the_gradient_of_a_product_is_right_where_a_quotient_is_not():
    """Beside zeros, and where the product leaves the range but those of the others do not; in a captured step too, which sees other values."""
    rows = [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0], [1e-30, 1e-20, 4.0], [1e30, 1e30, 1e-10], [math.inf, 2.0, 3.0]]
    wanted = [[12, 8, 6], [12, 0, 0], [0, 0, 0], [4e-20, 4e-30, 1e-50], [1e20, 1e20, math.inf], [6, math.inf, math.inf]]
    x = mg.ones(6, 3, requires_grad=True)

    @mg.capture
    def step(x: mg.Tensor) -> mg.Tensor:
        return mg.autograd.grad(x.prod(1).sum(), x)[0]
    step(x)
    for given in (mg.tensor(rows), mg.tensor(rows[:1] * 6)):
        found = step(given.requires_grad_())
        np.testing.assert_allclose(found, mg.autograd.grad(given.prod(1).sum(), given)[0], 1e-6)
    for row, want in zip(rows, wanted, strict=True):
        leaf = mg.tensor([row], requires_grad=True)
        np.testing.assert_allclose(mg.autograd.grad(leaf.prod(1).sum(), leaf)[0], np.array([want], np.float32), 1e-6)
