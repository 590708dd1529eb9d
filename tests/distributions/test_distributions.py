"""Distributions against PyTorch's, and what they promise by themselves."""
from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import distributions as D
from minigrad import nn

SPREAD = [[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 1.5]]
LOWER = [[1.2, 0.0], [0.4, 0.7]]
# name, parameters, values; nested ones are made by `made`
CASES = [
    ("Normal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.1, 2.0], [-3.0, 0.0]]),
    ("LogNormal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Laplace", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.1, 2.0], [-3.0, 0.0]]),
    ("Cauchy", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.1, 2.0], [-3.0, 0.0]]),
    ("Gumbel", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [[0.1, 2.0], [-3.0, 0.0]]),
    ("StudentT", {"df": [0.8, 1.5, 4.0], "loc": [0.5, -1.0, 0.1], "scale": [0.7, 2.0, 1.0]}, [[0.1, 2.0, -3.0]]),
    ("HalfNormal", {"scale": [0.7, 2.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Uniform", {"low": [0.0, -1.0], "high": [1.5, 3.0]}, [[0.1, 2.0], [1.0, 0.0]]),
    ("Exponential", {"rate": [0.7, 2.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Gamma", {"concentration": [0.4, 3.0], "rate": [0.7, 2.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Chi2", {"df": [0.8, 5.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Beta", {"concentration1": [0.6, 3.0, 0.9], "concentration0": [0.7, 2.0, 0.8]}, [[0.1, 0.5, 0.9]]),
    ("Dirichlet", {"concentration": [[0.4, 3.0, 1.2], [0.5, 0.2, 0.8]]}, [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]),
    ("MultivariateNormal", {"loc": [[0.1, 0.2, -1.0], [1.0, 0.0, 0.5]], "covariance_matrix": SPREAD}, [[0.5, 0.5, 0.0], [1.0, 2.0, 3.0]]),
    ("MultivariateNormal", {"loc": [0.1, 0.2, -1.0], "precision_matrix": SPREAD}, [[0.5, 0.5, 0.0], [1.0, 2.0, 3.0]]),
    ("MultivariateNormal", {"loc": [0.1, 0.2], "scale_tril": [LOWER, LOWER]}, [[0.5, 0.5], [1.0, 2.0]]),
    ("Bernoulli", {"probs": [0.2, 0.9]}, [[0.0, 1.0], [1.0, 0.0]]),
    ("Bernoulli", {"logits": [0.2, -3.0]}, [[0.0, 1.0], [1.0, 0.0]]),
    ("Geometric", {"probs": [0.2, 0.9]}, [[0.0, 1.0], [5.0, 0.0]]),
    ("Geometric", {"logits": [0.2, -2.0]}, [[0.0, 1.0], [5.0, 0.0]]),
    ("Poisson", {"rate": [0.5, 4.0]}, [[0.0, 1.0], [5.0, 3.0]]),
    ("Categorical", {"probs": [[0.2, 0.9, 0.4], [1.0, 1.0, 0.5]]}, [[0, 2], [1, 1]]),
    ("Categorical", {"logits": [[0.2, -0.9, 0.4], [1.0, 1.0, -5.0]]}, [[0, 2], [1, 1]]),
    ("OneHotCategorical", {"probs": [[0.2, 0.9, 0.4], [1.0, 1.0, 0.5]]}, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    ("OneHotCategoricalStraightThrough", {"logits": [0.2, -0.9, 0.4]}, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    ("Independent", ("Normal", {"loc": [[0.5, -1.0], [0.0, 2.0]], "scale": [0.7, 2.0]}, 1), [[0.1, 2.0], [-3.0, 0.0]]),
    ("Independent", ("Bernoulli", {"probs": [[0.5, 0.1], [0.6, 0.2]]}, 2), [[0.0, 1.0], [1.0, 0.0]]),
    ("TransformedDistribution", ("Normal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [("TanhTransform", {}), ("AffineTransform", {"loc": 1.0, "scale": -2.0})]), [[0.1, 2.0], [1.0, 0.5]]),
    ("TransformedDistribution", ("Uniform", {"low": [0.0, 0.1], "high": [1.0, 0.9]}, [("SigmoidTransform", {}), ("PowerTransform", {"exponent": 2.0}), ("ExpTransform", {})]), [[1.4, 1.5]]),
    ("TransformedDistribution", ("Normal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, [("SoftplusTransform", {}), ("AffineTransform", {"loc": 0.5, "scale": 2.0, "event_dim": 1})]), [[1.4, 1.5]]),
    ("HalfCauchy", {"scale": [0.7, 2.0]}, [[0.1, 2.0], [3.0, 0.5]]),
    ("Pareto", {"scale": [0.7, 2.0], "alpha": [0.8, 5.0]}, [[1.1, 2.5], [3.0, 2.0]]),
    ("Weibull", {"scale": [0.7, 2.0], "concentration": [1.8, 3.0]}, [[1.1, 2.5], [3.0, 2.0]]),
    ("InverseGamma", {"concentration": [0.8, 1.5, 3.0], "rate": [0.7, 2.0, 1.0]}, [[1.1, 2.5, 0.3]]),
    ("LogisticNormal", {"loc": [[0.5, -1.0], [0.0, 2.0]], "scale": [0.7, 2.0]}, [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]),
    ("RelaxedBernoulli", {"temperature": 0.7, "probs": [0.2, 0.9]}, [[0.1, 0.9], [0.3, 0.2]]),
    ("RelaxedBernoulli", {"temperature": 1.7, "logits": [0.2, -0.9]}, [[0.1, 0.9], [0.3, 0.2]]),
    ("RelaxedOneHotCategorical", {"temperature": 0.7, "probs": [0.2, 0.9, 0.4]}, [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]),
    ("RelaxedOneHotCategorical", {"temperature": 0.7, "logits": [[0.2, 0.9, 0.4]]}, [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]),
    ("Binomial", {"total_count": 5, "probs": [0.2, 0.9]}, [[0.0, 5.0], [3.0, 2.0]]),
    ("Binomial", {"total_count": 3, "logits": [0.2, -0.9]}, [[0.0, 3.0], [3.0, 2.0]]),
    ("NegativeBinomial", {"total_count": 5, "probs": [0.2, 0.9]}, [[0.0, 50.0], [3.0, 2.0]]),
    ("NegativeBinomial", {"total_count": 0.5, "logits": [0.2, -0.9]}, [[0.0, 5.0], [3.0, 2.0]]),
    ("Multinomial", {"total_count": 4, "probs": [[0.2, 0.9, 0.4], [1.0, 1.0, 0.5]]}, [[0.0, 3.0, 1.0], [4.0, 0.0, 0.0]]),
    ("Multinomial", {"total_count": 2, "logits": [0.2, -0.9, 0.4]}, [[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]]),
    ("Kumaraswamy", {"concentration1": [1.6, 3.0, 0.9], "concentration0": [1.7, 2.0, 0.8]}, [[0.1, 0.5, 0.9]]),
    ("FisherSnedecor", {"df1": [1.6, 3.0, 9.0], "df2": [1.7, 5.0, 12.0]}, [[0.1, 0.5, 2.9]]),
    ("GeneralizedPareto", {"loc": [0.5, -1.0, 0.0, 1.0], "scale": [0.7, 2.0, 1.0, 1.5], "concentration": [0.2, -0.5, 0.15, -1.2]}, [[0.9, 0.5, 2.9, 2.0]]),
    ("ContinuousBernoulli", {"probs": [0.2, 0.9, 0.45]}, [[0.1, 0.5, 0.9]]),
    ("ContinuousBernoulli", {"logits": [0.2, -3.0, 12.0]}, [[0.1, 0.5, 0.9]]),
    ("LowRankMultivariateNormal", {"loc": [0.1, 0.2, -1.0], "cov_factor": [[1.0], [0.5], [-0.3]], "cov_diag": [0.5, 1.0, 0.7]}, [[0.5, 0.5, 0.0], [1.0, 2.0, 3.0]]),
    ("LowRankMultivariateNormal", {"loc": [[0.1, 0.2], [0.3, 0.4]], "cov_factor": [[1.0, 0.2, 0.1], [0.5, -1.0, 0.3]], "cov_diag": [[0.5, 1.0], [0.7, 2.0]]}, [[0.5, 0.5], [1.0, 2.0]]),
    ("Wishart", {"df": [4.5, 7.0], "scale_tril": LOWER}, [[[2.0, 0.5], [0.5, 1.0]], [[5.0, -1.0], [-1.0, 3.0]]]),
    ("Wishart", {"df": 3.5, "covariance_matrix": SPREAD}, SPREAD),
    ("Wishart", {"df": 5.0, "precision_matrix": SPREAD}, SPREAD),
    ("LKJCholesky", {"dim": 3, "concentration": [0.7, 2.0]}, [[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, -0.6, 0.8]]]),
    ("MixtureSameFamily", ("Categorical", {"probs": [[0.2, 0.8], [0.5, 0.5]]}, ("Normal", {"loc": [[0.1, 2.0], [-1.0, 0.5]], "scale": [0.7, 2.0]})), [[0.3, 1.0]]),
    ("MixtureSameFamily", ("Categorical", {"logits": [[0.2, 0.8]]}, ("Dirichlet", {"concentration": [[[0.4, 3.0, 1.2], [0.5, 0.2, 0.8]]]})), [[0.2, 0.5, 0.3]]),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]


def made(lib, name, given, dtype="float64"):
    """The distribution of a case, and the tensors that it was made of."""
    where = D if lib is mg else lib.distributions
    if isinstance(given, dict):
        leaves = {k: lib.tensor(v, dtype=getattr(lib, dtype), requires_grad=True) for k, v in given.items() if not isinstance(v, int)}
        return getattr(where, name)(**{**given, **leaves}), list(leaves.values())
    inner, parameters, more = given
    base, leaves = made(lib, inner, parameters, dtype)
    if name == "MixtureSameFamily":
        more, others = made(lib, *more, dtype)
        leaves = leaves + others
    if name == "TransformedDistribution":
        more = [getattr(where.transforms, n)(**options) for n, options in more]
    return getattr(where, name)(base, more), leaves


def sides(torch, name, given):
    return made(mg, name, given), made(torch, name, given)


def array(t):
    return t.detach().numpy()


@pytest.fixture
def double(torch):
    """PyTorch makes some numbers of a few distributions in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "given", "values"), CASES, ids=IDS)
def test_values_and_gradients_are_pytorchs(torch, double, name, given, values):
    (mine, leaves), (theirs, other) = sides(torch, name, given)
    assert tuple(mine.batch_shape) == tuple(theirs.batch_shape) and tuple(mine.event_shape) == tuple(theirs.event_shape)
    assert mine.has_rsample == theirs.has_rsample and mine.has_enumerate_support == theirs.has_enumerate_support
    floating = isinstance(np.ravel(values)[0], np.floating)
    x = mg.tensor(np.array(values), requires_grad=bool(floating and mine.has_rsample))
    y = torch.tensor(np.array(values), requires_grad=x.requires_grad)
    for what in ("log_prob", "cdf", "icdf", "entropy", "mean", "variance", "stddev", "mode", "perplexity"):
        results = []
        for d, v in ((mine, x), (theirs, y)):
            try:
                found = getattr(d, what)
                v = v if what != "icdf" else v.detach() * 0 + 0.3
                results.append(found(v) if what in ("log_prob", "cdf", "icdf") else found() if callable(found) else found)
            except NotImplementedError:
                results.append(None)
        a, b = results
        if b is None or what == "mode" and name in ("Beta", "Dirichlet", "Kumaraswamy"):
            continue                    # where all are below 1, torch takes the first of what is nan; of Kumaraswamy all are nan
        assert a is not None, f"{what} is missing"
        assert tuple(a.shape) == tuple(b.shape), what
        np.testing.assert_allclose(array(a), array(b), rtol=1e-9, atol=1e-12, err_msg=what)
        if what == "cdf" and name in ("Gamma", "Chi2", "InverseGamma"):
            continue                    # it has no derivative in the concentration, in either
        if b.requires_grad and np.isfinite(array(b)).all():
            weight = np.random.default_rng(0).standard_normal(tuple(b.shape))
            g = mg.autograd.grad((a * mg.tensor(weight)).sum(), [*leaves, x] if x.requires_grad else leaves, allow_unused=True, retain_graph=True)
            h = torch.autograd.grad((b * torch.tensor(weight)).sum(), [*other, y] if x.requires_grad else other, allow_unused=True, retain_graph=True)
            for u, v, leaf in zip(g, h, [*other, y], strict=False):
                zero, used = np.zeros(tuple(leaf.shape)), np.tril if name == "Wishart" and leaf.ndim == 2 else np.array
                np.testing.assert_allclose(zero if u is None else used(array(u)), zero if v is None else used(array(v)), rtol=1e-7, atol=1e-9, err_msg=f"gradient of {what}")


@pytest.mark.filterwarnings("ignore:Singular sample")           # PyTorch's Wishart warns of samples that are not singular
@pytest.mark.parametrize(("name", "given", "values"), CASES, ids=IDS)
def test_shapes_of_samples_and_expansions(torch, name, given, values):
    (mine, _), (theirs, _) = sides(torch, name, given)
    mg.manual_seed(0)
    for shape in ((), (4,), (2, 3)):
        drawn, wanted = mine.sample(shape), theirs.sample(shape)
        assert tuple(drawn.shape) == tuple(wanted.shape) and str(wanted.dtype) == f"torch.{drawn.dtype}" and not drawn.requires_grad
        assert mine.support.check(drawn).all() and mine.log_prob(drawn).shape == (*shape, *mine.batch_shape)
    assert tuple(mine.sample_n(5).shape) == tuple(theirs.sample((5,)).shape)
    big, wide = mine.expand((3, *mine.batch_shape)), theirs.expand((3, *theirs.batch_shape))
    assert type(big) is type(mine) and tuple(big.batch_shape) == tuple(wide.batch_shape) and tuple(big.event_shape) == tuple(wide.event_shape)
    assert tuple(big.sample((2,)).shape) == tuple(wide.sample((2,)).shape)
    value = mine.sample()
    np.testing.assert_allclose(array(big.log_prob(value)), np.broadcast_to(array(mine.log_prob(value)), big.batch_shape), rtol=1e-12)
    if theirs.has_enumerate_support:
        for expand in (True, False):
            assert np.array_equal(array(mine.enumerate_support(expand)), theirs.enumerate_support(expand).numpy())


@pytest.mark.parametrize(("name", "given", "values"), CASES, ids=IDS)
def test_samples_follow_the_density(name, given, values):
    """Means and variances of many samples; and of -log p, which is the entropy."""
    d, leaves = made(mg, name, given)
    mg.manual_seed(3)
    n = 20000
    drawn = d.sample((n,))
    for what, of in (("mean", lambda v: v), ("variance", lambda v: (v - v.mean(0)) ** 2)):
        try:
            expected = array(getattr(d, what))
        except NotImplementedError:
            continue
        x = of(array(drawn).astype(np.float64))
        sound = np.isfinite(expected) & (np.abs(expected) < 50)
        if name == "StudentT":
            sound &= np.array([False, False, what == "mean"])          # the fourth moment is infinite
        error = 5 * x.std(0) / math.sqrt(n) + 1e-9
        if name in ("Pareto", "InverseGamma"):
            sound &= what == "mean"                                 # they have no fourth moment
        if name == "LogNormal":
            sound &= np.array([True, False])
        assert (np.abs(x.mean(0) - expected) < error)[sound].all(), what
    try:
        entropy = array(d.entropy())
    except NotImplementedError:
        return
    x = -array(d.log_prob(drawn)).astype(np.float64)
    assert (np.abs(x.mean(0) - entropy) < 5 * x.std(0) / math.sqrt(n) + 1e-6).all()


@pytest.mark.parametrize(("name", "given", "values"), [c for c in CASES if getattr(D, c[0]).has_rsample and "Bernoulli" not in c[1]])
def test_rsample_has_the_gradient_of_the_mean(name, given, values):
    """The mean of f(rsample) moves with the parameters as its integral does: checked with f = log p of another distribution of the kind."""
    mg.manual_seed(1)
    d, leaves = made(mg, name, given)
    x = d.rsample((30000,))
    assert x.requires_grad and d.rsample().shape == (*d.batch_shape, *d.event_shape)
    if name in ("Cauchy", "OneHotCategoricalStraightThrough"):
        return
    g = mg.autograd.grad(x.clamp(-6, 6).sigmoid().mean(0).sum(), leaves, retain_graph=True)
    h = 1e-3                            # the score function: E[f(x) d log p(x) / d parameter]
    fixed = x.detach()
    f = fixed.clamp(-6, 6).sigmoid()
    f = f - f.mean(0)
    f = f.reshape(*f.shape[:f.ndim - len(d.event_shape)], -1).sum(-1) if d.event_shape else f
    if name in ("Uniform", "Pareto", "GeneralizedPareto") or "Uniform" in given or "precision_matrix" in given or "covariance_matrix" in given:
        return                          # its bounds move; a symmetric matrix has a gradient of another form
    score = mg.autograd.grad((f * d.log_prob(fixed)).mean(0).sum(), leaves)
    for a, b in zip(g, score, strict=True):
        used = np.tril if name == "Wishart" and a.ndim == 2 else np.array       # of a factor the lower triangle
        np.testing.assert_allclose(used(array(a)), used(array(b)), atol=0.03 + h)


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 3.7, 80.0, 5e3, 3e5])
def test_gamma_samples_move_with_their_concentration(a):
    """dz/da along the quantile of each sample."""
    scipy = pytest.importorskip("scipy.special")
    mg.manual_seed(2)
    leaf = mg.full((200,), a, dtype=np.float64, requires_grad=True)
    z = D.Gamma(leaf, 1.0).rsample()
    z.sum().backward()
    values, h = array(z), 1e-5 * a
    upper = values > a                                              # the quantile from the nearer end, for its digits
    slopes = []
    for p, q in ((scipy.gammainc, scipy.gammaincinv), (scipy.gammaincc, scipy.gammainccinv)):
        level = p(a, values)
        slopes.append((q(a + h, level) - q(a - h, level)) / (2 * h))
    slope = np.where(upper, slopes[1], slopes[0])
    good = np.isfinite(slope) & (values > 1e-290)
    assert good.mean() > 0.6
    np.testing.assert_allclose(leaf.grad.numpy()[good], slope[good], rtol=2e-4, atol=1e-6)
    leaf2 = mg.tensor([2.0], requires_grad=True)
    (g,) = mg.autograd.grad(D.Gamma(leaf2, 1.0).rsample().sum(), leaf2, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


KL = [("Normal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, {"loc": [0.1, 2.0], "scale": [1.7, 0.5]}),
      ("LogNormal", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, {"loc": [0.1, 2.0], "scale": [1.7, 0.5]}),
      ("HalfNormal", {"scale": [0.7, 2.0]}, {"scale": [1.7, 0.5]}), ("HalfCauchy", {"scale": [0.7, 2.0]}, {"scale": [1.7, 0.5]}),
      ("Laplace", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, {"loc": [0.1, 2.0], "scale": [1.7, 0.5]}),
      ("Gumbel", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, {"loc": [0.1, 2.0], "scale": [1.7, 0.5]}),
      ("Cauchy", {"loc": [0.5, -1.0], "scale": [0.7, 2.0]}, {"loc": [0.1, 2.0], "scale": [1.7, 0.5]}),
      ("Uniform", {"low": [0.0, 0.0], "high": [1.0, 1.0]}, {"low": [-1.0, 0.5], "high": [2.0, 2.0]}),
      ("Exponential", {"rate": [0.5, 2.0]}, {"rate": [1.5, 1.0]}),
      ("Gamma", {"concentration": [0.5, 2.0], "rate": [0.3, 2.0]}, {"concentration": [1.5, 0.2], "rate": [1.0, 3.0]}),
      ("Chi2", {"df": [0.5, 2.0]}, {"df": [1.5, 1.0]}),
      ("Beta", {"concentration1": [0.5, 2.0], "concentration0": [0.3, 2.0]}, {"concentration1": [1.5, 0.2], "concentration0": [1.0, 3.0]}),
      ("Dirichlet", {"concentration": [0.5, 2.0, 1.0]}, {"concentration": [[1.5, 1.0, 0.3], [2.0, 2.0, 2.0]]}),
      ("MultivariateNormal", {"loc": [0.5, 1.0], "scale_tril": LOWER}, {"loc": [[0.1, 0.0], [2.0, 1.0]], "scale_tril": [[0.5, 0.0], [-1.0, 2.0]]}),
      ("Bernoulli", {"probs": [0.5, 0.0, 1.0, 0.3]}, {"probs": [0.2, 0.3, 0.4, 0.0]}),
      ("Bernoulli", {"logits": [0.5, -2.0]}, {"logits": [1.5, 1.0]}),
      ("Categorical", {"logits": [0.5, -2.0, 1.0]}, {"logits": [[1.5, 1.0, 0.0], [0.0, 1.0, 2.0]]}),
      ("Categorical", {"probs": [0.5, 0.5, 0.0]}, {"probs": [[1.0, 0.0, 0.0], [0.3, 0.3, 0.4]]}),
      ("OneHotCategorical", {"probs": [0.5, 0.2, 0.3]}, {"probs": [[0.4, 0.5, 0.1], [0.3, 0.3, 0.4]]}),
      ("Poisson", {"rate": [0.5, 2.0]}, {"rate": [1.5, 1.0]}),
      ("Geometric", {"probs": [0.5, 0.2]}, {"probs": [0.1, 0.9]}),
      ("Binomial", {"total_count": 3, "probs": [0.5, 0.2]}, {"total_count": 3, "probs": [0.1, 0.9]}),
      ("Pareto", {"scale": [0.7, 2.0], "alpha": [0.8, 5.0]}, {"scale": [0.5, 3.0], "alpha": [1.8, 2.0]}),
      ("Independent", ("Normal", {"loc": [[0.5, 1.0]], "scale": [[0.7, 2.0]]}, 1), ("Normal", {"loc": [[0.0, 0.0]], "scale": [[1.0, 1.0]]}, 1))]


@pytest.mark.parametrize(("name", "first", "second"), KL, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(KL)])
def test_divergences_are_pytorchs(torch, name, first, second):
    results = []
    for lib, where in ((mg, D), (torch, torch.distributions)):
        (p, one), (q, two) = made(lib, name, first), made(lib, name, second)
        kl = where.kl_divergence(p, q)
        finite = lib.where(lib.isfinite(kl), kl, lib.zeros_like(kl)).sum()
        gradients = lib.autograd.grad(finite, [*one, *two]) if np.isfinite(array(kl)).all() else ()
        results.append([array(kl), *[array(g) for g in gradients]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


NEAR = {"Beta": {"concentration1": 1.3, "concentration0": 0.8}, "Exponential": {"rate": 1.4}, "Gamma": {"concentration": 1.3, "rate": 0.8}, "Gumbel": {"loc": 0.3, "scale": 0.8},
        "Laplace": {"loc": 0.3, "scale": 0.8}, "Pareto": {"scale": 0.6, "alpha": 3.5}, "Uniform": {"low": 0.2, "high": 0.9}, "ContinuousBernoulli": {"probs": 0.3},
        "Normal": {"loc": 0.3, "scale": 0.8}, "Bernoulli": {"probs": 0.3}, "Poisson": {"rate": 1.7}, "Binomial": {"total_count": 3, "probs": 0.3},
        "MultivariateNormal": {"loc": [0.5, 1.0], "scale_tril": LOWER}, "LowRankMultivariateNormal": {"loc": [0.1, 0.3], "cov_factor": [[0.4], [-1.0]], "cov_diag": [0.3, 0.7]}}
PAIRS = [pair.split() for pair in """Bernoulli Poisson|Beta ContinuousBernoulli|Beta Exponential|Beta Gamma|Beta Normal|Beta Pareto|Beta Uniform|ContinuousBernoulli ContinuousBernoulli|
    ContinuousBernoulli Exponential|ContinuousBernoulli Normal|ContinuousBernoulli Pareto|ContinuousBernoulli Uniform|Exponential Beta|Exponential ContinuousBernoulli|Exponential Gamma|
    Exponential Gumbel|Exponential Normal|Exponential Pareto|Exponential Uniform|Gamma Beta|Gamma ContinuousBernoulli|Gamma Exponential|Gamma Gumbel|Gamma Normal|Gamma Pareto|Gamma Uniform|
    Gumbel Beta|Gumbel ContinuousBernoulli|Gumbel Exponential|Gumbel Gamma|Gumbel Normal|Gumbel Pareto|Gumbel Uniform|Laplace Beta|Laplace ContinuousBernoulli|Laplace Exponential|
    Laplace Gamma|Laplace Normal|Laplace Pareto|Laplace Uniform|Normal Beta|Normal ContinuousBernoulli|Normal Exponential|Normal Gamma|Normal Gumbel|Normal Laplace|Normal Pareto|
    Normal Uniform|Pareto Beta|Pareto ContinuousBernoulli|Pareto Exponential|Pareto Gamma|Pareto Normal|Pareto Uniform|Poisson Bernoulli|Poisson Binomial|Uniform Beta|
    Uniform ContinuousBernoulli|Uniform Exponential|Uniform Gamma|Uniform Gumbel|Uniform Normal|Uniform Pareto|LowRankMultivariateNormal LowRankMultivariateNormal|
    LowRankMultivariateNormal MultivariateNormal|MultivariateNormal LowRankMultivariateNormal""".split("|")]
OTHER = {"LowRankMultivariateNormal": {"loc": [0.6, -0.3], "cov_factor": [[0.7, 0.1], [0.2, 0.3]], "cov_diag": [0.6, 0.9]}, "ContinuousBernoulli": {"probs": 0.6}, "Pareto": {"scale": 0.15, "alpha": 2.5}}


@pytest.mark.parametrize(("p", "q"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_divergences_between_families_are_pytorchs(torch, p, q):
    results = []
    for lib, where in ((mg, D), (torch, torch.distributions)):
        (a, one), (b, two) = made(lib, p, NEAR[p]), made(lib, q, OTHER.get(q, NEAR[q]))
        kl = where.kl_divergence(a, b)
        results.append([array(kl), *[array(g) for g in lib.autograd.grad(kl, [*one, *two])]] if np.isfinite(array(kl)).all() else [array(kl)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_divergences_are_infinite_where_the_support_is_wider():
    """Uniform(0.2, 0.9) is within the others' supports above; here each bound is passed."""
    u, v = D.Uniform(mg.tensor([-0.1, 0.2]), mg.tensor([0.5, 1.1])), D.Uniform(mg.tensor([0.5, 0.0]), mg.tensor([2.0, 0.5]))
    beta = D.Beta(1.3, 0.8)
    for p, q in ((u, beta), (u, D.ContinuousBernoulli(0.3)), (beta, v), (D.ContinuousBernoulli(0.3), v)):
        assert D.kl_divergence(p, q).tolist() == [math.inf] * 2
    for q in (D.Exponential(1.0), D.Gamma(1.0, 1.0), D.Pareto(0.2, 1.0)):
        assert mg.isinf(D.kl_divergence(u, q)).tolist() == [True, False]
    assert D.kl_divergence(D.Normal(0.0, 1.0), D.Gamma(mg.ones(3), 1.0)).tolist() == [math.inf] * 3


def test_divergences_from_a_gumbel_move_with_both():
    for make in (lambda at: D.Normal(at, 1.0), lambda at: D.Uniform(at - 1, at + 1)):
        for at in (200.0, -200.0):
            assert D.kl_divergence(make(at), D.Gumbel(at, 1.0)).item() == pytest.approx(D.kl_divergence(make(0.0), D.Gumbel(0.0, 1.0)).item(), abs=1e-3)


@pytest.mark.parametrize(("p", "q"), [(D.Wishart(4.5, mg.tensor(SPREAD)), D.Wishart(6.0, 2 * mg.eye(3))), (D.Beta(1.3, 0.8), D.Gamma(1.3, 0.8)), (D.Gamma(1.3, 0.8), D.Gumbel(0.3, 0.8)),
                                      (D.ContinuousBernoulli(0.3), D.Normal(0.3, 0.8)), (D.Uniform(0.2, 0.9), D.Beta(1.3, 0.8))], ids=str)
def test_divergences_are_means_of_the_difference(p, q):
    mg.manual_seed(4)
    x = p.sample((40000,))
    d = array(p.log_prob(x) - q.log_prob(x))
    assert abs(d.mean() - D.kl_divergence(p, q).item()) < 5 * d.std() / 200
    assert D.kl_divergence(p, p).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_rare_distributions_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    k, x = np.array([0.0, 1e-12, 0.3, -0.7]), np.array([0.3, 0.7, 1.2, 0.9])
    t = {n: mg.tensor(np.array(v)) for n, v in (("k", k), ("kappa", [0.01, 1.0, 30.0, 5000.0]))}
    pairs = [(D.GeneralizedPareto(mg.tensor(0.1, dtype=mg.float64), 0.8, t["k"]), stats.genpareto(k, 0.1, 0.8), x),
             (D.VonMises(mg.tensor(0.4, dtype=mg.float64), t["kappa"]), stats.vonmises(t["kappa"].numpy(), 0.4), x - 0.3),
             (D.FisherSnedecor(mg.tensor(3.0, dtype=mg.float64), 7.0), stats.f(3, 7), x)]
    for mine, theirs, at in pairs:
        np.testing.assert_allclose(array(mine.log_prob(mg.tensor(at))), theirs.logpdf(at), rtol=1e-9)
        for what in ("mean", "variance", "entropy"):
            if isinstance(mine, D.VonMises) and what == "variance" or isinstance(mine, D.FisherSnedecor) and what == "entropy":
                continue
            got, want = getattr(mine, what), getattr(theirs, "var" if what == "variance" else what)()
            np.testing.assert_allclose(array(got() if callable(got) else got), want, rtol=1e-7)
    low = mg.tensor(LOWER, dtype=mg.float64)
    w, x = D.Wishart(mg.tensor(3.7, dtype=mg.float64), scale_tril=low), array(low @ low.mT) * 2 + np.eye(2)
    theirs = stats.wishart(3.7, array(low @ low.mT))
    np.testing.assert_allclose([array(w.log_prob(mg.tensor(x))), array(w.entropy())], [theirs.logpdf(x), theirs.entropy()], rtol=1e-9)


def test_angles_turn_around_their_mean():
    mg.manual_seed(0)
    d = D.VonMises(mg.tensor([0.5, 3.0]), mg.tensor([2.0, 20.0]))
    x = d.sample((40000,))
    assert (x.abs() <= math.pi + 1e-6).all() and d.expand((3, 2)).sample().shape == (3, 2)
    np.testing.assert_allclose(array((x - d.loc).cos().mean(0)), 1 - array(d.variance), atol=0.01)
    np.testing.assert_allclose(array((x - d.loc).sin().mean(0)), 0, atol=0.01)
    np.testing.assert_allclose(-array(d.log_prob(x).mean(0)), array(d.entropy()), atol=0.02)
    loc, k, at = (mg.tensor(v, dtype=mg.float64, requires_grad=True) for v in (0.5, 3.0, 1.1))
    found = mg.autograd.grad(D.VonMises(loc, k).log_prob(at), (loc, k, at))
    cosine, sine, mean = math.cos(0.6), math.sin(0.6), 1 - D.VonMises(loc, k).variance.item()
    np.testing.assert_allclose([g.item() for g in found], [3 * sine, cosine - mean, -3 * sine], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_continuous_bernoulli_keeps_its_digits_near_one_half(dtype):
    """Means, quantiles and their derivatives around logits 0 against integrals in float64 by Gauss and Legendre."""
    grid = np.r_[0, np.geomspace(1e-9, 20, 60)]
    t = mg.tensor(np.r_[grid, -grid[1:]], dtype=getattr(mg, dtype), requires_grad=True)
    d, tol = D.ContinuousBernoulli(logits=t), 1e-11 if dtype == "float64" else 5e-5
    nodes, weights = np.polynomial.legendre.leggauss(60)
    z, wide = (nodes + 1) / 2, array(t).astype(np.float64)[:, None]
    e = np.exp(wide * z - np.maximum(wide, 0))
    total = e @ weights / 2
    m = [(e * z**k) @ weights / 2 / total for k in range(4)]
    for got, want in ((d.mean, m[1]), (d.variance, m[2] - m[1]**2), (d.log_normalizer(), np.log(total) + np.maximum(wide[:, 0], 0))):
        np.testing.assert_allclose(array(got), want, rtol=tol, atol=tol)
    (slope,) = mg.autograd.grad(d.mean.sum(), t)
    np.testing.assert_allclose(array(slope), m[2] - m[1]**2, rtol=30 * tol)
    level = np.log(total) + np.maximum(wide[:, 0], 0)
    for x in (0.0, 0.3, 1.0):
        found = d.log_prob(mg.full_like(t, x).detach())
        np.testing.assert_allclose(array(found), wide[:, 0] * x - level, rtol=tol, atol=tol)
        (slope,) = mg.autograd.grad(found.sum(), t)
        np.testing.assert_allclose(array(slope), x - m[1], rtol=tol, atol=tol)
    np.testing.assert_allclose(array(d.entropy()), level - wide[:, 0] * m[1], rtol=tol, atol=tol)
    (slope,) = mg.autograd.grad(d.entropy().sum(), t)
    np.testing.assert_allclose(array(slope), -wide[:, 0] * (m[2] - m[1]**2), rtol=30 * tol, atol=tol)
    for p in (0.2, 0.7):
        x = d.icdf(mg.full_like(t, p).detach())
        np.testing.assert_allclose(array(d.cdf(x)), p, rtol=tol * 10)
        (slope,) = mg.autograd.grad(x.sum(), t)            # dx/dt = -(dF/dt) / density
        inner = (array(x).astype(np.float64)[:, None]) * z
        part = np.exp(wide * inner - np.maximum(wide, 0)) @ weights / 2 * array(x)
        moment = (np.exp(wide * inner - np.maximum(wide, 0)) * inner) @ weights / 2 * array(x)
        want = -(moment / total - part / total * m[1]) / np.exp(array(d.log_prob(x)).astype(np.float64))
        np.testing.assert_allclose(array(slope), want, rtol=2e-3 if dtype == "float32" else 1e-8, atol=1e-6 if dtype == "float32" else 1e-12)


def test_a_continuous_bernoulli_of_large_logits_keeps_what_is_left():
    """The density at the likelier end is |t|, the entropy 1 - log|t|: differences of numbers as large as t."""
    t = mg.tensor([1e4, -1e4, 1e38, -1e38], requires_grad=True)
    d, end = D.ContinuousBernoulli(logits=t), mg.tensor([1.0, 0.0, 1.0, 0.0])
    for found, want in ((d.log_prob(end), np.log(np.abs(array(t)))), (d.entropy(), 1 - np.log(np.abs(array(t))))):
        np.testing.assert_allclose(array(found), want, rtol=1e-6)
        np.testing.assert_allclose(np.abs(array(mg.autograd.grad(found.sum(), t)[0])), 1 / np.abs(array(t)), rtol=1e-6)


def test_a_quantile_of_gumbel_has_its_limits_at_both_ends():
    p = mg.tensor([0.0, 1.0, 0.5], requires_grad=True)
    found = D.Gumbel(0.0, 1.0).icdf(p)
    assert found[:2].tolist() == [-math.inf, math.inf]
    np.testing.assert_allclose(array(mg.autograd.grad(found.sum(), p)[0]), [math.inf, math.inf, 2 / math.log(2)], rtol=1e-6)


def test_what_is_not_finite_is_not_positive_definite():
    good, bad = mg.eye(3), mg.full((3, 3), math.nan)
    for kind in (D.constraints.positive_definite, D.constraints.positive_semidefinite):
        assert kind.check(mg.stack([good, bad, good * math.inf, good.where(good > 0, math.inf)])).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="constraint PositiveDefinite"):
        D.MultivariateNormal(mg.zeros(3), bad)


def test_correlations_follow_the_density():
    """Each r_ij of LKJ(n, a) has (r + 1) / 2 from Beta(b, b), b = a + (n - 2) / 2: its variance is 1 / (2 b + 1). PyTorch's have not."""
    mg.manual_seed(0)
    for n, a in ((2, 0.8), (3, 1.0), (5, 2.5)):
        low = D.LKJCholesky(n, a).sample((30000,))
        r = array(low @ low.mT)
        off = r[(slice(None), *np.tril_indices(n, -1))]
        np.testing.assert_allclose(off.var(0), 1 / (2 * a + n - 1), rtol=0.05)
        assert abs(off.mean(0)).max() < 0.02 and np.allclose(r[:, range(n), range(n)], 1, atol=1e-5)
    d = D.LKJCholesky(2, 1.5)                               # its density of L_21 = r: a (1 - r^2)^(a - 1), with a integral of 1
    r = np.linspace(-1, 1, 4001)[1:-1]
    low = np.zeros((r.size, 2, 2))
    low[:, 0, 0], low[:, 1, 0], low[:, 1, 1] = 1, r, np.sqrt(1 - r * r)
    assert np.exp(array(d.log_prob(mg.tensor(low)))).sum() * (r[1] - r[0]) == pytest.approx(1, abs=1e-3)


def test_a_generalized_pareto_passes_through_the_exponential():
    k = mg.zeros((), dtype=mg.float64, requires_grad=True)
    d, e = D.GeneralizedPareto(0.0, 2.0, k), D.Exponential(mg.tensor(0.5, dtype=mg.float64))
    x = mg.tensor([0.3, 4.0], dtype=mg.float64)
    np.testing.assert_allclose(array(d.log_prob(x)), array(e.log_prob(x)), rtol=1e-12)
    (slope,) = mg.autograd.grad((d.log_prob(x) + d.cdf(x) + d.icdf(x / 5)).sum(), k)
    h = 1e-5
    ends = [D.GeneralizedPareto(0.0, 2.0, mg.tensor(s * h, dtype=mg.float64)) for s in (1, -1)]
    up, down = [(b.log_prob(x) + b.cdf(x) + b.icdf(x / 5)).sum().item() for b in ends]
    assert slope.item() == pytest.approx((up - down) / (2 * h), rel=1e-6)
    assert d.icdf(mg.tensor(1.0)).item() == math.inf
    for tiny in (1e-30, 1e-9, 1e-4, 1e-2):
        k = mg.tensor(tiny, requires_grad=True)             # d/dk of -(1 + 1/k) log(1 + k) is -1/2 + k/3
        (slope,) = mg.autograd.grad(D.GeneralizedPareto(0.0, 1.0, k).log_prob(mg.tensor(1.0)), k)
        assert slope.item() == pytest.approx(tiny / 3 - 0.5, abs=1e-4)


def test_transforms_are_pytorchs(torch):
    t, other = D.transforms, torch.distributions.transforms
    rng = np.random.default_rng(0)
    cases = [(lambda k: k.SoftmaxTransform(), (2, 3)), (lambda k: k.StickBreakingTransform(), (2, 3)), (lambda k: k.AbsTransform(), (3,)),
             (lambda k: k.ComposeTransform([k.StickBreakingTransform(), k.ExpTransform()]), (2, 3)), (lambda k: k.PowerTransform(-2.0), (3,)), (lambda k: k.identity_transform, (3,)),
             (lambda k: k.IndependentTransform(k.ExpTransform(), 1), (2, 3)), (lambda k: k.ReshapeTransform((2, 3), (6,)), (4, 2, 3)), (lambda k: k.LowerCholeskyTransform(), (2, 3, 3)),
             (lambda k: k.PositiveDefiniteTransform(), (3, 3)), (lambda k: k.CorrCholeskyTransform(), (2, 6)),
             (lambda k: k.StackTransform([k.ExpTransform(), k.identity_transform, k.AffineTransform(1.0, -2.0)], -2, cache_size=1), (4, 3, 2)),
             (lambda k: k.StackTransform([k.ExpTransform(), k.TanhTransform()], 1), (4, 2)), (lambda k: k.CatTransform([k.ExpTransform(), k.AffineTransform(1.0, 2.0)], 1, [1, 2]), (4, 3, 2)),
             (lambda k: k.CatTransform([k.StickBreakingTransform(), k.AbsTransform()]).transforms[0], (3,)), (lambda k: k.CatTransform([k.ExpTransform(), k.TanhTransform()], -1, cache_size=1), (3, 2)),
             (lambda k: k.CumulativeDistributionTransform((D if k is t else torch.distributions).Normal(0.5, 2.0)), (3,))]
    for make, shape in cases:
        mine, theirs = make(t), make(other)
        x = rng.uniform(0.3, 1.2, shape)
        a, b = mg.tensor(x), torch.tensor(x)
        y, z = mine(a), theirs(b)
        name = type(theirs).__name__
        np.testing.assert_allclose(array(y), z.numpy(), rtol=1e-8, err_msg=name)
        np.testing.assert_allclose(array(mine.inv(y)), theirs.inv(z).numpy(), rtol=1e-6, atol=1e-9, err_msg=name)
        assert mine.codomain.check(y).all() and mine.codomain.event_dim == theirs.codomain.event_dim and mine.domain.event_dim == theirs.domain.event_dim, name
        assert tuple(mine.forward_shape(shape)) == tuple(y.shape) and tuple(mine.inverse_shape(y.shape)) == shape and mine.bijective == theirs.bijective, name
        if name not in ("SoftmaxTransform", "AbsTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform"):
            np.testing.assert_allclose(np.zeros(tuple(theirs.log_abs_det_jacobian(b, z).shape)) + array(mg.tensor(0.0) + mine.log_abs_det_jacobian(a, y)),
                                       theirs.log_abs_det_jacobian(b, z).numpy(), rtol=1e-8, err_msg=name)
    assert t.ExpTransform().with_cache(1)._cache_size == 1
    for k in (t, other):
        assert k.IndependentTransform(k.AffineTransform(0.0, -2.0), 1).sign == -1
    for refused in (lambda k: k.ReshapeTransform((2, 3), (5,)), lambda k: k.ReshapeTransform((2, 3), (6,)).forward_shape((3, 2)), lambda k: k.CorrCholeskyTransform().forward_shape((5,)),
                    lambda k: k.CorrCholeskyTransform().inverse_shape((2, 6)), lambda k: k.CorrCholeskyTransform().inverse_shape((3,))):
        for k in (t, other):
            with pytest.raises(ValueError):
                refused(k)


def test_joined_transforms_of_vectors_are_pytorchs(torch):
    x = np.random.default_rng(0).uniform(0.3, 1.2, (4, 3, 2))
    for dim, lengths in ((0, [1, 3]), (-2, [2, 1]), (-1, [1, 1])):
        mine, theirs = (k.CatTransform([k.ExpTransform(), k.IndependentTransform(k.AffineTransform(0.5, -2.0), 1)], dim, lengths)
                        for k in (D.transforms, torch.distributions.transforms))
        a, b = mg.tensor(x), torch.tensor(x)
        np.testing.assert_allclose(array(mine.log_abs_det_jacobian(a, mine(a))), theirs.log_abs_det_jacobian(b, theirs(b)).numpy())
        assert mine.event_dim == theirs.event_dim == 1


def test_joined_constraints():
    c, x = D.constraints, mg.tensor([[1.0, -1.0, 0.5], [-1.0, 2.0, 0.5]])
    assert c.stack([c.positive, c.real, c.unit_interval], -1).check(x).tolist() == [[True, True, True], [False, True, True]]
    assert c.cat([c.positive, c.less_than(0.0)], 1, [1, 2]).check(x).tolist() == [[True, True, False], [False, False, False]]
    both = c.stack([c.boolean, c.simplex], 0)
    assert both.is_discrete and both.event_dim == 1 and c.stack([c.real, c.real], -1).event_dim == 1 and c.cat([c.real, c.simplex], -1).event_dim == 1
    with pytest.raises((ValueError, RuntimeError)):
        c.cat([c.real, c.real]).check(mg.ones(3))
    with pytest.raises(ValueError, match="a length for each"):
        D.transforms.CatTransform([D.ExpTransform(), D.ExpTransform()], 0, [2])
    assert D.transforms.CatTransform([D.ExpTransform(), D.ExpTransform()], 0, [2, 3]).length == 5


BOUNDED = [lambda c, lib: c.real, lambda c, lib: c.positive, lambda c, lib: c.nonnegative, lambda c, lib: c.greater_than(lib.tensor([1.0, 2.0, 3.0])), lambda c, lib: c.greater_than_eq(-1.0),
           lambda c, lib: c.less_than(2.0), lambda c, lib: c.unit_interval, lambda c, lib: c.interval(-1.0, 3.0), lambda c, lib: c.half_open_interval(-1.0, 3.0), lambda c, lib: c.real_vector,
           lambda c, lib: c.independent(c.positive, 1), lambda c, lib: c.simplex, lambda c, lib: c.corr_cholesky, lambda c, lib: c.lower_cholesky, lambda c, lib: c.positive_definite,
           lambda c, lib: c.positive_semidefinite]


@pytest.mark.parametrize("make", BOUNDED)
@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
def test_constraints_have_pytorchs_transforms(torch, registry, make):
    mine, theirs = make(D.constraints, mg), make(torch.distributions.constraints, torch)
    try:
        to = getattr(torch.distributions, registry)(theirs)
    except NotImplementedError:
        with pytest.raises(NotImplementedError, match="Cannot transform"):
            getattr(D, registry)(mine)
        return
    x = np.random.default_rng(0).standard_normal((4, 3, 3) if theirs.event_dim == 2 and "corr" not in str(theirs).lower() else (2, 3))
    found = getattr(D, registry)(mine)
    y, z = found(mg.tensor(x)), to(torch.tensor(x))
    np.testing.assert_allclose(array(y), z.numpy(), rtol=1e-9)
    assert mine.check(y).all() and mine.check(y).shape == tuple(theirs.check(z).shape)
    assert (mine.event_dim, mine.is_discrete) == (theirs.event_dim, theirs.is_discrete)
    if registry == "biject_to" or found.bijective:
        np.testing.assert_allclose(array(found.inv(y)) if theirs.event_dim < 2 or "corr" in str(theirs).lower() else np.tril(array(found.inv(y))), np.tril(x) if x.ndim == 3 else x, rtol=1e-6, atol=1e-9)
    if registry == "biject_to":
        assert found.log_abs_det_jacobian(mg.tensor(x), y).shape == tuple(to.log_abs_det_jacobian(torch.tensor(x), z).shape)


def test_constraints_are_pytorchs(torch):
    c, k = D.constraints, torch.distributions.constraints
    singular, lower = [[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.6, 0.8]]
    for name in ("lower_triangular", "lower_cholesky", "corr_cholesky", "square", "symmetric", "positive_semidefinite", "positive_definite"):
        for value in (singular, lower, [[2.0, 0.5], [0.5, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0, 1.0]] * 2):
            if name in ("square", "lower_triangular") or np.shape(value) == (2, 2):
                assert bool(getattr(c, name).check(mg.tensor(value))) == bool(getattr(k, name).check(torch.tensor(value))), (name, value)
    assert c.interval(0.0, 2.0).upper_bound == 2 and c.greater_than(1.0).lower_bound == 1 and str(c.half_open_interval(0, 1)) == str(k.half_open_interval(0, 1))
    assert str(c.greater_than_eq(0)) == str(k.greater_than_eq(0)) and str(c.less_than(2)) == str(k.less_than(2)) and str(c.integer_interval(0, 4)) == str(k.integer_interval(0, 4))
    inner = c.independent(c.unit_interval, 2)
    assert isinstance(inner, c.independent) and inner.base_constraint is c.unit_interval and inner.reinterpreted_batch_ndims == 2
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert copied(c.simplex) is c.simplex and copied(c.greater_than(1.0)).check(mg.tensor([1.0, 2.0])).tolist() == [False, True]
        to = copied(D.transform_to(inner))
        assert to(mg.zeros(1, 2)).tolist() == [[0.5, 0.5]] and to.codomain.base_constraint is c.unit_interval


def test_a_constraint_that_depends_on_parameters():
    class Mine(D.Distribution):
        arg_constraints = {"low": D.constraints.dependent, "high": D.constraints.real}

        def __init__(self, low, high):
            self.low, self.high = low, high
            super().__init__(low.shape)

        @D.constraints.dependent_property(is_discrete=False, event_dim=0)
        def support(self):
            return D.constraints.interval(self.low, self.high)
    d = Mine(mg.zeros(2), mg.ones(2))
    assert d.support.check(mg.tensor([0.5, 2.0])).tolist() == [True, False]
    assert D.constraints.is_dependent(Mine.support) and Mine.support.event_dim == 0 and not D.constraints.is_dependent(D.constraints.real)
    with pytest.raises(NotImplementedError):
        D.constraints.dependent.check(mg.ones(1))
    with pytest.raises(TypeError, match="Constraint subclass or instance"):
        D.biject_to(3)

    class Even(D.constraints.Constraint):
        pass

    @D.transform_to.register(Even)
    def _(constraint):
        return D.AffineTransform(0.0, 2.0)
    assert D.transform_to(Even())(mg.tensor(3.0)).item() == 6


def test_no_distributions_at_all():
    none = mg.zeros(0, 2)
    d = D.LowRankMultivariateNormal(none, mg.ones(2, 1), mg.ones(2))
    assert d.log_prob(d.sample()).shape == D.Independent(D.Normal(none, 1.0), 1).log_prob(none).shape == (0,)
    assert D.Wishart(mg.full((0,), 3.0), mg.eye(2)).sample().shape == (0, 2, 2)


def test_whole_degrees_of_freedom():
    for dtype in (mg.float32, mg.float64):
        d = D.Wishart(mg.tensor(3), mg.eye(2, dtype=dtype))
        assert d.sample().dtype == d.log_prob(d.sample()).dtype == dtype and d.entropy().item() == pytest.approx(D.Wishart(3.0, mg.eye(2)).entropy().item())


def test_far_numbers_have_a_cholesky_factor_of_correlations(torch):
    found = []
    for lib, where in ((mg, D), (torch, torch.distributions)):
        x = lib.tensor([20.0, 1.0, -30.0], requires_grad=True)
        y = where.CorrCholeskyTransform()(x)
        assert where.constraints.corr_cholesky.check(y)
        found.append(array(lib.autograd.grad(y.sum(), x)[0]))
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)


def test_a_constraint_of_ones_own():
    class Odd(D.constraints.Constraint):
        event_dim = 1

        def check(self, value):
            return (value % 2 == 1).all(-1)
    assert Odd().check(mg.tensor([1, 3])) and repr(Odd()) == "Odd()" and Odd().event_dim == 1
    assert D.constraints.less_than(2.0).check(mg.tensor(1.0)) and not D.constraints.half_open_interval(0, 1).check(mg.tensor(1.0))


def test_classes_that_are_modules_too():
    """Each base begins the next one, as PyTorch's do."""
    class Scale(D.Transform, nn.Module):
        domain = codomain = D.constraints.real

        def __init__(self):
            super().__init__(cache_size=1)
            self.factor = nn.Parameter(mg.tensor(2.0))

        def _call(self, x):
            return x * self.factor

        def _inverse(self, y):
            return y / self.factor

        def log_abs_det_jacobian(self, x, y):
            return self.factor.abs().log().expand(x.shape)

    class Learned(D.Distribution, nn.Module):
        arg_constraints = {}

        def __init__(self):
            super().__init__((3,), ())
            self.loc = nn.Parameter(mg.zeros(3))

    scale, learned = Scale(), Learned()
    assert [*dict(scale.named_parameters())] == ["factor"] and [*dict(learned.named_parameters())] == ["loc"] and learned.batch_shape == (3,)
    (-D.TransformedDistribution(D.Normal(0.0, 1.0), scale).log_prob(mg.tensor(1.0))).backward()
    assert scale.factor.grad.item() == pytest.approx(0.5 - 1 / 8)
    y = scale(x := mg.ones(2))
    assert scale._cached_x_y[0] is x and scale._cached_x_y[1] is y and scale.inv is scale._inv()       # classes of other packages read them


def test_subclasses_reach_what_is_computed():
    """Classes of other packages take a covariance later, and ask for `super().covariance_matrix`."""
    class Later(D.MultivariateNormal):
        def __init__(self, loc, root):
            self.loc, self.root = loc, root
            super(D.MultivariateNormal, self).__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

        @property
        def _unbroadcasted_scale_tril(self):
            return self.root

        @property
        def covariance_matrix(self):
            return super().covariance_matrix

    class Sharper(D.Categorical):
        @property
        def logits(self):
            return super().logits * 2

    loc, root = mg.tensor([0.5, -1.0]), mg.tensor(LOWER)
    later, plain = Later(loc, root), D.MultivariateNormal(loc, scale_tril=root)
    for name in ("covariance_matrix", "precision_matrix", "scale_tril", "variance"):
        np.testing.assert_allclose(getattr(later, name).numpy(), getattr(plain, name).numpy(), rtol=1e-6)
    assert later.log_prob(loc).item() == plain.log_prob(loc).item() and plain.precision_matrix is plain.precision_matrix
    np.testing.assert_allclose(Sharper(probs=mg.tensor([0.25, 0.75])).logits.numpy(), 2 * np.log([0.25, 0.75]), rtol=1e-5)
    assert D.Bernoulli.probs.__doc__ and D.Categorical.logits.__doc__ and not hasattr(D.Normal(0.0, 1.0), "probs")


def test_divergences_of_ones_own():
    class Mine(D.Normal):
        pass
    p, q = Mine(0.0, 1.0), D.Normal(1.0, 1.0)
    assert D.kl_divergence(p, q).item() == 0.5                      # a subclass is a Normal

    @D.register_kl(Mine, D.Normal)
    def _(p, q):
        return p.loc * 0 + 7.0
    try:
        assert D.kl_divergence(p, q).item() == 7.0
    finally:
        from minigrad.distributions import kl
        del kl._known[Mine, D.Normal]
    with pytest.raises(NotImplementedError, match="No KL"):
        D.kl_divergence(q, D.StudentT(1.0))
    with pytest.raises(NotImplementedError, match="same transforms"):
        D.kl_divergence(D.TransformedDistribution(q, [D.AffineTransform(0.0, 2.0)]), D.TransformedDistribution(q, [D.AffineTransform(0.0, 3.0)]))
    with pytest.raises(TypeError, match="class of distributions"):
        D.register_kl(3, D.Normal)


@pytest.mark.parametrize(("make", "text"), [
    (lambda lib, d: d.Normal(0.0, -1.0), "Expected parameter scale"),
    (lambda lib, d: d.Normal(lib.tensor([math.nan, 0.0]), 1.0), "Expected parameter loc"),
    (lambda lib, d: d.Normal("a", 1.0), "numbers or Tensors"),
    (lambda lib, d: d.Uniform(1.0, 1.0), "Uniform is not defined"),
    (lambda lib, d: d.Bernoulli(1.5), "Expected parameter probs"),
    (lambda lib, d: d.Bernoulli(), "Either `probs` or `logits`"),
    (lambda lib, d: d.Categorical(lib.tensor([0.5, -0.5])), "Expected parameter probs"),
    (lambda lib, d: d.Categorical(lib.tensor(0.5)), "at least one-dimensional"),
    (lambda lib, d: d.Dirichlet(lib.tensor([0.5, -0.5])), "Expected parameter concentration"),
    (lambda lib, d: d.Dirichlet(lib.tensor(0.5)), "at least one-dimensional"),
    (lambda lib, d: d.MultivariateNormal(lib.zeros(2), lib.tensor([[1.0, 2.0], [2.0, 1.0]])), "Expected parameter covariance_matrix"),
    (lambda lib, d: d.MultivariateNormal(lib.zeros(2), scale_tril=lib.tensor([[1.0, 2.0], [2.0, 1.0]])), "Expected parameter scale_tril"),
    (lambda lib, d: d.MultivariateNormal(lib.zeros(2)), "Exactly one of"),
    (lambda lib, d: d.MultivariateNormal(lib.tensor(0.0), lib.eye(1)), "at least one-dimensional"),
    (lambda lib, d: d.Independent(d.Normal(0.0, 1.0), 1), "reinterpreted_batch_ndims"),
    (lambda lib, d: d.Normal(lib.zeros(3), 1.0).log_prob(lib.zeros(2)), "not broadcastable"),
    (lambda lib, d: d.Normal(lib.zeros(3), 1.0).log_prob(0.5), "must be a Tensor"),
    (lambda lib, d: d.Dirichlet(lib.ones(3)).log_prob(lib.ones(2) / 2), "must match event_shape"),
    (lambda lib, d: d.Exponential(1.0).log_prob(lib.tensor(-1.0)), "within the support"),
    (lambda lib, d: d.Bernoulli(0.5).log_prob(lib.tensor(0.5)), "within the support"),
    (lambda lib, d: d.Categorical(lib.ones(3)).log_prob(lib.tensor(3)), "within the support"),
    (lambda lib, d: d.OneHotCategorical(lib.ones(3)).log_prob(lib.tensor([1.0, 1.0, 0.0])), "within the support"),
    (lambda lib, d: d.Dirichlet(lib.ones(3)).log_prob(lib.tensor([0.5, 0.6, 0.1])), "within the support"),
    (lambda lib, d: d.TransformedDistribution(d.Normal(0.0, 1.0), [d.transforms.ExpTransform()]).log_prob(lib.tensor(-1.0)), "within the support"),
    (lambda lib, d: d.Binomial(3, 0.5).log_prob(lib.tensor(4.0)), "within the support"),
    (lambda lib, d: d.NegativeBinomial(3, 1.0), "Expected parameter probs"),
    (lambda lib, d: d.Multinomial(3, lib.ones(2)).log_prob(lib.tensor([3.0, -1.0])), "within the support"),
    (lambda lib, d: d.MixtureSameFamily(d.Categorical(lib.ones(2)), d.Normal(lib.zeros(3), 1.0)), "a class for each component"),
    (lambda lib, d: d.TransformedDistribution(d.Normal(0.0, 1.0), [3]), "must be a Transform"),
    (lambda lib, d: d.Kumaraswamy(1.0, 2.0).log_prob(lib.tensor(1.5)), "within the support"),
    (lambda lib, d: d.GeneralizedPareto(0.0, 1.0, -0.5).log_prob(lib.tensor(2.5)), "within the support"),
    (lambda lib, d: d.VonMises(0.0, -1.0), "Expected parameter concentration"),
    (lambda lib, d: d.LKJCholesky(1), "at least 2"),
    (lambda lib, d: d.LKJCholesky(2).log_prob(lib.tensor([[1.0, 0.0], [0.5, 0.5]])), "within the support"),
    (lambda lib, d: d.Wishart(1.0, lib.eye(2)), "greater than 1"),
    (lambda lib, d: d.LowRankMultivariateNormal(lib.zeros(2), lib.ones(3, 1), lib.ones(2)), "cov_factor"),
])
def test_refusals_are_pytorchs(torch, make, text):
    with pytest.raises(ValueError):
        make(torch, torch.distributions)
    with pytest.raises(ValueError, match=rf"(?s)^\[\w+\] .*{text}"):
        make(mg, D)


def test_checks_can_be_switched_off():
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    D.Distribution.set_default_validate_args(False)
    try:
        assert math.isnan(D.Exponential(-1.0).log_prob(mg.tensor(-2.0)).item())
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="True or False"):
        D.Distribution.set_default_validate_args(3)
    with pytest.raises(NotImplementedError, match="samples have no gradient"):
        D.Poisson(1.0).rsample()
    for missing in (lambda d: d.NegativeBinomial(probs=0.5), lambda d: d.LKJCholesky(2.5)):
        with pytest.raises(TypeError):
            missing(D)
    with pytest.raises(NotImplementedError, match="has no cdf"):
        D.Beta(1.0, 1.0).cdf(mg.tensor(0.5))
    with pytest.raises(NotImplementedError, match="cartesian product"):
        D.Independent(D.Bernoulli(mg.tensor([0.5])), 1).enumerate_support()


def test_a_transform_keeps_its_last_pair():
    t = D.TanhTransform(cache_size=1)
    x = mg.tensor([0.3, 20.0])
    y = t(x)
    assert t.inv(y) is x and t(x) is y and mg.isinf(t.inv(y.clone()))[1]
    assert D.TanhTransform().inv(D.TanhTransform()(x)) is not x
    d = D.TransformedDistribution(D.Normal(mg.zeros(2), 9.0), [D.TanhTransform(cache_size=1)])
    mg.manual_seed(0)
    assert mg.isfinite(d.log_prob(d.rsample((100,)))).all()
    whole = D.ComposeTransform([D.ExpTransform(), D.AffineTransform(1.0, 2.0)])
    np.testing.assert_allclose(array(whole.inv(whole(x[:1]))), array(x[:1]), rtol=1e-6)
    assert whole.inv.inv is whole and D.AffineTransform(0.0, -2.0).sign == -1 and D.ComposeTransform([D.ExpTransform(), D.AffineTransform(0, -2)]).inv.sign == -1
    for folded in (D.AbsTransform(), D.AbsTransform().inv, D.ComposeTransform([D.AbsTransform()]), type("Own", (D.Transform,), {})()):
        with pytest.raises(NotImplementedError, match="no sign"):
            assert folded.sign
    with pytest.raises(NotImplementedError, match="no sign"):           # the probability of |x| is not that of x
        D.TransformedDistribution(D.Normal(mg.zeros(()), mg.ones(())), D.AbsTransform()).cdf(mg.ones(()))
    back = whole.inv
    assert back.inv.inv is back and copy.deepcopy(back) == back and pickle.loads(pickle.dumps(back.inv)) == whole
    empty = D.ComposeTransform([])
    assert empty.inv == empty and not (D.ComposeTransform([D.AbsTransform()]).bijective or D.AbsTransform().inv.bijective)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        D.ExpTransform(cache_size=2)


def test_a_captured_policy_step_draws_anew():
    """What is drawn in a captured function is drawn at each replay, as the eager step draws it."""
    def make():
        mg.manual_seed(0)
        net = mg.nn.Linear(3, 4)
        o = mg.optim.SGD(net.parameters(), lr=0.1)

        def step(x):
            o.zero_grad()
            policy, noise = D.Categorical(logits=net(x)), D.Normal(net(x).mean(-1), 1.0)
            share = D.Gamma(net(x).exp(), 1.0).rsample()
            action = policy.sample()
            loss = -(policy.log_prob(action) * noise.sample()).mean() + noise.rsample().mean() + share.mean() + policy.entropy().mean()
            loss.backward()
            o.step()
            return loss, action, share
        return net, step
    (one, eager), (two, step) = make(), make()
    captured, seen = mg.capture(step), []
    for _ in range(2):
        mg.manual_seed(5)
    x = mg.tensor(np.random.RandomState(0).randn(6, 3), dtype=np.float32)
    mg.manual_seed(5)
    first = [[array(t).copy() for t in eager(x)] for _ in range(4)]
    mg.manual_seed(5)
    for expected in first:
        got = captured(x)
        for a, b in zip(got, expected, strict=True):
            assert np.array_equal(array(a), b)
        seen.append(array(got[1]).tolist())
    assert len({str(s) for s in seen}) > 1 and mg.equal(one.weight, two.weight)


def test_they_say_what_they_are():
    assert repr(D.Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
    assert repr(D.Normal(mg.zeros(2), 1.0)) == "Normal(loc: Size([2]), scale: Size([2]))"
    assert repr(D.Independent(D.Normal(mg.zeros(2), 1.0), 1)) == "Independent(Normal(loc: Size([2]), scale: Size([2])), 1)"
    assert repr(D.ExpTransform().inv) == "ExpTransform().inv"
    assert "distributions" in dir(mg)


def test_samples_of_small_concentrations_neither_vanish_nor_meet():
    mg.manual_seed(0)
    for dtype in (mg.float32, mg.float64):
        a = mg.tensor(0.01, dtype=dtype, requires_grad=True)
        x = D.Beta(a, a).rsample((20000,))
        assert not ((x == 0) | (x == 1)).any() and abs((x < 0.1).float().mean() - 0.5) < 0.02 and abs((x > 0.9).float().mean() - 0.5) < 0.02
        x.sum().backward()
        assert mg.isfinite(a.grad)
    a = mg.full((40000,), 0.05, dtype=mg.float64, requires_grad=True)
    y = D.Beta(a, mg.full((40000,), 0.5, dtype=mg.float64)).rsample()
    y.sum().backward()                              # the derivative of the mean a / (a + b) is b / (a + b)^2
    assert abs(a.grad.mean() - 0.5 / 0.55**2) < 0.05


def test_modes_at_the_edges_and_numbers_as_values():
    a = mg.tensor([[3.0, 2.0, 1.0], [0.5, 0.2, 0.2], [1.0, 1.0, 1.0]], requires_grad=True)
    mode = D.Dirichlet(a).mode
    np.testing.assert_allclose(mode.detach().numpy(), [[2 / 3, 1 / 3, 0], [1, 0, 0], [np.nan] * 3], rtol=1e-6)      # of a uniform one: none
    assert np.isfinite(mg.autograd.grad(mode[:2].sum(), a)[0].numpy()[:2]).all()
    assert D.Binomial(probs=mg.tensor(0.25)).mean.item() == 0.25
    assert D.Gamma(2.0, 1.0).log_prob(1).item() == -1 and D.Chi2(mg.tensor(4.0)).log_prob(2).shape == ()


def test_what_a_class_says_of_its_support():
    c = D.constraints
    assert isinstance(D.Uniform.support, c.Constraint) and c.is_dependent(D.Uniform.support)
    assert (D.Uniform.support.event_dim, D.Uniform.support.is_discrete) == (0, False) and D.Multinomial.support.event_dim == 1
    assert D.OneHotCategorical.support is c.one_hot and isinstance(D.Uniform(0.0, 1.0).support, c.interval)
    for ask in (lambda: D.Independent.support.event_dim, lambda: D.MixtureSameFamily.support.is_discrete):
        with pytest.raises(NotImplementedError, match="known only when"):
            ask()


def test_exponential_samples_are_exponential_by_the_same_generator():
    mg.manual_seed(5)
    want = mg.empty(4, dtype=mg.float64).exponential_()
    mg.manual_seed(5)
    rate = mg.tensor([0.5, 1.0, 2.0, 4.0], dtype=mg.float64, requires_grad=True)
    got = D.Exponential(rate).rsample()
    got.sum().backward()
    np.testing.assert_allclose(array(got), array(want / rate), rtol=1e-12)
    np.testing.assert_allclose(array(rate.grad), array(-want / rate ** 2), rtol=1e-12)


def test_a_geometric_distribution_without_an_end_is_refused():
    for probs in (0, mg.tensor([0.5, 0.0])):
        with pytest.raises(ValueError, match="greater than 0"):
            D.Geometric(probs)
    assert D.Geometric(0.0, validate_args=False).probs == 0


def test_a_base_with_too_few_dimensions_is_refused():
    with pytest.raises(ValueError, match="at least the 2 dimensions that the transforms take"):
        D.TransformedDistribution(D.Normal(mg.zeros(4), 1.0), D.ReshapeTransform((2, 2), (4,)))


def test_transforms_with_equal_parameters_are_equal():
    t = mg.distributions.transforms
    made = [lambda: t.ExpTransform(), lambda: t.AffineTransform(1.0, 2.0), lambda: t.AffineTransform(mg.tensor([1.0, 2.0]), 2.0), lambda: t.AffineTransform(mg.tensor([1.0, 2.0, 3.0]), 2.0),
            lambda: t.PowerTransform(mg.tensor(2.0)), lambda: t.ComposeTransform([t.ExpTransform(), t.SigmoidTransform()]), lambda: t.ExpTransform().inv,
            lambda: t.ReshapeTransform((2,), (1, 2)), lambda: t.IndependentTransform(t.ExpTransform(), 1)]
    for i, a in enumerate(made):
        for j, b in enumerate(made):
            assert (a() == b()) is (i == j) and (i != j or hash(a()) == hash(b()))
    assert t.AffineTransform(1.0, 2.0) == t.AffineTransform(mg.tensor(1.0), 2.0, cache_size=1) and t.ExpTransform().inv.inv == t.ExpTransform()


@pytest.mark.parametrize("name, truth", [("Normal", "norm"), ("Laplace", "laplace"), ("Cauchy", "cauchy"), ("HalfNormal", "halfnorm"), ("HalfCauchy", "halfcauchy"),
                                         ("Gumbel", "gumbel_r"), ("Exponential", "expon")])
def test_small_probabilities_are_not_lost(name, truth):
    """cdf and icdf have all digits where the probability is tiny: no difference from 1 or 1/2."""
    scipy = pytest.importorskip("scipy.stats")
    of = getattr(scipy, truth)
    zero, one = (mg.tensor(v, dtype=mg.float64) for v in (0.0, 1.0))
    d = getattr(D, name)(one) if name in ("HalfNormal", "HalfCauchy", "Exponential") else getattr(D, name)(zero, one)
    for p in (1e-300, 1e-100, 1e-20, 1e-5, 0.2, 0.3, 0.5, 0.6, 0.8, 0.99):
        if name == "Gumbel" and p < 1e-200:
            continue
        x = of.ppf(p)
        assert d.icdf(mg.tensor(p, dtype=mg.float64)).item() == pytest.approx(x, rel=1e-9, abs=1e-12)
        at = mg.tensor(x, dtype=mg.float64, requires_grad=True)
        q = d.cdf(at)
        assert q.item() == pytest.approx(of.cdf(x), rel=1e-9)
        assert mg.autograd.grad(q, at)[0].item() == pytest.approx(of.pdf(x), rel=1e-7)



def test_quantiles_at_the_upper_end():
    """float32's pi is larger than pi: its tangent has the other sign."""
    near = mg.tensor([0.75, 1 - 2.0**-24, 1.0])
    for d, tail in ((D.Cauchy(mg.zeros(()), mg.ones(())), 1.0), (D.HalfCauchy(mg.ones(())), 0.5)):
        np.testing.assert_allclose(array(d.icdf(near)), [1 / np.tan(np.pi * tail / 4), 2.0**24 / np.pi / tail, np.inf], rtol=1e-6)


@pytest.mark.parametrize("dtype, x", [(mg.float32, 1e30), (mg.float64, 1e200), (mg.float32, -1e30), (mg.float32, 3.0), (mg.float64, 0.0)])
def test_densities_with_heavy_tails_far_out(dtype, x):
    """The square of x leaves the range. Student's t of two degrees of freedom has the density (2 + x^2)^(-3/2)."""
    def t(v):
        return mg.tensor(v, dtype=dtype)
    half = [(D.HalfCauchy(t(1.0)), 2, 1, math.log(2 / math.pi))] if x >= 0 else []
    for d, power, plus, constant in ((D.Cauchy(t(0.0), t(1.0)), 2, 1, -math.log(math.pi)), (D.StudentT(t(2.0)), 3, 2, 0), *half):
        at = mg.tensor(x, dtype=dtype, requires_grad=True)
        y = d.log_prob(at)
        y.backward()
        log_sum, slope = (math.log(plus + x * x), 2 * x / (plus + x * x)) if abs(x) < 9 else (2 * math.log(abs(x)), 2 / x)
        assert y.item() == pytest.approx(constant - power / 2 * log_sum, rel=1e-5, abs=1e-6)
        assert at.grad.item() == pytest.approx(-power / 2 * slope, rel=1e-5)


@pytest.mark.parametrize("dtype", [mg.float16, mg.float64])
@pytest.mark.parametrize("kind", [D.Cauchy, D.Laplace, D.Gumbel, D.Normal])
def test_quantiles_and_samples_have_the_dtype_of_the_parameters(kind, dtype):
    d = kind(mg.tensor([0.5], dtype=dtype), mg.tensor([2.0], dtype=dtype))
    q = mg.tensor([0.1, 0.4, 0.8], dtype=dtype)
    assert {t.dtype for t in (d.icdf(q), d.sample(), d.rsample((3,)), d.cdf(d.icdf(q)))} == {dtype}
    assert d.cdf(d.icdf(q)).tolist() == pytest.approx(q.tolist(), abs=2e-3)


def test_the_end_of_the_support_has_a_distribution_function():
    one = mg.ones(2)
    for d in (D.LogNormal(0 * one, one), D.Weibull(one, one), D.InverseGamma(one, one)):
        assert d.cdf(mg.zeros(2)).tolist() == [0, 0]
    with pytest.raises(ValueError, match="support"):
        D.LogNormal(0 * one, one).cdf(-one)


def test_a_sigmoid_stays_inside():
    t = D.transforms.SigmoidTransform()
    x = mg.tensor([-1e4, 1e4], dtype=mg.float64)
    assert 0 < t(x)[0].item() < t(x)[1].item() < 1
    d = D.TransformedDistribution(D.Uniform(0 * x, 0 * x + 1), [t.inv])
    assert mg.isfinite(d.log_prob(x)).all().item()


def test_transforms_with_equal_parameters_are_the_same():
    p, q = (D.Weibull(mg.tensor([1.0, 2.0]), mg.tensor([1.5, 2.5])) for _ in range(2))
    assert D.kl_divergence(p, q).tolist() == [0, 0]
    with pytest.raises(NotImplementedError, match="the same transforms"):
        D.kl_divergence(p, D.Weibull(mg.tensor([1.0, 3.0]), mg.tensor([1.5, 2.5])))


def test_what_is_not_square_is_not_symmetric():
    c = D.constraints
    for constraint in (c.square, c.symmetric, c.positive_definite, c.positive_semidefinite):
        assert constraint.check(mg.ones(4, 2, 3)).tolist() == [False] * 4


def test_a_composition_tells_its_parts():
    t = D.transforms
    assert repr(t.ComposeTransform([t.ExpTransform(), t.AffineTransform(0, 1)])) == "ComposeTransform(ExpTransform(), AffineTransform())"
    assert D.Multinomial(4, mg.ones(2, 3)).param_shape == (2, 3)
