"""A pre-norm transformer learns to write like CPython's documentation, or a
text of yours, character by character.

    python examples/char_transformer.py
    python examples/char_transformer.py --epochs 8 --resume
    python examples/char_transformer.py --text book.txt --out book

Prints a sample after every epoch, and bits per character on the last tenth of
the text, which is not trained on. Draws the curves, a sample, and the
attention of each head.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment import Experiment, longest_line, parser, sample
from pictures import heat, page

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F

LENGTH = 64


class CharTransformer(nn.Module):
    """Tokens (N, T <= length) -> logits (N, T, characters). Each position attends to itself and to earlier ones."""

    def __init__(self, characters: int, width: int = 96, heads: int = 4, layers: int = 3, dropout: float = 0.1,
                 length: int = LENGTH) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, activation="gelu", batch_first=True,
                                           norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, characters)
        later = mg.ones(length, length, dtype=mg.bool).triu(1)          # True: not attended to
        self.register_buffer("mask", later, persistent=False)
        self.register_buffer("places", mg.arange(length), persistent=False)

    def forward(self, tokens: mg.Tensor) -> mg.Tensor:
        """Logits (N, T, characters) of the next character at each position."""
        n = tokens.shape[1]
        x = self.embedding(tokens) + self.position(self.places[:n])
        return self.head(self.encoder(x, mask=self.mask[:n, :n], is_causal=True))


def loss_of(model: nn.Module, window: mg.Tensor) -> mg.Tensor:
    """Mean cross entropy of each next character. window: (N, T + 1) tokens."""
    return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


def training_step(model: nn.Module, optimizer: optim.Optimizer) -> Callable[..., mg.Tensor]:
    """One step on windows (N, T + 1); returns the loss."""
    def step(window: mg.Tensor) -> mg.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, window)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss
    return step


def write(model: CharTransformer, tokenizer: data.CharTokenizer, start: str, count: int = 200) -> str:
    """A text of `count` characters after `start`, drawn one after the other."""
    model.eval()
    tokens = tokenizer.encode(start).to(model.places.device)
    with mg.no_grad():
        for _ in range(count):
            logits = model(tokens[-model.length:].unsqueeze(0))[0, -1]
            tokens = mg.cat([tokens, sample(logits)])
    model.train()
    return tokenizer.decode(tokens)


def attention(figure: Any, model: CharTransformer, tokenizer: data.CharTokenizer, text: str) -> None:
    """How much each character (rows) attends to itself and the ones before it (columns), in every layer and head."""
    tokens = tokenizer.encode(text).to(model.places.device)
    n = len(tokens)
    mask, weights = model.mask[:n, :n], []
    model.eval()
    with mg.no_grad():
        x = (model.embedding(tokens) + model.position(model.places[:n])).unsqueeze(0)
        for layer in model.encoder.layers:
            normed = layer.norm1(x)
            weights.append(layer.self_attn(normed, normed, normed, attn_mask=mask, average_attn_weights=False)[1][0])
            x = layer(x, src_mask=mask)
    model.train()
    figure.suptitle(f"attention in {text!r}: from the character of a row to those of the columns")
    grid = figure.subplots(len(weights), len(weights[0]), squeeze=False)
    for i, (row, layer) in enumerate(zip(grid, weights, strict=True)):
        for j, (axes, head) in enumerate(zip(row, layer.numpy(force=True), strict=True)):
            image = heat(axes, head, f"layer {i + 1}, head {j + 1}", "", "", cmap="Blues", vmin=0, vmax=1)
            axes.set_box_aspect(1)
            for ticks in axes.set_xticks, axes.set_yticks:
                ticks(range(n), text, fontsize=7, family="monospace")
            axes.tick_params(length=0, pad=2)
    figure.colorbar(image, ax=grid, shrink=0.5, label="share of the attention")


def held_out_loss(model: nn.Module, windows: mg.Tensor) -> float:
    """The mean loss on windows (N, T + 1), in evaluation mode."""
    model.eval()
    with mg.no_grad():
        losses = [loss_of(model, batch).item() for batch in windows.split(64)]
    model.train()
    return sum(losses) / len(losses)


def main() -> None:
    """The command line."""
    arguments = parser(__doc__, epochs=6, batch_size=32, lr=2e-3)
    arguments.add_argument("--text", type=Path, help="a file to learn from instead of CPython's documentation")
    options = arguments.parse_args()
    with Experiment("char_transformer", options) as run:
        window = LENGTH + 1
        tokenizer, train, held_out = run.corpus(least=window)
        test = held_out[:len(held_out) // window * window].reshape(-1, window).to(run.device)
        windows = data.TensorDataset(train[:len(train) // window * window].reshape(-1, window))
        size = run.batch_size(len(windows))
        loader = data.DataLoader(windows, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = CharTransformer(len(tokenizer)).to(run.device)
        optimizer = optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
        run.keep(model=model, optimizer=optimizer, loader=loader)
        line = longest_line(tokenizer.decode(held_out[:2000]))
        run.show(lambda figure: page(figure, "a text that it wrote", write(model, tokenizer, line[:4], 700)),
                 lambda figure: attention(figure, model, tokenizer, line[:16]))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            loss = run.mean(step(batch.to(run.device)).item() for batch, in run.batches(loader))
            print(f"---\n{write(model, tokenizer, line[:4])}\n---")
            run.log(train={"bits/character": loss / math.log(2)},
                    test={"bits/character": held_out_loss(model, test) / math.log(2)})


if __name__ == "__main__":
    main()
