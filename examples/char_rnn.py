"""A layer-normalised LSTM learns to write like CPython's documentation, or a
text of yours, character by character.

    python examples/char_rnn.py
    python examples/char_rnn.py --epochs 10 --resume
    python examples/char_rnn.py --text book.txt --out book

Prints a sample after every epoch, and bits per character on the last tenth of
the text, which is not trained on. Draws the curves, a sample, and the states
of the net while it reads a line.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from experiment import Experiment, cosine, longest_line, option, parser, sample
from pictures import heat, page

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F

LENGTH = 64         # gradients flow through this many steps; the state goes on to the next window

State = tuple[mg.Tensor, mg.Tensor]     # (h, c), each (layers, N, hidden)


class CharRNN(nn.Module):
    """Tokens (N, T) and a state -> logits (N, T, characters) and the next state."""

    def __init__(self, characters: int, hidden: int = 192, layers: int = 1, norm: str | None = "layer") -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 64)
        self.lstm = nn.LSTM(64, hidden, layers, batch_first=True, norm=norm, forget_bias=1.0)
        self.head = nn.Linear(hidden, characters)

    def forward(self, tokens: mg.Tensor, state: State) -> tuple[mg.Tensor, State]:
        """Logits (N, T, characters) and the state after the last token."""
        y, state = self.lstm(self.embedding(tokens), state)
        return self.head(y), state

    def start(self, n: int) -> State:
        """The state before the first token of n sequences: zeros."""
        shape = (self.lstm.num_layers, n, self.lstm.hidden_size)
        device = self.head.weight.device
        return mg.zeros(shape, device=device), mg.zeros(shape, device=device)


class Carried(nn.Module):
    """The state between two windows, as a part of the checkpoint: an epoch that was interrupted goes on with it."""

    def __init__(self, h: mg.Tensor, c: mg.Tensor) -> None:
        super().__init__()
        self.register_buffer("h", h)
        self.register_buffer("c", c)


def streams(tokens: mg.Tensor, n: int) -> list[mg.Tensor]:
    """The text as n parallel streams, cut into successive windows (n, LENGTH + 1).

    A window begins with the last character of the window before: each character but the first is predicted once.
    """
    length = (len(tokens) - 1) // (n * LENGTH) * LENGTH
    if not length:
        raise ValueError(f"must be at most {(len(tokens) - 1) // LENGTH}, so that each of the streams has {LENGTH} of "
                         f"the {len(tokens)} characters to train on; got {n}")
    rows = mg.stack([tokens[i * length:(i + 1) * length + 1] for i in range(n)])
    return [rows[:, i:i + LENGTH + 1].contiguous() for i in range(0, length, LENGTH)]


def loss_of(model: CharRNN, window: mg.Tensor, state: State) -> tuple[mg.Tensor, State]:
    """Mean cross entropy of each next character. window: (N, T + 1) tokens."""
    logits, state = model(window[:, :-1], state)
    return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten()), state


def training_step(model: CharRNN, optimizer: optim.Optimizer) -> Callable[..., tuple[mg.Tensor, ...]]:
    """One step on windows (N, T + 1) from a state (h, c). Returns the loss and the next h and c, detached."""
    def step(window: mg.Tensor, h: mg.Tensor, c: mg.Tensor) -> tuple[mg.Tensor, ...]:
        optimizer.zero_grad()
        loss, state = loss_of(model, window, (h, c))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss, *[s.detach() for s in state]
    return step


def write(model: CharRNN, tokenizer: data.CharTokenizer, start: str, count: int = 200) -> str:
    """A text of `count` characters after `start`, drawn one after the other."""
    tokens, state = tokenizer.encode(start).to(model.head.weight.device), model.start(1)
    pieces = [tokens]
    with mg.no_grad():
        for _ in range(count):
            logits, state = model(pieces[-1].unsqueeze(0), state)
            pieces.append(sample(logits[0, -1]))
    return tokenizer.decode(mg.cat(pieces))


def reading(figure: Any, model: CharRNN, tokenizer: data.CharTokenizer, text: str) -> None:
    """The cell states while the net reads a text: the units that are most at odds with themselves along it."""
    with mg.no_grad():
        x = model.embedding(tokenizer.encode(text).to(model.head.weight.device).unsqueeze(0))
        values = model.lstm(x)[0][0].numpy(force=True).T
    values = values[np.argsort(-values.std(1))][:40]
    axes = figure.subplots()
    figure.colorbar(heat(axes, values, "the 40 hidden states that change most", "character that was read", "unit",
                         cmap="RdBu_r", vmin=-1, vmax=1), ax=axes)
    axes.set_xticks(range(len(text)), [c.replace("\n", "\N{RETURN SYMBOL}") for c in text], family="monospace")


def held_out_loss(model: CharRNN, windows: list[mg.Tensor]) -> float:
    """The mean loss over successive windows; the state goes from each to the next."""
    state, losses = model.start(len(windows[0])), []
    with mg.no_grad():
        for window in windows:
            loss, state = loss_of(model, window, state)
            losses.append(loss.item())
    return sum(losses) / len(losses)


def main() -> None:
    """The command line."""
    arguments = parser(__doc__, epochs=8, batch_size=32, lr=4e-3)
    arguments.add_argument("--text", type=Path, help="a file to learn from instead of CPython's documentation")
    options = arguments.parse_args()
    with Experiment("char_rnn", options) as run:
        tokenizer, train, held_out = run.corpus(least=8 * LENGTH + 1)
        with option("--batch-size"):
            windows = [w.to(run.device) for w in streams(train, options.batch_size)]
        test = [w.to(run.device) for w in streams(held_out, 8)]
        model = CharRNN(len(tokenizer)).to(run.device)
        optimizer = optim.Adam(model.parameters(), lr=options.lr)
        scheduler = optim.lr_scheduler.LambdaLR(optimizer, cosine(options.epochs))
        state = Carried(*model.start(options.batch_size)).to(run.device)
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler, state=state)
        line = longest_line(tokenizer.decode(held_out[:2000]))
        run.show(lambda figure: page(figure, "a text that it wrote", write(model, tokenizer, line[:4], 700)),
                 lambda figure: reading(figure, model, tokenizer, line[:70]))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            if not run.steps:
                state.h, state.c = model.start(options.batch_size)
            for window in run.batches(windows):
                loss, state.h, state.c = step(window, state.h, state.c)
                run.losses.append(loss.item())
            scheduler.step()
            print(f"---\n{write(model, tokenizer, line[:4])}\n---")
            run.log(train={"bits/character": run.mean() / math.log(2)},
                    test={"bits/character": held_out_loss(model, test) / math.log(2)})


if __name__ == "__main__":
    main()
