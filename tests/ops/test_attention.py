"""Attention beyond its samples: against torch, rows without keys, memory, threads, dropout, refusals."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad.devices import cpu, memory
from minigrad.devices.native import get_num_threads, set_num_threads
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused

RNG = np.random.default_rng


def leaves(*arrays):
    return [mg.tensor(a, requires_grad=True) for a in arrays]


def theirs(*arrays):
    import torch
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def same(ours, other, tolerance, where=""):
    np.testing.assert_allclose(ours.numpy(force=True), other.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=where)


SHAPES = [((2, 3), 5, 7, 4, 3), ((1,), 130, 300, 17, 33), ((2,), 300, 130, 8, 8), ((), 61, 61, 1, 1), ((2, 1), 128, 128, 32, 32)]
MASKS = {"none": None, "bool": lambda r, b, n, s: r.random((n, s)) < 0.6, "number": lambda r, b, n, s: r.standard_normal((n, s)),
         "keys": lambda r, b, n, s: r.random((*b, 1, s)) < 0.6, "infinite": lambda r, b, n, s: np.where(r.random((n, s)) < 0.5, -np.inf, 0.0),
         "rows": lambda r, b, n, s: r.standard_normal((n, 1)), "causal": None}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sdpa_is_torchs(torch, shape, mask, dtype):
    """Values and gradients, of one block and several; second derivatives of the small ones."""
    rng, (batch, rows, keys, depth, width) = RNG(0), shape
    q, k, v, g = (rng.standard_normal((*batch, *s)) for s in ((rows, depth), (keys, depth), (keys, width), (rows, width)))
    m = MASKS[mask](rng, batch, rows, keys) if MASKS[mask] else None
    if m is not None:
        m[..., 0] = True if m.dtype == bool else 0       # torch has NaN in a gradient where a row has no key
    ours, other = leaves(*(x.astype(dtype) for x in (q, k, v))), theirs(q, k, v)
    causal = {"is_causal": mask == "causal"}
    y = F.scaled_dot_product_attention(*ours, None if m is None else mg.tensor(m if m.dtype == bool else m.astype(dtype)), **causal)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        z = torch.nn.functional.scaled_dot_product_attention(*other, None if m is None else torch.tensor(m), **causal)
    tolerance = 1e-10 if dtype == np.float64 else 3e-5
    same(y, z, tolerance)
    second = rows * keys < 100 and dtype == np.float64
    gs = mg.autograd.grad(y, ours, mg.tensor(g.astype(dtype)), create_graph=second)
    hs = torch.autograd.grad(z, other, torch.tensor(g), create_graph=second)
    for a, b in zip(gs, hs, strict=True):
        same(a, b, tolerance, "gradient")
    if second:
        ds = [rng.standard_normal(x.shape) for x in (q, k, v)]
        mine = mg.autograd.grad(gs, ours, [mg.tensor(d) for d in ds])
        for a, b in zip(mine, torch.autograd.grad(hs, other, [torch.tensor(d) for d in ds]), strict=True):
            same(a, b, 1e-9, "second derivative")


@pytest.mark.parametrize("mask", [None, (5, 7), (2, 1, 5, 7), (1, 4, 5, 7)], ids=str)
def test_grouped_queries(torch, mask):
    rng = RNG(1)
    q, k, v = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((2, 2, 7, 6)), rng.standard_normal((2, 2, 7, 3))
    m = None if mask is None else rng.standard_normal(mask)
    ours, other = leaves(q, k, v), theirs(q, k, v)
    y, w = F.scaled_dot_product_attention(*ours, None if m is None else mg.tensor(m), enable_gqa=True, need_weights=True)
    z = torch.nn.functional.scaled_dot_product_attention(*other, None if m is None else torch.tensor(m), enable_gqa=True)
    same(y, z, 1e-12)
    assert w.shape == (2, 4, 5, 7) and np.allclose(w.numpy(force=True).sum(-1), 1)
    (y * y).sum().backward()
    (z * z).sum().backward()
    for a, b in zip(ours, other, strict=True):
        same(a.grad, b.grad, 1e-11)


def test_gradient_of_an_added_mask():
    """Also a mask that is broadcast; the weights are differentiable too."""
    rng = RNG(2)
    q, k, v, m = leaves(rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal((3, 5)))
    y, w = F.scaled_dot_product_attention(q, k, v, m, need_weights=True)
    loss = (y * y).sum() + (w * w * w).sum()
    got = mg.autograd.grad(loss, [q, m])
    s = q @ k.transpose(-2, -1) * 0.5 + m
    w = mg.softmax(s, -1)
    y = w @ v
    want = mg.autograd.grad((y * y).sum() + (w * w * w).sum(), [q, m])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [False, True])
def test_a_row_without_keys(path, dtype, number):
    """Zeros, and finite gradients of first and second order; the other rows are as without it."""
    rng = RNG(3)
    arrays = [rng.standard_normal(s).astype(dtype) for s in ((2, 60, 8), (2, 70, 8), (2, 70, 8))]
    allowed = rng.random((60, 70)) < 0.5
    allowed[[0, 7, 59]] = False
    mask = mg.tensor(np.where(allowed, 0, -np.inf).astype(dtype) if number else allowed)
    with set_fused(path):
        ours = leaves(*arrays)
        y, w = F.scaled_dot_product_attention(*ours, mask, need_weights=True)
        for dead in (0, 7, 59):
            assert not y.numpy(force=True)[:, dead].any() and not w.numpy(force=True)[:, dead].any()
        np.testing.assert_allclose(np.delete(w.numpy(force=True).sum(-1), [0, 7, 59], -1), 1, rtol=1e-5)
        for loss in ((y * y).sum(), (y * y).sum() + (w * w).sum()):
            first = mg.autograd.grad(loss, ours, create_graph=True)
            second = mg.autograd.grad([(g * g).sum() for g in first], ours, retain_graph=True)
            assert all(np.isfinite(g.numpy(force=True)).all() for g in (*first, *second))
            assert not first[0].numpy(force=True)[:, 7].any()


def test_third_derivative():
    from minigrad import testing
    from minigrad.core.op import registry
    op = registry["scaled_dot_product_attention"]
    for i, (args, attrs) in enumerate(testing.samples_of(op)):
        if i in (0, 3, 6, 8, 12):
            error, allowed = testing.directional_error(op, args, attrs, 3)
            assert error <= 5 * allowed, (i, error, allowed)


def test_memory_is_linear_in_the_length():
    """No T x T matrix, with dropout neither: what the pool hands out doubles with T."""
    used = {}
    for t in (2048, 4096):
        q, k, v = leaves(*RNG(4).standard_normal((3, 1, 2, t, 16)).astype(np.float32))
        memory.empty_cache()
        fresh, total = cpu.CPU.fresh, [0]

        def counted(self, nbytes, home, fresh=fresh, total=total):
            total[0] += nbytes
            return fresh(self, nbytes, home)
        cpu.CPU.fresh = counted
        try:
            for options in ({"is_causal": True}, {"dropout_p": 0.1}):
                F.scaled_dot_product_attention(q, k, v, **options).sum().backward()
        finally:
            cpu.CPU.fresh = fresh
        used[t] = total[0]
    assert used[4096] < 2.2 * used[2048], used
    assert used[4096] < 4096 * 4096 * 4 / 4, used


def test_items_and_threads_do_not_matter():
    """A problem alone gives the bits it gives among others, with one thread and with two."""
    q, k, v, g = RNG(5).standard_normal((4, 6, 150, 20)).astype(np.float32)
    before, results = get_num_threads(), []
    try:
        for threads, part in ((1, slice(None)), (2, slice(None)), (2, slice(3, 4))):
            set_num_threads(threads)
            ours = leaves(q[part], k[part], v[part])
            y = F.scaled_dot_product_attention(*ours, is_causal=True)
            y.backward(mg.tensor(g[part]))
            results.append([t.numpy(force=True) for t in (y, *[x.grad for x in ours])])
    finally:
        set_num_threads(before)
    for a, b, alone in zip(*results, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a[3:4], alone)
    ours = leaves(q, k, v)
    longer = F.scaled_dot_product_attention(ours[0][:, :100], *ours[1:], is_causal=True)        # other tiles, the same rows
    assert np.array_equal(longer.numpy(force=True), results[0][0][:, :100])


def test_dropout():
    q, k, v = leaves(*RNG(6).standard_normal((3, 2, 40, 8)))
    mg.manual_seed(0)
    y, w = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25, need_weights=True)
    again = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
    _, full = F.scaled_dot_product_attention(q, k, v, need_weights=True)
    kept = w.numpy(force=True) != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(w.numpy(force=True)[kept], full.numpy(force=True)[kept] / 0.75, rtol=1e-12)
    np.testing.assert_allclose((w @ v).numpy(force=True), y.numpy(force=True), rtol=1e-10, atol=1e-12)
    assert not np.allclose(again.numpy(force=True), y.numpy(force=True))
    mg.manual_seed(0)
    assert np.array_equal(F.scaled_dot_product_attention(q, k, v, dropout_p=0.25).numpy(force=True), y.numpy(force=True))
    step = mg.capture(lambda q: F.scaled_dot_product_attention(q, k.detach(), v.detach(), dropout_p=0.5))
    draws = [step(q.detach()).numpy().copy() for _ in range(4)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(draws, 2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.integers(0, 70), st.integers(0, 140), st.integers(0, 40), st.integers(0, 40), st.booleans(), st.booleans(),
       st.sampled_from(["none", "bool", "number"]), st.sampled_from([0.0, 0.3]), st.sampled_from([np.float32, np.float64]))
def test_any_shape(batch, rows, keys, depth, width, causal, weights, mask, p, dtype):
    """Kernels and definition agree on shapes nobody thought of."""
    rng = RNG(7)
    arrays = [rng.standard_normal((batch, *s)).astype(dtype) for s in ((rows, depth), (keys, depth), (keys, width))]
    m = None if mask == "none" else mg.tensor(rng.random((rows, keys)) < 0.5) if mask == "bool" else mg.tensor(rng.standard_normal((rows, keys)).astype(dtype))
    results = []
    for path in ("auto", "off"):
        mg.manual_seed(1)
        with set_fused(path):
            ours = leaves(*arrays)
            out = F.scaled_dot_product_attention(*ours, m, p, causal and m is None, scale=0.3, need_weights=weights)
            y = out[0] if weights else out
            (y * y).sum().backward()
            results.append([t.numpy(force=True) for t in ((*out,) if weights else (y,))] + [x.grad.numpy() for x in ours])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == np.float32 else 1e-9, atol=1e-4 if dtype == np.float32 else 1e-10)


def test_refusals():
    q, k = mg.zeros(2, 3, 4), mg.zeros(2, 5, 4)
    cases = [
        ((q, k, k, mg.zeros(3, 5)), {"is_causal": True}, RuntimeError, "exclude each other"),
        ((q, k, k, mg.zeros(3, 4)), {}, RuntimeError, "attn_mask must broadcast"),
        ((q, k, k, mg.zeros(3, 5, dtype=mg.float64)), {}, RuntimeError, "attn_mask must be bool"),
        ((q, k, k, [[True]]), {}, TypeError, "attn_mask must be a Tensor"),
        ((q, k, mg.zeros(2, 4, 4)), {}, RuntimeError, "one length S"),
        ((q, k, k), {"dropout_p": 1.5}, RuntimeError, "between 0 and 1"),
        ((mg.zeros(1, 4, 3, 8), mg.zeros(1, 3, 3, 8), mg.zeros(1, 3, 3, 8)), {"enable_gqa": True}, RuntimeError, "must divide"),
        ((mg.zeros(1, 4, 3, 8), mg.zeros(1, 2, 3, 8), mg.zeros(1, 2, 3, 8)), {}, RuntimeError, "broadcast"),
        ((mg.zeros(3, 8), mg.zeros(3, 8), mg.zeros(3, 8)), {"enable_gqa": True}, RuntimeError, "heads in dimension -3"),
    ]
    for args, options, kind, text in cases:
        with pytest.raises(kind, match=text):
            F.scaled_dot_product_attention(*args, **options)


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("keys", [7, 130])
@pytest.mark.parametrize("kind", ["keys", "full", "float", "causal", "some rows"])
def test_what_is_masked_out_does_not_count(kind, keys, path):
    """NaN and inf in keys and values: the rows that do not use them are as if they were 0."""
    rows, rng = keys if kind == "causal" else 5, RNG(0)
    q, k, v, g = (rng.standard_normal((1, 2, n, 8)).astype(np.float32) for n in (rows, keys, keys, rows))
    mask = np.ones((keys,) if kind == "keys" else (rows, keys), bool)
    mask[1 if kind == "some rows" else ..., -2:] = False
    used = slice(None)
    if kind == "some rows":
        mask[1:, -2:], used = False, slice(1, None)
    if kind == "causal":
        used = slice(0, -2)
    given = mg.tensor(np.where(mask, 0, -np.inf).astype(np.float32) if kind == "float" else mask)
    options = {"is_causal": True} if kind == "causal" else {"attn_mask": given}
    results = []
    for bad_key, bad_value in ((np.nan, np.inf), (0, 0)):
        k[..., -2:, :], v[..., -1, :], v[..., -2, :] = bad_key, bad_value, bad_key
        leaf = leaves(q, k, v)
        with set_fused(path):
            y = F.scaled_dot_product_attention(*leaf, **options)
            (y * mg.tensor(g))[..., used, :].sum().backward()
        results.append([y.detach().numpy()[..., used, :], leaf[0].grad.numpy()[..., used, :]])
        if kind not in ("causal", "some rows"):             # where some rows use them, their gradients are NaN
            results[-1] += [leaf[1].grad.numpy()[..., :-2, :], leaf[2].grad.numpy()[..., :-2, :]]
            assert (leaf[1].grad.numpy()[..., -2:, :] == 0).all() and (leaf[2].grad.numpy()[..., -2:, :] == 0).all()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("steps, heads, size", [(64, 4, 16), (150, 3, 7), (300, 2, 32), (1, 2, 5)])
def test_heads_are_read_where_they_stand(steps, heads, size, level):
    """Views of one projection have the bits of copies, forward and backward, and nothing is copied before the kernel. Keys
    whose elements are not adjacent are copied."""
    rng = RNG(1)
    x, g = (rng.standard_normal((2, steps, n * heads * size)).astype(np.float32) for n in (3, 1))
    results = []
    for copied in ((), (0, 1, 2), (1,)):
        whole, *_ = leaves(x)
        heads_of = [part.view(2, steps, heads, size).transpose(1, 2) for part in whole.chunk(3, 2)]
        if copied == (1,):
            heads_of[1] = heads_of[1].transpose(-1, -2).contiguous().transpose(-1, -2)
        else:
            heads_of = [h.contiguous() if i in copied else h for i, h in enumerate(heads_of)]
        with mg.study.trace() as trace:
            y = F.scaled_dot_product_attention(*heads_of, is_causal=True)
        moved = sum("copy" in str(launch.kernel) for launch in trace.launches)
        assert moved == (1 if copied == (1,) and steps > 1 else 0), (copied, moved)
        assert 0 in copied or y.transpose(1, 2).is_contiguous()          # merged without a copy
        y.transpose(1, 2).reshape(2, steps, -1).backward(mg.tensor(g))
        results.append((y.numpy(force=True), whole.grad.numpy()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_operands_whose_dimensions_stand_in_any_order_in_memory():
    """The bits of contiguous operands, forward and in the gradients of leaves that stand so; a gradient that comes to a leaf twice."""
    rng = RNG(2)
    orders = [(*order, 4) for order in itertools.permutations(range(4))]
    q, k, v = (rng.standard_normal((2, 3, 2, n, 5)).astype(np.float32) for n in (7, 9, 9))
    g = mg.tensor(rng.standard_normal((2, 3, 2, 7, 5)).astype(np.float32))

    def trained(*orders):
        given = [mg.tensor(a.transpose(order).copy()).permute(*np.argsort(order).tolist()).detach().requires_grad_()
                 for a, order in zip((q, k, v), orders, strict=True)]
        y = F.scaled_dot_product_attention(*given)
        y.backward(g)
        (F.scaled_dot_product_attention(*given, is_causal=True) * given[0]).backward(g)
        return [t.numpy(force=True) for t in (y, *[t.grad for t in given])]
    want = trained(*[range(5)] * 3)
    for i, order in enumerate(orders):
        for other, expected in zip(trained(order, orders[5 * i % 24], orders[7 * i % 24]), want, strict=True):
            np.testing.assert_array_equal(other, expected, err_msg=str(order))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_lowest_number_as_a_mask(dtype):
    """A row whose keys all have the lowest number: uniform weights, as the definition has, not a row without keys."""
    q, k, v = (RNG(i).standard_normal((5, 4)).astype(dtype) for i in range(3))
    mask = np.zeros((5, 5), dtype)
    mask[1], mask[2], mask[3, 1:] = -np.inf, np.finfo(dtype).min, np.finfo(dtype).min
    ours = leaves(q, k, v)
    y = F.scaled_dot_product_attention(*ours, mg.tensor(mask))
    y.sum().backward()
    y = y.numpy(force=True)
    np.testing.assert_allclose(y[2], v.mean(0), rtol=1e-5)
    np.testing.assert_array_equal([y[1], y[3]], [np.zeros(4, dtype), v[0]])
    np.testing.assert_allclose(ours[2].grad.numpy().sum(), 16, rtol=1e-5)       # four rows with keys, of four columns
    assert all(np.isfinite(t.grad.numpy()).all() for t in ours)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_near_the_largest_number(dtype, masked, sign):
    """Finite scores that are not finite in units of log 2: each row has the value of its largest score. A key counts for
    the gradient of its value only: it gets the gradients of all rows."""
    q, v = np.ones((1, 1, 7, 1)), RNG(0).standard_normal((1, 1, 5, 3))
    k = sign * np.array([0.5, 0.8, 0.9, 0.6, 0.7]).reshape(1, 1, 5, 1) * np.finfo(dtype).max
    first = 2 if sign > 0 else 0
    leaf = leaves(*(a.astype(dtype) for a in (q, k, v)))
    mask = mg.zeros(7, 5, dtype=getattr(mg, np.dtype(dtype).name)) if masked else None
    y = F.scaled_dot_product_attention(*leaf, mask, scale=1.0)
    y.sum().backward()
    np.testing.assert_array_equal(y.detach().numpy(), np.broadcast_to(v.astype(dtype)[:, :, first:first + 1], y.shape))
    np.testing.assert_array_equal(leaf[2].grad.numpy()[0, 0], 7.0 * (np.arange(5) == first)[:, None].repeat(3, 1))


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e9, 1e12])
def test_huge_scores(scale, causal, path):
    """Weights sum to 1, and gradients are those of the weights, for head sizes whose root is no power of 2."""
    for rows, keys, depth in ((8, 8, 37), (5, 130, 8), (60, 70, 33)):
        q, k = (RNG(i).standard_normal((1, 2, n, depth)) + scale ** 0.5 for i, n in enumerate((rows, keys)))
        v, g = (RNG(i).standard_normal((1, 2, n, 5)) for i, n in ((2, keys), (3, rows)))
        q, k, v, g = (a.astype(np.float32) for a in (q, k, v, g))
        exact = leaves(*(a.astype(np.float64) for a in (q, k, v)))
        leaf = leaves(q, k, v)
        with set_fused(path):
            ones = F.scaled_dot_product_attention(leaf[0].detach(), leaf[1].detach(), mg.ones(1, 2, keys, 3), is_causal=causal)
            y = F.scaled_dot_product_attention(*leaf, is_causal=causal)
            y.backward(mg.tensor(g))
        np.testing.assert_allclose(ones.numpy(), 1, 1e-5)
        if path == "auto":
            want = F.scaled_dot_product_attention(*exact, is_causal=causal)
            want.backward(mg.tensor(g.astype(np.float64)))
            tolerance = 1e-4 if scale < 1e9 else 1e-2
            np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), tolerance, tolerance)
            np.testing.assert_allclose(leaf[2].grad.numpy(), exact[2].grad.numpy(), tolerance, tolerance)
            for a, b in zip(leaf[:2], exact[:2], strict=True):
                np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-2, 1e-2 * max(1, scale ** 0.5))


def test_queries_without_elements_see_all_keys_alike():
    v = mg.arange(12.0).reshape(3, 4).requires_grad_()
    y = F.scaled_dot_product_attention(mg.ones(2, 0), mg.ones(3, 0), v)
    y.sum().backward()
    assert np.allclose(y.detach().numpy(), [[4, 5, 6, 7]] * 2) and np.allclose(v.grad.numpy(), 2 / 3)
