"""`Transformer` and its decoder; PyTorch's module database compares both in test_against_torch.py."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_decoder_is_causal_and_reads_the_memory(norm_first):
    mg.manual_seed(0)
    layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first, activation="gelu")
    decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8)).eval()
    tgt, memory, mask = mg.randn(2, 5, 8), mg.randn(2, 3, 8), nn.Transformer.generate_square_subsequent_mask(5)
    assert mask.tolist()[1][:3] == [0.0, 0.0, -np.inf]
    y = decoder(tgt, memory, tgt_mask=mask)
    changed = tgt.clone()
    changed[:, 3:, 0] += 2.0
    z = decoder(changed, memory, tgt_mask=mask, tgt_is_causal=True)
    np.testing.assert_allclose(y.detach().numpy()[:, :3], z.detach().numpy()[:, :3], rtol=1e-5, atol=1e-6)
    assert not np.allclose(y.detach().numpy()[:, 3:], z.detach().numpy()[:, 3:])
    hidden = mg.tensor([[False, False, True]] * 2)
    other = memory.clone()
    other[:, 2, 0] += 5.0
    np.testing.assert_allclose(*[decoder(tgt, m, memory_key_padding_mask=hidden).detach().numpy() for m in (memory, other)], rtol=1e-5, atol=1e-6)
    assert not np.allclose(*[decoder(tgt, m).detach().numpy() for m in (memory, other)])


def test_a_transformer_learns_to_copy():
    mg.manual_seed(0)
    model = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)
    embed, out = nn.Embedding(6, 16), nn.Linear(16, 6)
    parameters = [*model.parameters(), *embed.parameters(), *out.parameters()]
    o, mask, losses = mg.optim.Adam(parameters, lr=5e-3), nn.Transformer.generate_square_subsequent_mask(4), []
    for _ in range(60):
        words = mg.randint(0, 5, (16, 4))
        before = mg.cat([mg.full((16, 1), 5, dtype=mg.int64), words[:, :-1]], 1)
        scores = out(model(embed(words), embed(before), tgt_mask=mask))
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), words.flatten())
        o.zero_grad()
        loss.backward()
        o.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0] and all(p.grad is not None for p in model.parameters())


def test_own_parts_and_errors():
    class Mean(nn.Module):
        def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
            return src.mean(0, keepdim=True)
    model = nn.Transformer(8, 2, num_decoder_layers=1, custom_encoder=Mean())
    assert model(mg.ones(5, 2, 8), mg.ones(3, 2, 8)).shape == (3, 2, 8)
    for src, tgt, text in (((5, 2, 8), (3, 1, 8), "batch number"), ((5, 2, 6), (3, 2, 6), "feature number")):
        with pytest.raises(RuntimeError, match=text):
            model(mg.ones(*src), mg.ones(*tgt))
    with pytest.raises(TypeError, match="must be a Module; got int"):
        nn.TransformerDecoder(3, 2)
    with pytest.raises(RuntimeError, match=r"\[TransformerDecoderLayer\] activation must be"):
        nn.TransformerDecoderLayer(8, 2, activation="tanh")
