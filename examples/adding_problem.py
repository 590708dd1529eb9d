"""The adding problem (Hochreiter and Schmidhuber 1997): of 100 numbers, add the two that are marked.

A layer-normalised GRU solves it. The error of a plain RNN stays at 1/6, the variance of the sum. One plot shows both.

    python examples/adding_problem.py
"""
from __future__ import annotations

import argparse
from collections.abc import Callable

from experiment import Experiment, axes, parser

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F

STEPS, BATCHES = 100, 100       # numbers in a sequence, training steps in an epoch


class Adder(nn.Module):
    """Sequences (N, T, 2) of (number, mark) -> sums (N,), read from the last hidden state."""

    def __init__(self, kind: str, hidden: int = 64) -> None:
        super().__init__()
        self.rnn: nn.Module
        if kind == "gru":
            self.rnn = nn.GRU(2, hidden, batch_first=True, norm="layer")
        else:
            self.rnn = nn.RNN(2, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        """The sums (N,) of the marked numbers in x (N, T, 2)."""
        _, h = self.rnn(x)
        return self.head(h[-1]).squeeze(-1)


def batch(n: int, steps: int = STEPS) -> tuple[mg.Tensor, mg.Tensor]:
    """New sequences (n, steps, 2) of uniform numbers, with one mark in each half; and the sums (n,)."""
    numbers = mg.rand(n, steps)
    half = steps // 2
    first = F.one_hot(mg.randint(0, half, (n,)), half)
    second = F.one_hot(mg.randint(0, steps - half, (n,)), steps - half)
    marks = mg.cat([first, second], 1).float()
    return mg.stack([numbers, marks], -1), (numbers * marks).sum(1)


def training_step(model: Adder, optimizer: optim.Optimizer) -> Callable[..., mg.Tensor]:
    """One step on a batch; returns the loss."""
    def step(x: mg.Tensor, sums: mg.Tensor) -> mg.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), sums)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss
    return step


def train(kind: str, options: argparse.Namespace) -> list[float]:
    """Trains one net. Returns the mean squared error on new sequences after each epoch."""
    run = Experiment(f"adding_problem_{kind}", options)
    model = Adder(kind).to(run.device)
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    run.keep(model=model, optimizer=optimizer)

    step = run.captured(training_step(model, optimizer))

    for _ in run.epochs():
        losses = []
        for _ in range(BATCHES):
            x, sums = batch(options.batch_size)
            losses.append(step(x.to(run.device), sums.to(run.device)).item())
        x, sums = batch(500)
        with mg.no_grad():
            error = F.mse_loss(model(x.to(run.device)), sums.to(run.device)).item()
        run.log(loss=sum(losses) / len(losses), error=error)
    run.finish()
    return [h["error"] for h in run.history]


def main() -> None:
    """The command line."""
    options = parser(__doc__, epochs=20, batch_size=64, lr=4e-3).parse_args()
    curves = {"layer-normalised GRU": train("gru", options), "plain RNN": train("rnn", options)}
    figure, plot = axes()
    for name, errors in curves.items():
        plot.semilogy(range(1, len(errors) + 1), errors, label=name)
    plot.axhline(1 / 6, color="gray", linestyle=":", label="always answering 1")
    plot.set_xlabel(f"epoch ({BATCHES} batches of {options.batch_size})")
    plot.set_ylabel("mean squared error")
    plot.legend()
    picture = options.out / "adding_problem.png"
    figure.savefig(picture, dpi=100)
    print(f"errors: {', '.join(f'{name} {errors[-1]:.5f}' for name, errors in curves.items())}; plot in {picture}")


if __name__ == "__main__":
    main()
