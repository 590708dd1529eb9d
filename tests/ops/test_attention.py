"""Attention and embeddings beyond their samples: against torch, masked rows, memory, capture, refusals."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn, optim
from minigrad.core.op import set_fused
from minigrad.devices import cpu, memory
from minigrad.devices.native import get_num_threads, set_num_threads
from minigrad.nn import functional as F

try:
    import torch
except ImportError:
    torch = None
with_torch = pytest.mark.skipif(torch is None, reason="torch is not installed: the comparison with it is skipped")
RNG = np.random.default_rng


def leaves(*arrays):
    return [mg.tensor(a, requires_grad=True) for a in arrays]


def theirs(*arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def same(ours, other, tolerance, where=""):
    np.testing.assert_allclose(ours.numpy(force=True), other.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=where)


# ---- scaled_dot_product_attention ---------------------------------------------------------------------------------------------

SHAPES = [((2, 3), 5, 7, 4, 3), ((1,), 130, 300, 17, 33), ((2,), 300, 130, 8, 8), ((), 61, 61, 1, 1), ((2, 1), 128, 128, 32, 32)]
MASKS = {"none": None, "bool": lambda r, b, n, s: r.random((n, s)) < 0.6, "number": lambda r, b, n, s: r.standard_normal((n, s)),
         "keys": lambda r, b, n, s: r.random((*b, 1, s)) < 0.6, "infinite": lambda r, b, n, s: np.where(r.random((n, s)) < 0.5, -np.inf, 0.0),
         "rows": lambda r, b, n, s: r.standard_normal((n, 1)), "causal": None}


@with_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sdpa_is_torchs(shape, mask, dtype):
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


@with_torch
@pytest.mark.parametrize("mask", [None, (5, 7), (2, 1, 5, 7), (1, 4, 5, 7)], ids=str)
def test_grouped_queries(mask):
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
    op = registry["_attention"]
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

        def counted(self, layout, fresh=fresh, total=total):
            total[0] += layout.nbytes
            return fresh(self, layout)
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


@settings(max_examples=60, deadline=None)
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


# ---- MultiheadAttention and the encoder -----------------------------------------------------------------------------------------

@with_torch
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("mask", ["none", "bool 2d", "bool 3d", "number", "mixed", "causal"])
@pytest.mark.parametrize("options", [
    {}, {"batch_first": True}, {"bias": False, "add_zero_attn": True}, {"add_bias_kv": True}, {"kdim": 5, "vdim": 6, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}], ids=str)
def test_multihead_attention_is_torchs(options, mask):
    rng, (n, length, source, size, heads) = RNG(8), (3, 5, 5, 8, 2)
    first = options.get("batch_first", False)
    torch.manual_seed(0)
    other = torch.nn.MultiheadAttention(size, heads, **options).double()
    ours = nn.MultiheadAttention(size, heads, **options).double()
    ours.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    shapes = [(n, length, size), (n, source, options.get("kdim", size)), (n, source, options.get("vdim", size))]
    arrays = [rng.standard_normal(s if first else (s[1], s[0], s[2])) for s in shapes]
    padding = np.arange(source) >= np.array([[5], [3], [2]])
    causal = np.triu(np.ones((length, source), bool), 1)
    masks = {"none": {}, "bool 2d": {"attn_mask": causal, "key_padding_mask": padding}, "causal": {"attn_mask": causal, "is_causal": True},
             "bool 3d": {"attn_mask": np.repeat(causal[None], n * heads, 0)}, "number": {"attn_mask": rng.standard_normal((length, source))},
             "mixed": {"attn_mask": rng.standard_normal((length, source)), "key_padding_mask": padding}}[mask]
    for need, average, shared in ((True, True, False), (True, False, False), (False, True, True)):
        inputs = [arrays[0]] * 3 if shared and "kdim" not in options else arrays
        mine, its = leaves(*inputs), theirs(*inputs)
        if inputs[0] is inputs[1]:
            mine, its = mine[:1] * 3, its[:1] * 3
        extra = bool(options.get("add_bias_kv") or options.get("add_zero_attn"))
        chosen = {k: v for k, v in masks.items() if not (k == "is_causal" and extra)}        # torch then hides the added keys
        y, w = ours(*mine, need_weights=need, average_attn_weights=average, **{k: mg.tensor(v) if k != "is_causal" else v for k, v in chosen.items()})
        z, u = other(*its, need_weights=need, average_attn_weights=average,
                     **{k: torch.tensor(v) if k != "is_causal" else v for k, v in chosen.items()})
        same(y, z, 1e-10)
        assert (w is None) == (u is None)
        if w is not None:
            same(w, u, 1e-10)
        for m in (ours, other):
            m.zero_grad()
        (y * y).sum().backward()
        (z * z).sum().backward()
        for a, b in zip([*mine, *ours.parameters()], [*its, *other.parameters()], strict=True):
            same(a.grad, b.grad, 1e-9)


def test_masked_rows_of_multihead_attention():
    """The deviation from PyTorch: 0 weights and finite gradients, in training too."""
    layer, x = nn.MultiheadAttention(8, 2), mg.randn(3, 2, 8, requires_grad=True)
    padding = mg.tensor(np.array([[True, True, True], [False, False, True]]))
    y, w = layer(x, x, x, key_padding_mask=padding)
    assert not w[0].numpy(force=True).any() and np.isfinite(y.numpy(force=True)).all()
    np.testing.assert_allclose(y[:, 0].numpy(force=True), np.broadcast_to(layer.out_proj.bias.numpy(force=True), (3, 8)), atol=1e-7)
    (y.sum() + (w * w).sum()).backward()
    assert np.isfinite(x.grad.numpy()).all() and all(np.isfinite(p.grad.numpy()).all() for p in layer.parameters())


@with_torch
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_torchs(norm_first):
    torch.manual_seed(0)
    other = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=norm_first), 2,
                                        torch.nn.LayerNorm(8), enable_nested_tensor=False).double()
    ours = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=norm_first), 2,
                                 nn.LayerNorm(8), enable_nested_tensor=False).double()
    ours.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    x = RNG(9).standard_normal((2, 6, 8))
    padding = np.arange(6) >= np.array([[6], [4]])
    mask = nn.TransformerEncoder.generate_square_subsequent_mask(6, dtype=mg.float64)
    np.testing.assert_array_equal(mask.numpy(), torch.nn.Transformer.generate_square_subsequent_mask(6).numpy())
    for options in ({}, {"mask": mask}, {"mask": mask, "is_causal": True}, {"src_key_padding_mask": mg.tensor(padding)}):
        converted = {k: torch.tensor(v.numpy()) if isinstance(v, mg.Tensor) else v for k, v in options.items()}
        same(ours(mg.tensor(x), **options), other(torch.tensor(x), **converted), 1e-10, str(list(options)))


def test_module_refusals():
    x, layer = mg.zeros(3, 2, 8), nn.MultiheadAttention(8, 2)
    cases = [
        (lambda: nn.MultiheadAttention(8, 3), AssertionError, "divisible"), (lambda: nn.MultiheadAttention(0, 3), ValueError, "greater than 0"),
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh"), RuntimeError, "activation must be"),
        (lambda: layer(mg.zeros(3, 2, 7), x, x), AssertionError, "embed_dim = 8"), (lambda: layer(x, mg.zeros(4, 2, 8), x), AssertionError, "one shape"),
        (lambda: layer(x, x, x, attn_mask=mg.zeros(2, 3)), RuntimeError, "attn_mask must be"),
        (lambda: layer(x, x, x, attn_mask=mg.zeros(3, 3, dtype=mg.int64)), AssertionError, "bool or floating"),
        (lambda: layer(x, x, x, key_padding_mask=mg.zeros(3, 2)), AssertionError, r"key_padding_mask must be \(N, S\)"),
        (lambda: layer(x, x, x, key_padding_mask=mg.zeros(3)), AssertionError, "key_padding_mask must have 2 dimensions"),
        (lambda: layer(x, x, x, is_causal=True), RuntimeError, "hint about attn_mask"), (lambda: layer(x, x, x[0]), AssertionError, "3 dimensions"),
        (lambda: layer(x, mg.zeros(3, 1, 8), mg.zeros(3, 1, 8)), RuntimeError, "batch size"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()


# ---- Embedding ------------------------------------------------------------------------------------------------------------------

@with_torch
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"padding_idx": -1, "scale_grad_by_freq": True}, {"max_norm": 1.0},
                                     {"max_norm": 0.7, "norm_type": 1.0, "padding_idx": 0}], ids=str)
@pytest.mark.parametrize("index", [np.array([[1, 2, 2], [4, 0, 2]]), np.array(3), np.zeros((0, 2), np.int64), np.array([1, 1], np.int32)], ids=str)
def test_embedding_is_torchs(options, index):
    other, ours = torch.nn.Embedding(5, 3, **options).double(), nn.Embedding(5, 3, **options).double()
    assert repr(ours) == repr(other) and list(ours.state_dict()) == list(other.state_dict())
    ours.load_state_dict({"weight": other.weight.detach().numpy().copy()})
    y, z = ours(mg.tensor(index)), other(torch.tensor(index))
    same(y, z, 1e-12)
    same(ours.weight, other.weight, 1e-12)
    (y * y).sum().backward()
    (z * z).sum().backward()
    same(ours.weight.grad, other.weight.grad, 1e-12)


def test_embedding_from_pretrained_and_refusals():
    values = RNG(10).standard_normal((4, 3))
    frozen, free = nn.Embedding.from_pretrained(mg.tensor(values)), nn.Embedding.from_pretrained(mg.tensor(values), freeze=False)
    assert not frozen.weight.requires_grad and free.weight.requires_grad
    np.testing.assert_array_equal(frozen(mg.tensor([3, 1])).numpy(), values[[3, 1]])
    padded = nn.Embedding(50, 40, padding_idx=-1)
    assert not padded.weight[49].numpy(force=True).any() and abs(padded.weight.numpy(force=True)[:49].std() - 1) < 0.1
    cases = [
        (lambda: padded(mg.tensor([50])), IndexError, "index 50 is out of range"), (lambda: padded(mg.tensor([-1])), IndexError, "index -1"),
        (lambda: padded(mg.tensor([0.5])), RuntimeError, "int32 or int64"), (lambda: padded([1]), TypeError, "input must be a Tensor"),
        (lambda: nn.Embedding(4, 3, sparse=True), NotImplementedError, "sparse"), (lambda: nn.Embedding(4, 3, 4), AssertionError, "padding_idx"),
        (lambda: nn.Embedding(4, 3, _weight=mg.zeros(3, 3)), AssertionError, "num_embeddings"),
        (lambda: F.embedding(mg.tensor([0]), mg.zeros(3)), RuntimeError, "two dimensions"),
        (lambda: F.embedding(mg.tensor([0]), mg.zeros(3, 2), sparse=True), NotImplementedError, "sparse"),
        (lambda: nn.Embedding.from_pretrained(mg.zeros(3)), AssertionError, "two dimensions"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()


# ---- capture --------------------------------------------------------------------------------------------------------------------

class Model(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.embed = nn.Embedding(11, 16, padding_idx=0)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout, "gelu", batch_first=True, norm_first=True), 2, nn.LayerNorm(16))
        self.head = nn.Linear(16, 11)

    def forward(self, tokens, mask, padding):
        return self.head(self.encoder(self.embed(tokens), mask, padding, is_causal=True))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_captured_training_is_eager_training(dropout, padded):
    """A pre-norm transformer with Embedding and Adam: 20 steps, the same bits; dropout draws fresh numbers."""
    rng = RNG(11)
    batches = [(mg.tensor(rng.integers(0, 11, (3, 9))), mg.tensor(rng.integers(0, 11, (3, 9)))) for _ in range(20)]
    runs = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(5)
        model = Model(dropout)
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        mask = nn.TransformerEncoder.generate_square_subsequent_mask(9)

        def step(x, t, model=model, optimizer=optimizer, mask=mask):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x, mask, x == 0 if padded else None).reshape(-1, 11), t.reshape(-1))
            loss.backward()
            optimizer.step()
            return loss
        run = wrap(step)
        losses = [run(x, t).item() for x, t in batches]
        runs.append((losses, [p.numpy(force=True).copy() for p in model.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert np.isfinite(runs[0][0]).all()
