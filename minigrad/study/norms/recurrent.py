"""Claim 3: layer normalization makes recurrent networks stable."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import data, nn, optim
from ...core.tensor import Tensor
from ...nn import functional as F
from .claim import Cell, Claim, Result, Runs, Verdict, all_of, more, statement
from .plots import band, legend, levels, line, log_scale, subplots
from .training import CEILING, digits, ending, epochs, fit, seeded, text_batches, text_windows, thinned

KINDS = ("RNN", "GRU", "LSTM")
NORMS = ("none", "layer", "batch")
LENGTH = 64                     # characters of a window
SHOWN = 1.0                     # the learning rate of the loss curves
BACK = 40                       # how far back the gradient is compared


class Reader(nn.Module):
    """Images (N, 8, 8), a row in each step, or characters (N, T) -> logits, at the last step or at all (N * T, ...)."""

    def __init__(self, kind: str, norm: str, characters: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 16) if characters else None
        options = {} if norm == "none" else {"norm": norm, "norm_max_length": LENGTH if norm == "batch" else None}
        self.rnn = getattr(nn, kind)(16 if characters else 8, 64, batch_first=True, **options)
        self.head = nn.Linear(64, characters or 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.embedding is None:
            return self.head(self.rnn(x)[0][:, -1])
        return self.head(self.rnn(self.embedding(x))[0]).flatten(0, 1)

    def gradients(self, characters: Tensor, labels: Tensor) -> list[float]:
        """The norm of the gradient of the last step's loss by the input of each step, mean over the batch."""
        assert self.embedding is not None
        x = self.embedding(characters).detach().requires_grad_()
        last = labels.reshape(characters.shape)[:, -1]
        F.cross_entropy(self.head(self.rnn(x)[0][:, -1]), last, reduction="sum").backward()
        assert x.grad is not None
        return [float(f"{g:.3g}") for g in np.linalg.norm(x.grad.numpy(), axis=2).mean(0)]


class Recurrent(Claim):
    """Loss, divergence and gradients through time, over learning rates."""

    name = "recurrent"
    title = "Stability of recurrent networks"
    source = "Ba et al. 2016, sections 3.1 and 6; Cooijmans et al. 2016 (batch norm in recurrence)"
    setup = ("RNN, GRU and LSTM with 64 hidden units, plain, with layer norm and with batch norm inside the "
             f"recurrence. They read digits row by row (8 steps, batches of 32) and windows of {LENGTH} characters of "
             "CPython's documentation (batches of 16, predicting each next character). 300 steps of SGD with momentum "
             "0.9, without clipping, at six learning rates. A run has diverged if its loss is not finite or, over the "
             "last tenth of the steps, is above that of a uniform guess. Losses that are not finite or above "
             f"{CEILING:g} count as {CEILING:g}. Batch norm starts with weight 0.1, as in Cooijmans et al., layer norm "
             "with 1. Gradients through time are measured before training: the norm of the gradient of the last step's "
             "loss by each earlier input.")
    caption = ("From above: final training loss over the learning rate on digits, then on text; share of runs that "
               "diverged, both data sets together; loss curves on text at learning rate 1; size of the gradient by "
               "the input so many steps before the loss. Bars and bands: range of the seeds.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each network at each learning rate."""
        for task in ("rows", "text"):
            for kind in KINDS:
                for norm in NORMS:
                    for lr in (0.1, 1.0) if quick else (0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
                        yield {"task": task, "kind": kind, "norm": norm, "lr": lr, "steps": 10 if quick else 300}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains one network; for text, looks at its gradients before."""
        steps = settings["steps"]
        shown: Result = {}
        if settings["task"] == "rows":
            train, classes = digits(seed)[0], 10
            images, labels = train.tensors
            rows = data.TensorDataset(images.reshape(-1, 8, 8), labels)
            model = seeded(seed, Reader, settings["kind"], settings["norm"])
            batches = list(epochs(rows, 32, -(-steps * 32 // len(labels)) + 1, seed))[:steps]
        else:
            windows, classes = text_windows(LENGTH)
            model = seeded(seed, Reader, settings["kind"], settings["norm"], classes)
            batches = list(text_batches(windows, 16, steps, seed))
            if settings["lr"] == SHOWN:
                shown["gradients"] = model.gradients(*batches[0])
        losses = fit(model, optim.SGD(model.parameters(), lr=settings["lr"], momentum=0.9), batches)
        if shown:
            shown["curve"] = thinned(losses, steps)
        final = ending(losses, steps)
        return {"final": final, "diverged": int(final > math.log(classes)), **shown}

    def diverged(self, runs: Runs, kind: str, norm: str) -> np.ndarray:
        """The share of runs that diverged, over both data sets and all learning rates, in % for each seed."""
        return 100 * np.mean([runs.of("diverged", task=task, kind=kind, norm=norm, lr=lr)
                              for task in ("rows", "text") for lr in runs.levels("lr")], axis=0)

    def fewer(self, runs: Runs, kind: str) -> Verdict:
        """Whether layer norm has a smaller share of diverged runs."""
        return more(self.diverged(runs, kind, "none"), self.diverged(runs, kind, "layer"), ("without", "with LN"),
                    ".0f", " %")

    @statement("RNN: over all learning rates, a smaller share of runs diverges with layer norm than without.")
    def rnn_diverges(self, runs: Runs) -> Verdict:
        """The plain recurrence."""
        return self.fewer(runs, "RNN")

    @statement("GRU: over all learning rates, a smaller share of runs diverges with layer norm than without.")
    def gru_diverges(self, runs: Runs) -> Verdict:
        """Gates alone stabilize too."""
        return self.fewer(runs, "GRU")

    @statement("LSTM: over all learning rates, a smaller share of runs diverges with layer norm than without.")
    def lstm_diverges(self, runs: Runs) -> Verdict:
        """The cell of Ba et al."""
        return self.fewer(runs, "LSTM")

    def better(self, runs: Runs, kind: str, norm: str, name: str) -> Verdict:
        """On text: whether the final loss is below that without norm, each at its best learning rate."""
        return more(runs.best("final", "lr", task="text", kind=kind, norm="none"),
                    runs.best("final", "lr", task="text", kind=kind, norm=norm), ("loss without", f"with {name}"),
                    ".3f")

    @statement("RNN, GRU and LSTM on text, each at its best learning rate: the final loss is lower with layer norm "
               "than without.")
    def layer_better(self, runs: Runs) -> Verdict:
        """Speed of training, at equal numbers of steps."""
        return all_of({kind: self.better(runs, kind, "layer", "LN") for kind in KINDS})

    @statement("LSTM on text, each at its best learning rate: the final loss is lower with batch norm than without.")
    def batch_better(self, runs: Runs) -> Verdict:
        """The claim of Cooijmans et al."""
        return self.better(runs, "LSTM", "batch", "BN")

    @statement("RNN, GRU and LSTM on text at the small learning rate 0.1: the final loss is lower with layer norm than "
               "without.")
    def faster(self, runs: Runs) -> Verdict:
        """Without norm, the best learning rates are larger ones."""
        def final(kind: str, norm: str) -> np.ndarray:
            return runs.of("final", task="text", kind=kind, norm=norm, lr=0.1)
        return all_of({kind: more(final(kind, "none"), final(kind, "layer"), ("without", "with LN"), ".3f")
                       for kind in KINDS})

    @statement(f"RNN, GRU and LSTM before training: the gradient {BACK} steps back, over that by the last input, is "
               "larger with layer norm than without (its power of ten).")
    def gradient_kept(self, runs: Runs) -> Verdict:
        """The gradient by the input so far back, over that by the last input."""
        def left(kind: str, norm: str) -> np.ndarray:
            gradients = runs.of("gradients", task="text", kind=kind, norm=norm, lr=SHOWN)
            return np.log10(gradients[:, -1 - BACK] / gradients[:, -1])
        return all_of({kind: more(left(kind, "layer"), left(kind, "none"), ("with LN", "without"), ".1f")
                       for kind in KINDS})

    def draw(self, runs: Runs) -> Any:
        """Five rows of plots, a column for each kind."""
        figure, axes = subplots(5, 3, 2.1, sharey="row")
        lrs = runs.levels("lr")
        for column, kind in zip(axes.T, KINDS, strict=True):
            column[0].set_title(kind)
            for norm in NORMS:
                for axis, task in zip(column, ("rows", "text"), strict=False):
                    line(axis, norm, lrs, np.transpose([runs.of("final", task=task, kind=kind, norm=norm, lr=lr)
                                                           for lr in lrs]))
                line(column[2], norm, lrs, np.transpose(
                    [50 * (runs.of("diverged", task="rows", kind=kind, norm=norm, lr=lr)
                           + runs.of("diverged", task="text", kind=kind, norm=norm, lr=lr)) for lr in lrs]))
                curves = runs.of("curve", task="text", kind=kind, norm=norm, lr=SHOWN)
                steps = runs.levels("steps")[0]
                band(column[3], norm, (np.arange(curves.shape[1]) + 0.5) * steps / curves.shape[1], curves)
                gradients = runs.of("gradients", task="text", kind=kind, norm=norm, lr=SHOWN)
                band(column[4], norm, np.arange(LENGTH), gradients[:, ::-1])
            for axis in column[:3]:
                levels(axis, "learning rate", lrs)
            column[3].set_xlabel("step")
            column[4].set_xlabel("steps before the loss")
        for row in (0, 1, 3, 4):
            log_scale(axes[row, 0])
        for axis, label in zip(axes[:, 0], ("final loss, digits", "final loss, text", "diverged in %",
                                            f"loss, text, lr {SHOWN:g}", "gradient norm"), strict=True):
            axis.set_ylabel(label)
        legend(figure, axes[0, 0])
        return figure
