"""Linear algebra: the functions above the primitives of factor.py, against NumPy."""
from __future__ import annotations

import math

import numpy as np
import pytest
from support import run_python

import minigrad as mg
from minigrad import linalg

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.uniform(-2, 2, shape)


def close(got, want, tolerance=1e-9):
    got = got.numpy(force=True)
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got, want, tolerance, tolerance)


def test_costs_nothing_at_import():
    code = "import sys, minigrad as mg; assert 'minigrad.ops.linalg' not in sys.modules; print(hasattr(mg, 'det'), mg.ones(1, 1).det().item())"
    assert run_python("-c", code).stdout.split() == ["True", "1.0"]


@pytest.mark.parametrize("ord", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_norm_of_matrices(ord):
    a = drawn(2, 3, 4)
    for dim in ((-2, -1), (2, 0)):
        close(linalg.norm(mg.tensor(a), ord, dim), np.linalg.norm(a, ord, dim))
        if ord is not None:
            close(linalg.matrix_norm(mg.tensor(a), ord, dim, keepdim=True), np.linalg.norm(a, ord, dim, keepdims=True))
        if isinstance(ord, str):
            close(mg.norm(mg.tensor(a), ord, dim), np.linalg.norm(a, ord, dim))
            close(mg.tensor(a).norm(ord, dim, keepdim=True), np.linalg.norm(a, ord, dim, keepdims=True))
    close(linalg.norm(mg.tensor(a[0]), ord), np.linalg.norm(a[0], ord))


def test_a_nuclear_norm_is_of_matrices():
    x = mg.tensor(drawn(3, 4), requires_grad=True)
    x.norm("nuc").backward()
    u, _, v = np.linalg.svd(x.detach().numpy(), full_matrices=False)
    close(x.grad, u @ v)
    out = mg.empty((), dtype=x.dtype)
    assert mg.norm(x.detach(), "nuc", out=out) is out and out.item() == pytest.approx(x.norm("nuc").item())
    for call in (lambda: x[0].norm("nuc"), lambda: x[None].norm("nuc"), lambda: x.norm("nuc", 1)):
        with pytest.raises(RuntimeError, match=r"\[norm\] 'nuc' is of matrices"):
            call()


@pytest.mark.parametrize("ord", [None, 0, 1, 2.5, np.inf, -np.inf])
def test_norm_of_vectors(ord):
    a = drawn(3, 4)
    close(linalg.norm(mg.tensor(a), ord, 1), np.linalg.norm(a, ord, 1))
    close(linalg.vector_norm(mg.tensor(a), 2 if ord is None else ord), np.linalg.norm(a.reshape(-1), ord))


@pytest.mark.parametrize("p", [None, 1, -1, 2, -2, np.inf, "fro"])
def test_cond(p):
    a = drawn(2, 3, 3)
    close(linalg.cond(mg.tensor(a), p), np.linalg.cond(a, p))


def test_matrix_rank():
    a = drawn(4, 2) @ drawn(2, 5)
    assert linalg.matrix_rank(mg.tensor(a)).item() == 2 == np.linalg.matrix_rank(a)
    assert linalg.matrix_rank(mg.tensor(a), atol=1e9).item() == 0
    assert linalg.matrix_rank(mg.tensor(np.stack([a, 0 * a])), rtol=mg.tensor([1e-9, 0.0])).tolist() == [2, 0]
    assert linalg.matrix_rank(mg.tensor(a @ a.T), hermitian=True).item() == 2


def test_solve_with_vectors_batches_and_from_the_right():
    a, b, v = drawn(2, 3, 3), drawn(3, 4), drawn(2, 3)
    close(linalg.solve(mg.tensor(a), mg.tensor(b)), np.linalg.solve(a, np.broadcast_to(b, (2, 3, 4))))
    close(linalg.solve(mg.tensor(a), mg.tensor(v)), np.linalg.solve(a, v[..., None])[..., 0])
    x = linalg.solve(mg.tensor(a), mg.tensor(b.T.copy()), left=False)
    close(x @ mg.tensor(a), np.broadcast_to(b.T, (2, 4, 3)))
    assert linalg.solve_ex(mg.tensor(a), mg.tensor(b)).info.tolist() == [0, 0]


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_lu_solve(left, adjoint):
    a, b = drawn(3, 3), drawn(3, 3)
    x = linalg.lu_solve(*linalg.lu_factor(mg.tensor(a)), mg.tensor(b), left=left, adjoint=adjoint)
    m = mg.tensor(a.T.copy() if adjoint else a)
    close(m @ x if left else x @ m, b)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 3)])
def test_lu_qr_and_svd_restore_the_matrix(shape):
    a = drawn(*shape)
    p, low, up = linalg.lu(mg.tensor(a))
    close(p @ low @ up, a)
    for mode in ("reduced", "complete"):
        q, r = linalg.qr(mg.tensor(a), mode)
        close(q @ r, a)
    for full in (False, True):
        u, s, vh = linalg.svd(mg.tensor(a), full)
        k = s.shape[-1]
        close((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], a)
    assert linalg.lu(mg.tensor(a), pivot=False).P.shape == (0,)
    assert linalg.lu_factor_ex(mg.zeros(2, 2)).info.item() == 1
    made, tau = mg.geqrf(mg.tensor(a))
    if shape[-2] >= shape[-1]:
        close(linalg.householder_product(made, tau) @ made.triu()[..., :shape[-1], :], a)


def test_ormqr_is_a_product_with_the_whole_q():
    a, other = drawn(4, 2), drawn(4, 4)
    made, tau = mg.geqrf(mg.tensor(a))
    q = mg.ormqr(made, tau, mg.eye(4, dtype=mg.float64))
    close(q.mT @ q, np.eye(4))
    for left in (True, False):
        for transpose in (True, False):
            m = q.mT if transpose else q
            close(mg.ormqr(made, tau, mg.tensor(other), left, transpose), (m @ mg.tensor(other) if left else mg.tensor(other) @ m).numpy())


def test_lstsq():
    a, b = drawn(5, 3), drawn(5, 2)
    want, residuals, rank, values = np.linalg.lstsq(a, b, rcond=None)
    got = linalg.lstsq(mg.tensor(a), mg.tensor(b), driver="gelsd")
    for mine, theirs in zip(got, (want, residuals, rank, values), strict=True):
        close(mine, theirs)
    assert linalg.lstsq(mg.tensor(a), mg.tensor(b)).residuals.shape == (0,)
    np.testing.assert_allclose(linalg.lstsq(mg.tensor(a), mg.tensor(b), 0.9, driver="gels").solution.numpy(), want, 1e-9)   # any rcond


def test_matrix_power_and_exp():
    a = drawn(3, 3)
    for n in (0, 1, 5, -3):
        close(linalg.matrix_power(mg.tensor(a), n), np.linalg.matrix_power(a, n))
    w, v = np.linalg.eig(20 * a)
    close(linalg.matrix_exp(mg.tensor(20 * a)) / np.exp(w.real.max()), (v @ np.diag(np.exp(w - w.real.max())) @ np.linalg.inv(v)).real)


def test_multi_dot():
    shapes = [(10, 30), (30, 5), (5, 60)]
    given = [drawn(*s) for s in shapes]
    close(linalg.multi_dot([mg.tensor(g) for g in given]), np.linalg.multi_dot(given))
    given = [drawn(3), drawn(3, 4), drawn(4)]
    close(mg.chain_matmul(*[mg.tensor(g) for g in given]), np.linalg.multi_dot(given))


def test_tensorsolve_and_tensorinv():
    a, b = drawn(2, 3, 6), drawn(2, 3)
    close(linalg.tensorsolve(mg.tensor(a), mg.tensor(b)), np.linalg.tensorsolve(a, b))
    close(linalg.tensorinv(mg.tensor(a), 2), np.linalg.tensorinv(a, 2))


def test_a_determinant_of_nan_is_nan():
    """LAPACK may take the matrix for a singular one: 0, and -inf as its logarithm."""
    for place in ((0, 0), (0, 1), (1, 1)):
        x = mg.ones(2, 2)
        x[place] = np.nan
        sign, log = mg.linalg.slogdet(x)
        assert mg.isnan(mg.stack([mg.linalg.det(x), log, mg.logdet(x)])).all() and sign.item() == 0


def test_the_walk_back_through_a_determinant_does_not_raise():
    """Where the determinant is 0 or NaN the gradient is not a number: LAPACK's refusal came from within backward()."""
    x = mg.tensor([[[1.0, 2.0], [2.0, 4.0]], [[2.0, 0.0], [0.0, 4.0]], [[1.0, np.nan], [0.0, 1.0]]], dtype=mg.float64, requires_grad=True)
    for f in (lambda x: mg.linalg.slogdet(x)[1], mg.logdet, mg.linalg.det):
        g, = mg.autograd.grad(f(x).sum(), x)
        assert np.isnan(g[2].numpy()).all() and np.isfinite(g[1].numpy()).all()
    g, = mg.autograd.grad(mg.logdet(x).sum(), x, create_graph=True)
    assert np.isnan(g[0].detach().numpy()).all() and g[1].tolist() == [[0.5, 0.0], [0.0, 0.25]]
    assert mg.autograd.grad(g[1, 0, 0], x)[0][1].tolist() == [[-0.25, 0.0], [0.0, 0.0]]


def test_the_third_derivative_of_det():
    x = mg.tensor(drawn(3, 3), requires_grad=True)
    directions = [mg.tensor(drawn(3, 3)) for _ in range(3)]
    value = linalg.det(x)
    for d in directions:
        value = (mg.autograd.grad(value, x, create_graph=True)[0] * d).sum()
    a, (p, q, r) = x.numpy(force=True), [d.numpy() for d in directions]
    exact = sum(s * t * u * np.linalg.det(a + s * p + t * q + u * r) for s in (1, -1) for t in (1, -1) for u in (1, -1)) / 8
    close(value, exact, 1e-7)           # det of (3, 3) is of degree 3: this difference has no error


def test_det_of_singular_matrices_has_its_gradient():
    x = mg.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    linalg.det(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[4, -2], [-2, 1]], atol=1e-5)


@pytest.mark.parametrize("call, kind, text", [
    (lambda: linalg.inv(mg.zeros(2, 2)), linalg.LinAlgError, "Singular"),
    (lambda: linalg.cholesky(-mg.eye(2)), linalg.LinAlgError, "positive definite"),
    (lambda: linalg.solve(mg.ones(2, 3), mg.ones(2)), RuntimeError, "square"),
    (lambda: linalg.norm(mg.ones(2, 2, 2), 1), RuntimeError, "one or two dimensions"),
    (lambda: linalg.matrix_norm(mg.ones(2, 2), "max"), RuntimeError, "ord"),
    (lambda: linalg.vector_norm(mg.ones(2, dtype=mg.int64)), RuntimeError, "floating"),
    (lambda: linalg.qr(mg.ones(2, 2), "full"), RuntimeError, "mode"),
    (lambda: linalg.eigh(mg.ones(2, 2), "x"), RuntimeError, "UPLO"),
    (lambda: linalg.multi_dot([mg.ones(2)]), RuntimeError, "two tensors"),
    (lambda: linalg.cross(mg.ones(2), mg.ones(2)), RuntimeError, "size 3"),
    (lambda: linalg.vander(mg.ones(2), 1), RuntimeError, "larger than 1"),
    (lambda: linalg.tensorinv(mg.ones(2, 3)), RuntimeError, "multiply"),
    (lambda: linalg.lstsq(mg.ones(2, 3), mg.ones(3, 1)), RuntimeError, "same m"),
    (lambda: linalg.lu_solve(mg.ones(2, 2), mg.ones(2), mg.ones(2, 2)), RuntimeError, "integers"),
    (lambda: linalg.lu_factor_ex(mg.zeros(2, 2), check_errors=True), linalg.LinAlgError, "diagonal"),
    (lambda: mg.lu_unpack(mg.ones(2, 2), mg.tensor([7, 1], dtype=mg.int32)), linalg.LinAlgError, "lie in"),
    (lambda: linalg.householder_product(mg.ones(2, 3), mg.ones(2)), RuntimeError, "m >= n"),
    (lambda: mg.geqrf(mg.ones(2, 2, requires_grad=True)), RuntimeError, "no derivative"),
    (lambda: mg.pca_lowrank(mg.ones(3, 2), 5), ValueError, "between"),
    (lambda: linalg.svd(mg.ones(3)), RuntimeError, "two dimensions"),
    (lambda: linalg.svd(mg.ones(3, 3), full=True), TypeError, "full_matrices"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_low_rank():
    a = drawn(8, 2) @ drawn(2, 6)
    u, s, v = mg.svd_lowrank(mg.tensor(a), 2)
    close((u * s) @ v.mT, a)
    u, s, v = mg.pca_lowrank(mg.tensor(a), 2)
    close((u * s) @ v.mT, a - a.mean(0))


def test_factorizations_that_say_which_matrix_is_wrong():
    eye, indefinite, singular = mg.eye(2), mg.tensor([[1.0, 2.0], [2.0, 1.0]]), mg.tensor([[1.0, 2.0], [2.0, 4.0]])
    linalg = mg.linalg
    for A, bad, calls in ((mg.stack([eye, indefinite, -eye]), [0, 2, 1], (linalg.cholesky_ex, lambda a, **o: linalg.cholesky_ex(a, upper=True, **o))),
                          (mg.stack([eye, singular, 0 * eye]), [0, 2, 1], (linalg.inv_ex, lambda a, **o: linalg.solve_ex(a, mg.ones(2), **o),
                                                                          lambda a, **o: linalg.solve_ex(a, mg.ones(2, 1), **o)))):
        for call in calls:
            A.requires_grad_()
            found, info = call(A)
            assert info.tolist() == bad and info.dtype == mg.int32 and call(eye)[1].item() == 0 and call(A[1])[1].item() == 2
            assert mg.isnan(found[1:]).all() and np.array_equal(found[0].detach(), call(eye)[0])
            found[0].sum().backward()
            assert not mg.isnan(A.grad).any()
            with pytest.raises(linalg.LinAlgError):
                call(A, check_errors=True)
    assert linalg.cond(mg.stack([eye, singular]), 1).tolist() == [1.0, float("inf")]


def test_pinv_takes_a_tolerance_for_each_matrix():
    mg.manual_seed(0)
    a, tolerances = mg.randn(2, 4, 3), (0.1, 0.9)
    for options in ({"rtol": mg.tensor(tolerances)}, {"rcond": mg.tensor(tolerances)}, {"atol": mg.tensor(tolerances), "rtol": mg.tensor([0.0])}):
        kind = "atol" if "atol" in options else "rtol"
        want = [linalg.pinv(m, **{"rtol": 0.0, kind: t}) for m, t in zip(a, tolerances, strict=True)]
        assert mg.equal(linalg.pinv(a, **options), mg.stack(want))
    assert linalg.pinv(a[0], rtol=mg.tensor(tolerances)).shape == (2, 3, 4)         # one matrix, two tolerances
    assert linalg.pinv(mg.zeros(0, 4, 3), rtol=mg.zeros(0)).shape == (0, 3, 4)


def test_condition_numbers_of_singular_matrices():
    for p, want in ((1, math.inf), ("nuc", math.inf), ("fro", math.inf), (-2, 0.0), (None, math.inf)):
        assert mg.linalg.cond(mg.stack([mg.diag(mg.tensor([1.0, 0.0])), 2 * mg.eye(2)]), p)[0].item() == want


def test_a_matrix_norm_of_a_vector_is_refused():
    for ask in (lambda: mg.linalg.matrix_norm(mg.ones(2)), lambda: mg.norm(mg.ones(2), "nuc"), lambda: mg.linalg.matrix_norm(mg.ones(2), dim=(0, 1))):
        with pytest.raises(RuntimeError, match="dimensions"):
            ask()


def test_matrices_without_elements():
    for shape in ((0, 0), (3, 0, 0), (0, 2, 2)):
        assert mg.linalg.cond(mg.zeros(shape)).tolist() == mg.zeros(shape[:-2]).tolist()
        tolerance = mg.full(shape[:-2], 0.1)
        assert mg.linalg.pinv(mg.zeros(shape), rtol=tolerance).shape == shape


@pytest.mark.parametrize("call", [lambda x: mg.addmm(x, mg.ones(2, 2), mg.ones(2, 2)), lambda x: mg.addmv(x[0], mg.ones(2, 2), mg.ones(2)),
                                  lambda x: mg.baddbmm(x, mg.ones(1, 2, 2), mg.ones(1, 2, 2), beta=0), lambda x: mg.addbmm(x, mg.ones(1, 2, 2), mg.ones(1, 2, 2))])
@pytest.mark.parametrize("dtype", [mg.float64, mg.int64])
def test_what_is_added_to_a_product_has_its_dtype(call, dtype):
    with pytest.raises(RuntimeError, match="must have the dtype of the product"):
        call(mg.ones(2, 2, dtype=dtype))


@pytest.mark.parametrize("dtype, size", [(mg.float32, 1e-25), (mg.float32, 1e25), (mg.float64, 1e-200)])
def test_least_squares_of_tiny_and_huge_numbers(dtype, size):
    """X does not depend on the size of both sides; the gradient has a power of pinv(A), which left the range."""
    rng, size = np.random.default_rng(2), 2.0 ** round(np.log2(size))
    values, b = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    found = []
    for s in (1.0, size):
        a = mg.tensor(values * s, dtype=mg.float64).to(dtype).requires_grad_()
        x = mg.linalg.lstsq(a, mg.tensor(b * s, dtype=mg.float64).to(dtype)).solution
        g, = mg.autograd.grad((x * mg.arange(6.0, dtype=dtype).reshape(3, 2)).sum(), a)
        found.append((x.numpy(force=True), g.double().numpy() * s))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())
