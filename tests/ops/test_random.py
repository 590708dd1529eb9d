"""Random numbers of half precision: drawn in float32, and inside their bounds after rounding."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.testing import half_dtypes

MANY = 200_000
HALVES = half_dtypes()
BOUNDS = ((0, 1), (-1, 3), (1000, 1001), (-3, -1), (-1, 0), (-2, 1), (0.1, 0.3), (-0.3, -0.1), (0, 0.1), (0, 1e-7), (-1e-7, 0), (-100, 100))


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 1 << 8), ("float16", 1 << 11), ("float32", 1 << 24), ("float64", 1 << 53)])
def test_integers_that_a_float_rounds_give_a_warning(dtype, limit):
    x = mg.empty(5, dtype=dtype)
    for bounds in ((), (limit + 1,), (-limit, limit + 1), (-5, None)):
        x.random_(*bounds)                              # no warning
    for bounds, name in (((limit + 2,), "to - 1"), ((-limit - 1, 0), "from")):
        with pytest.warns(UserWarning, match=f"random_. {name} is out of bounds: {dtype} holds integers up to {limit}"):
            x.random_(*bounds)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_range_that_the_dtype_cannot_hold_is_refused(dtype):
    most = float(mg.finfo(dtype).max)
    for low, high in ((-most, most), (0, np.inf), (-np.inf, 0), (-0.6 * most, 0.6 * most)):
        with pytest.raises(RuntimeError, match=f"uniform_. expects bounds, and to - from, that {dtype} can hold"):
            mg.zeros(3, dtype=dtype).uniform_(low, high)
    x = mg.zeros(MANY, dtype=dtype).uniform_(-0.4 * most, 0.4 * most).double()
    assert x.abs().max() <= 0.4001 * most and x.min() < -0.3 * most and x.max() > 0.3 * most


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("low, high", BOUNDS)
def test_uniform_numbers_stay_below_their_bound(low, high, dtype):
    for x in (mg.empty(MANY, dtype=dtype).uniform_(low, high), nn.init.uniform_(mg.empty(MANY, dtype=dtype), low, high)):
        values = x.double().numpy()
        assert x.dtype == dtype and (low <= values).all() and (values < high).all()
        # what is cut off is less than an ulp, half of one on average
        step = float(np.spacing(np.array(max(abs(low), abs(high))).astype(dtype)))
        assert abs(values.mean() - (low + high) / 2) <= 0.02 * (high - low) + step


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_no_number_is_its_bound(dtype):
    ones = mg.ones(MANY, dtype=dtype)
    for x in (mg.rand(MANY, dtype=dtype), mg.rand_like(ones), mg.empty(MANY, dtype=dtype).uniform_()):
        assert x.dtype == dtype and 0 <= x.min().item() and x.max().item() < 1
        assert len(np.unique(x.double().numpy())) > (2000 if dtype == np.float16 else 500), "small numbers keep their digits"
    assert mg.bernoulli(ones).all() and not mg.bernoulli(ones * 0).any()
    assert mg.empty(MANY, dtype=dtype).bernoulli_(ones).all()
    assert mg.empty(MANY, dtype=dtype).exponential_().isfinite().all()
    assert abs(mg.bernoulli(ones * 0.25).float().mean().item() - 0.25) < 0.01
    assert abs(mg.empty(MANY, dtype=dtype).exponential_(0.5).float().mean().item() - 2) < 0.03


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_other_distributions(dtype):
    x = mg.normal(mg.full((MANY,), 3.0).to(dtype), mg.full((MANY,), 2.0).to(dtype))
    assert x.dtype == dtype and abs(x.float().mean().item() - 3) < 0.03 and abs(x.float().std().item() - 2) < 0.03
    counts = mg.bincount(mg.multinomial(mg.tensor([1.0, 2, 3]).to(dtype), 60000, replacement=True))
    assert np.abs(counts.numpy() - [10000, 20000, 30000]).max() < 700
    assert sorted(mg.multinomial(mg.tensor([1.0, 2, 3]).to(dtype), 3).tolist()) == [0, 1, 2]


def test_random_numbers_into_a_given_tensor():
    for draw in (mg.rand, mg.randn):
        out = mg.zeros(2, 3, dtype=mg.float64)
        mg.manual_seed(1)
        assert draw(2, 3, out=out) is out
        mg.manual_seed(1)
        assert mg.equal(out, draw(2, 3, dtype=mg.float64))
        with pytest.warns(UserWarning, match="gets the result's"):
            assert draw(3, out=out).shape == out.shape == (3,)
        assert draw(3, out=mg.empty(0)).shape == (3,)


def test_fillings_by_inverse_functions():
    x = mg.empty(20000, dtype=mg.float64)
    ks = np.unique(mg.empty_like(x).geometric_(0.5).numpy(), return_counts=True)
    assert ks[0][:4].tolist() == [1, 2, 3, 4] and np.abs(ks[1][:4] - 20000 / 2.0 ** np.arange(1, 5)).max() < 300
    logs = mg.empty_like(x).log_normal_(1.0, 0.5).log()
    assert abs(logs.mean().item() - 1) < 0.02 and abs(logs.std().item() - 0.5) < 0.02
    quarters = np.quantile(mg.empty_like(x).cauchy_(3.0, 2.0).numpy(), [0.25, 0.5, 0.75])
    assert np.abs(quarters - [1, 3, 5]).max() < 0.15
    for name, wrong, text in (("geometric_", (0.0,), r"p in \(0, 1\); got p=0.0; "), ("geometric_", (1.0,), "p=1.0; "), ("log_normal_", (0, 0), "std=0; "),
                              ("cauchy_", (0, -1), "sigma=-1; "), ("exponential_", (float("nan"),), "lambd=nan; ")):
        with pytest.raises(RuntimeError, match=rf"^\[{name}\] needs .*{text}"):
            getattr(x, name)(*wrong)
        if name != "geometric_":
            with pytest.raises(NotImplementedError, match=rf"^\[{name}\] needs a floating-point tensor"):
                getattr(x.long(), name)()
    whole = mg.empty(20000, dtype=mg.int64).geometric_(0.5)
    assert np.abs(np.unique(whole.numpy(), return_counts=True)[1][:4] - 20000 / 2.0 ** np.arange(1, 5)).max() < 300


def test_generators_are_copied_and_pickled():
    g = mg.Generator().manual_seed(3)
    mg.rand(2, generator=g)
    copies = [copy.copy(g), copy.deepcopy(g), pickle.loads(pickle.dumps(g))]
    want = mg.rand(2, generator=g)
    assert all(mg.rand(2, generator=c).equal(want) and c.initial_seed() == 3 for c in copies)


def test_integers_of_a_range_of_half_of_all_numbers_and_more():
    mg.manual_seed(0)
    for low, high in ((-(1 << 63), (1 << 63) - 1), (-(1 << 62), 3 << 61), (-5, (1 << 63) - 3), (-(1 << 63), 4)):
        x = mg.randint(low, high, (20000,)).numpy()
        assert low <= int(x.min()) and int(x.max()) < high and abs((x.astype(float).mean() - (low + high) / 2) / (high - low)) < 0.01
    for dtype in (mg.int8, mg.uint8, mg.int64):
        x = mg.empty(5000, dtype=dtype).random_(np.iinfo(dtype).min, None)
        assert x.min() < np.iinfo(dtype).min * 0.9 + 30 and x.max() > np.iinfo(dtype).max * 0.9
    assert mg.empty(5000).random_(-3, None).min() >= -3 and mg.empty(50).random_(7).max() < 7


def test_draws_of_bernoulli_are_written_into_any_dtype():
    for dtype in (mg.bool, mg.uint8, mg.int64, mg.float16, mg.float64):
        out = mg.zeros(3, dtype=dtype)
        assert mg.bernoulli(mg.tensor([1.0, 0.0, 1.0]), out=out) is out and out.tolist() == [1, 0, 1]


@pytest.mark.parametrize("seed", [-2 ** 63 - 1, 2 ** 64, 1.5, "a"])
def test_what_is_no_seed_is_refused(seed):
    for call in (mg.manual_seed, mg.Generator().manual_seed):
        with pytest.raises(ValueError, match="whole number"):
            call(seed)


@pytest.mark.parametrize(("dtype", "most"), [(mg.float16, 2**11 + 1), (mg.float32, 2**24 + 1)])
def test_a_permutation_needs_a_dtype_that_holds_its_numbers(dtype, most):
    if most < 10_000:
        assert sorted(mg.randperm(most, dtype=dtype).tolist()) == list(range(most))
        with pytest.raises(RuntimeError, match="does not hold each number below n"):
            mg.randperm(most + 1, out=mg.empty(0, dtype=dtype))
    with pytest.raises(RuntimeError, match="does not hold each number below n"):
        mg.randperm(most + 1, dtype=dtype)
