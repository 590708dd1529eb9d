"""What has no CUDA kernel: NumPy's functions on CuPy arrays, and what is made of kernels in their place."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated

import minigrad as mg
from minigrad import distributions
from minigrad.core.op import registry

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
rng = np.random.default_rng(0)
NUMBERS = ["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def both(function, *arrays):
    """The results of a function on the CPU and on the GPU, for the same arrays and random numbers."""
    results = []
    for device in ("cpu", "cuda"):
        mg.manual_seed(3)
        made = function(*[mg.tensor(a, device=device) for a in arrays])
        made = list(made) if isinstance(made, (tuple, list)) else [made]
        assert all(t.device.type == device for t in made)
        results.append([t.numpy(force=True) for t in made])
    return zip(*results, strict=True)


def same(function, *arrays):
    for want, got in both(function, *arrays):
        assert want.dtype == got.dtype
        np.testing.assert_array_equal(got, want)


def whole(dtype, *shape):
    """Whole numbers that every type holds; their sums and products are beyond the small ones."""
    return (rng.integers(0, 120, shape) - (0 if dtype[0] == "u" else 60)).astype(dtype)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arithmetic_of_every_number_type(dtype):
    x, y = whole(dtype, 3, 7), np.where(whole(dtype, 7) == 0, 3, whole(dtype, 7)).astype(dtype)
    y[y == 0] = 5
    for function in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: -a, lambda a, b: a // b, lambda a, b: a % b,
                     mg.fmod, mg.maximum, lambda a, b: a < b, lambda a, b: a == b, lambda a, b: abs(a), lambda a, b: mg.sign(a),
                     lambda a, b: a.sum(), lambda a, b: a.sum(0), lambda a, b: a.amax(1), lambda a, b: a.argmin(1), lambda a, b: a.cumsum(1),
                     lambda a, b: a.any(1), lambda a, b: mg.count_nonzero(a, 1), lambda a, b: mg.cummax(a, 1), lambda a, b: a.unique(return_inverse=True), lambda a, b: a[a > b],
                     lambda a, b: a.sort(1), lambda a, b: a.topk(2, 1), lambda a, b: mg.where(a > b, a, b)):
        same(function, x, y)


@pytest.mark.parametrize("to", [*NUMBERS, "bool"])
@pytest.mark.parametrize("source", [*NUMBERS, "bool"])
def test_casts(source, to):
    x = whole(source, 40)
    if source[:5] == "float":
        x = np.concatenate([x, np.array([300.5, -300.5, -1.5, 70.9], source)])      # the low bits stay, as on the CPU
    same(lambda a: a.to(np.dtype(to)), x)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64"])
def test_bits(dtype):
    x, y = whole(dtype, 3, 5), whole(dtype, 5)
    for function in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b, lambda a, b: ~a):
        same(function, x, y)
    if dtype != "bool":
        same(lambda a, b: a << 1, x, y)
        same(lambda a, b: a >> 2, x, y)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_integer_products(dtype):
    same(lambda a, b: a @ b, whole(dtype, 4, 5), whole(dtype, 5, 3))
    same(lambda a, b: a @ b, whole(dtype, 2, 1, 4, 5), whole(dtype, 3, 5, 2))
    same(lambda a, b: a @ b, whole(dtype, 5), whole(dtype, 5))


def test_division_by_zero_raises():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        mg.tensor([1, 2], device="cuda") // mg.tensor([1, 0], device="cuda")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16"])
def test_small_integers_are_added_as_they_wrap_around(dtype):
    x, index = whole(dtype, 6, 3), np.array([1, 1, 5, 0, 1])
    source = whole(dtype, 5, 3)
    same(lambda a, i, s: a.index_add(0, i, s), x, index, source)
    same(lambda a, i, s: a.scatter_add(0, i[:, None].expand(5, 3).contiguous(), s), x, index, source)


def test_places_of_true_elements():
    x = rng.standard_normal((4, 1, 5)).astype(np.float32)
    for function in (lambda a: a[a > 0], lambda a: mg.masked_select(a, a > 0), lambda a: mg.nonzero(a > 0), lambda a: mg.argwhere(a > 0),
                     lambda a: mg.where(a > 0), lambda a: mg.nonzero(a > 9), lambda a: mg.nonzero(a > 0, as_tuple=True)):
        same(function, x)
    same(mg.nonzero, np.float32(3))


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_unique(dim):
    x = rng.integers(0, 3, (6, 4))
    for dtype in (np.int64, np.float32, np.uint8):
        same(lambda a: mg.unique(a, return_inverse=True, return_counts=True, dim=dim), x.astype(dtype))
        same(lambda a: mg.unique_consecutive(a, return_inverse=True, return_counts=True, dim=dim), np.sort(x.astype(dtype), 0 if dim else None))
    same(lambda a: mg.unique_consecutive(a, return_counts=True), np.zeros(0, np.float32))


def test_counts():
    numbers, weights = rng.integers(0, 9, 500), rng.standard_normal(500)
    same(mg.bincount, numbers)
    same(lambda a: mg.bincount(a, minlength=20), numbers[:7])
    for dtype in (np.float32, np.float64, np.int64):
        same(mg.bincount, numbers, (100 * weights).astype(dtype))           # to the last bit: added in their order
    with pytest.raises(RuntimeError, match="non-negative"):
        mg.bincount(mg.tensor([1, -1], device="cuda"))


@pytest.mark.parametrize("n", [1, 2, 31, 100])
def test_running_extremes(n):
    x = rng.integers(0, 9, (3, n, 2)).astype(np.float32)
    x[0, n // 2, 0], x[1, n // 3, 1], x[2, 0, 0] = np.nan, np.inf, -np.inf
    for function in (mg.cummax, mg.cummin):
        same(lambda a, f=function: f(a, 1), x)
        same(lambda a, f=function: f(a, -1), rng.integers(0, 9, (3, n, 2)).astype(np.int16))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_polygamma(n):
    x = np.concatenate([rng.uniform(-4, 4, 50), [0, -1, 0.5, 20]])
    for want, got in both(lambda a: mg.polygamma(n, a), x):
        np.testing.assert_allclose(got, want, 1e-12)


@pytest.mark.parametrize("draw", [
    lambda d: mg.randint(-3, 9, (50,), device=d), lambda d: mg.randint(0, 200, (50,), dtype=mg.uint8, device=d),
    lambda d: mg.randperm(40, device=d), lambda d: mg.multinomial(mg.arange(10, device=d).float(), 5),
    lambda d: mg.multinomial(mg.arange(30, device=d).reshape(3, 10).float(), 50, replacement=True)],
    ids=["randint", "uint8", "randperm", "multinomial", "with replacement"])
def test_the_same_random_numbers(draw):
    same(lambda a: draw(a.device), np.zeros(1))


def test_values_written_to_places():
    """Of several values for one place the last stays, whatever order threads run in."""
    x, v = rng.standard_normal((5, 4)).astype(np.float32), rng.standard_normal((6, 4)).astype(np.float32)

    def write(key, count=None):
        def run(a, b):
            a = a.clone()
            a[key(a)] = b[:count] if count else 7.5
            return a
        return run
    same(write(lambda a: mg.tensor([4, 1, 1, 0, 4, 1], device=a.device), 6), x, v)
    same(write(lambda a: (slice(1, 3), mg.tensor([3, 3], device=a.device))), x, v)
    same(write(lambda a: a > 0), x, v)
    same(write(lambda a: (mg.tensor([0, 2, 0], device=a.device), mg.tensor([1, 1, 1], device=a.device))), x, v)

    def masked(a, b):
        a = a.clone().t()
        a[a > 0] = b.reshape(-1)[:int((a > 0).sum())]
        return a
    same(masked, x, v)


@pytest.mark.skipif(REAL, reason="the stand-in sees what is read back")
def test_nothing_is_read_back(monkeypatch):
    """The functions stay on the GPU, and in order with launches before and after them."""
    x, n = mg.tensor(rng.standard_normal((3, 40)).astype(np.float32), device="cuda"), mg.tensor(whole("int16", 3, 40), device="cuda")
    reads = []
    monkeypatch.setattr(fakecupy.ndarray, "get", lambda self, get=fakecupy.ndarray.get: reads.append(1) or get(self))
    with fakecupy.asynchronous():
        made = [mg.cummax(x + x, 1).values + 1, mg.polygamma(1, x + 3), (n + n) & n, (n.long() * 2) @ n.long().t(), (n * 2).to(mg.uint8).float()]
        assert reads == []
        values = [t.numpy(force=True) for t in made]
    a, b = x.numpy(force=True), n.numpy(force=True)
    np.testing.assert_array_equal(values[0], np.maximum.accumulate(a + a, 1) + 1)
    np.testing.assert_array_equal(values[2], (b + b) & b)
    np.testing.assert_array_equal(values[3], (b.astype(np.int64) * 2) @ b.astype(np.int64).T)
    np.testing.assert_array_equal(values[4], (b * 2).astype(np.uint8).astype(np.float32))


def test_empty_triangles():
    for function in (mg.tril, mg.triu):
        same(function, np.zeros((0, 3), np.float32))
        same(function, np.zeros((2, 3, 0), np.int64))


def test_captured_steps():
    """Such a launch stands between two graphs, and runs again in each replay."""
    @mg.capture
    def step(x):
        return mg.cummax(x * 2, 0).values + mg.polygamma(1, x), x.long() % 3 & 5

    for i in range(4):
        x = mg.tensor(rng.uniform(1, 9, 7).astype(np.float32) + i, device="cuda")
        got, bits = step(x)
        np.testing.assert_array_equal(got.cpu().numpy(), (mg.cummax(x * 2, 0).values + mg.polygamma(1, x)).cpu().numpy())
        np.testing.assert_array_equal(bits.cpu().numpy(), (x.long() % 3 & 5).cpu().numpy())


def test_distributions_that_numpy_draws():
    def samples(a):
        rate = a.clone().requires_grad_()
        z = distributions.Gamma(rate, mg.ones_like(rate)).rsample((2,))
        z.sum().backward()
        return z.detach(), rate.grad, distributions.Poisson(a).sample((2,)), distributions.Dirichlet(a).sample()
    same(samples, np.array([0.5, 2.0, 9.0], np.float32))


def test_rare_distributions():
    d = distributions

    def results(a, m):
        low = m.tril(-1) + m.diagonal().exp().diag_embed()
        made = [d.VonMises(a, a), d.Kumaraswamy(a, a), d.FisherSnedecor(a, a), d.GeneralizedPareto(a, a, a / 30), d.ContinuousBernoulli(logits=a - 2),
                d.LowRankMultivariateNormal(a, m, a), d.Wishart(a.mean() + 3, scale_tril=low), d.LKJCholesky(3, a)]
        drawn = [p.sample((2,)) for p in made]
        return *drawn, *[p.log_prob(x) for p, x in zip(made, drawn, strict=True)], d.transform_to(d.constraints.corr_cholesky)(a), d.kl_divergence(made[5], d.MultivariateNormal(a, m @ m.mT + m.diag().exp().diag_embed()))
    for want, got in both(results, np.array([0.5, 2.0, 9.0], np.float32), rng.standard_normal((3, 3)).astype(np.float32)):
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4)


def test_optimizers_without_a_kernel():
    def steps(a):
        p, q = a.clone().requires_grad_(), a.clone().requires_grad_()
        both = mg.optim.Muon([p]), mg.optim.SparseAdam([q], lr=0.1)
        for _ in range(2):
            p.grad, q.grad = a * a, a.relu()
            for o in both:
                o.step()
        return p.detach(), q.detach()
    for want, got in both(steps, rng.standard_normal((4, 3)).astype(np.float32)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_what_cupy_has_runs_there(monkeypatch):
    """No copy to the host; but of bfloat16, which CuPy's searches do not take."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    copied, get, exponent = [], fakecupy.ndarray.get, registry["frexp_exponent"]
    a, b = (mg.tensor(v, device="cuda") for v in ([12, 18, 7], [8, 27, 7]))
    x = mg.tensor([1.0, 2.5, 4.0], device="cuda")
    monkeypatch.setattr(fakecupy.ndarray, "get", lambda *args, **kwargs: (copied.append(1), get(*args, **kwargs))[1])

    def results(of):
        made = [mg.gcd(a, b), mg.lcm(a, b), mg.nextafter(x, -x), exponent(of), mg.isin(of, of[1:]), mg.searchsorted(of, of * 1.5)]
        assert not copied if of is x else copied
        return [t.tolist() for t in made]
    want = [[4, 9, 7], [24, 54, 7], [np.nextafter(np.float32(v), np.float32(-9)) for v in (1, 2.5, 4)], [1, 2, 3],
            [False, True, True], [1, 2, 3]]
    assert results(x) == want and results(x.to(ml_dtypes.bfloat16)) == want
