"""MultiheadAttention and the encoder: against torch, masked rows, refusals, captured training."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F

RNG = np.random.default_rng


def leaves(*arrays):
    return [mg.tensor(a, requires_grad=True) for a in arrays]


def theirs(*arrays):
    import torch
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def same(ours, other, tolerance, where=""):
    np.testing.assert_allclose(ours.numpy(force=True), other.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=where)


@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("mask", ["none", "bool 2d", "bool 3d", "number", "mixed", "causal"])
@pytest.mark.parametrize("options", [
    {}, {"batch_first": True}, {"bias": False, "add_zero_attn": True}, {"add_bias_kv": True}, {"kdim": 5, "vdim": 6, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}], ids=str)
def test_multihead_attention_is_torchs(torch, options, mask):
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


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_torchs(torch, norm_first):
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
