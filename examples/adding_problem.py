"""The adding problem: of 100 numbers, add the two that are marked.

A layer-normalised GRU solves it. The error of a plain RNN stays at 1/6, the
variance of the sum: it answers 1 whatever comes. Both learn from the same
sequences. The problem is from Hochreiter and Schmidhuber 1997.

    python examples/adding_problem.py

Draws both errors, the answers of both beside the true sums, and the states of
the GRU along one sequence.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from experiment import Experiment, parser
from pictures import heat

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F

STEPS, BATCHES = 100, 100       # numbers in a sequence, training steps in an epoch
LARGEST = 4096                  # sequences in a step: both nets together take about 0.3 MB for each of them


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


def error(model: Adder, x: mg.Tensor, sums: mg.Tensor) -> float:
    """The mean squared error on sequences."""
    with mg.no_grad():
        return F.mse_loss(model(x), sums).item()


def true_and_answered(figure: Any, models: dict[str, Adder], x: mg.Tensor, sums: mg.Tensor) -> None:
    """The answers of each net over the true sums."""
    axes = figure.subplots()
    axes.axline((0, 0), (2, 2), color="gray", linestyle=":", label="right")
    for name, model in models.items():
        with mg.no_grad():
            axes.scatter(sums.numpy(force=True), model(x).numpy(force=True), s=8, label=name)
    axes.set(title="500 new sequences", xlabel="true sum", ylabel="answer", xlim=(0, 2))
    axes.legend()


def states(figure: Any, model: Adder, x: mg.Tensor) -> None:
    """The states of the net while it reads a sequence x (T, 2), the units that change most first."""
    with mg.no_grad():
        found, _ = model.rnn(x.unsqueeze(0))
    values, (numbers, marks) = found[0].numpy(force=True).T, x.numpy(force=True).T
    values = values[np.argsort(-np.abs(np.diff(values)).max(1))]
    axes = figure.subplots()
    first, second = np.flatnonzero(marks)
    title = f"states of the GRU: the marked numbers are {numbers[first]:.2f} and {numbers[second]:.2f}"
    image = heat(axes, values, title, "step (dashed lines: the marked ones)", "unit", cmap="RdBu_r", vmin=-1, vmax=1)
    for step in (first, second):
        axes.axvline(step, color="black", linestyle="--", linewidth=0.8)
    figure.colorbar(image, ax=axes)


def main() -> None:
    """The command line."""
    options = parser(__doc__, epochs=20, batch_size=64, lr=4e-3).parse_args()
    with Experiment("adding_problem", options) as run:
        size = run.batch_size(LARGEST, why="which take more than a gigabyte of memory")
        models = {"GRU, layer norm": Adder("gru").to(run.device), "plain RNN": Adder("rnn").to(run.device)}
        optimizers = {name: optim.Adam(model.parameters(), lr=options.lr) for name, model in models.items()}
        x, sums = (t.to(run.device) for t in batch(500))        # before `keep`, which sets the random state
        run.keep(**models, **{f"optimizer of {name}": optimizer for name, optimizer in optimizers.items()})
        run.show(lambda figure: true_and_answered(figure, models, x, sums),
                 lambda figure: states(figure, models["GRU, layer norm"], x[0]))

        steps = [run.captured(training_step(models[name], optimizers[name])) for name in models]

        for _ in run.epochs():
            for _ in run.batches(range(BATCHES)):
                new = [t.to(run.device) for t in batch(size)]
                for step in steps:
                    step(*new)
            run.log(**{name: {"error": error(model, x, sums)} for name, model in models.items()})


if __name__ == "__main__":
    main()
