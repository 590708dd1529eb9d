"""Claim 6: whether batch normalization regularizes, and whether a smaller batch does so more."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import optim
from .claim import Cell, Claim, Result, Runs, Verdict, more, statement
from .plots import legend, levels, line, log_scale, subplots
from .training import digits, epochs, fit, mlp, seeded, test

METHODS = ("none", "batch", "layer", "dropout")
COUNT = 100                     # training samples


class Regularization(Claim):
    """The gap between training and test with few samples."""

    name = "regularization"
    title = "Regularization"
    source = "Ioffe and Szegedy 2015, section 3.4; Luo et al. 2019; Srivastava et al. 2014 (dropout)"
    setup = (f"The MLP of claim 2 learns {COUNT} digits for 200 epochs and is tested on 898 others: without norm, with "
             "batch norm, layer norm, or dropout of one half. SGD with momentum 0.9; the learning rate is "
             "proportional to the batch size, 0.1 at 50. The gap is test loss minus training loss, both in evaluation "
             "mode; where the training loss is almost 0, the gap is the test loss, so the numbers name both.")
    caption = ("Over the batch size: the gap between test and training loss, the test error, and the training loss. "
               "Bars: range of the seeds.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each method at each batch size."""
        for norm in METHODS:
            for batch in (10, 50) if quick else (5, 10, 25, 50):
                yield {"norm": norm, "batch": batch, "lr": 0.1 * batch / 50, "epochs": 20 if quick else 200}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains one network, and tests it on both sets."""
        norm = settings["norm"]
        train, held_out = digits(seed, count=COUNT)
        model = seeded(seed, mlp, "none" if norm == "dropout" else norm, 128, 0.5 * (norm == "dropout"))
        optimizer = optim.SGD(model.parameters(), lr=settings["lr"], momentum=0.9)
        fit(model, optimizer, epochs(train, settings["batch"], settings["epochs"], seed))
        (_, fitted), (error, loss) = test(model, train), test(model, held_out)
        return {"gap": loss - fitted, "error": error, "train": fitted}

    def compare(self, runs: Runs, name: str, worse: str, better: str) -> Verdict:
        """Whether the gap or the error of one method is larger than that of another, at batches of 10."""
        short = {"none": "none", "batch": "BN", "layer": "LN", "dropout": "dropout"}
        form, unit = (".3f", "") if name == "gap" else (".2f", " %")
        verdict = more(runs.of(name, norm=worse, batch=10), runs.of(name, norm=better, batch=10),
                       (short[worse], short[better]), form, unit)
        if name == "error":
            return verdict
        losses = [f"{short[norm]} {np.mean(runs.of('train', norm=norm, batch=10)):.4f}" for norm in (worse, better)]
        return Verdict(f"{verdict.evidence}; mean training losses: {', '.join(losses)}", verdict.holds)

    @statement("At batches of 10, the test error is smaller with batch norm than with layer norm.")
    def batch_below_layer(self, runs: Runs) -> Verdict:
        """Layer norm adds no noise: what batch norm gains beyond it is the regularization by noise."""
        return self.compare(runs, "error", "layer", "batch")

    @statement("At batches of 10, the test error is smaller with batch norm than without norm.")
    def batch_error(self, runs: Runs) -> Verdict:
        """What regularization is for. All runs fit their training set, so this is the gap between the errors too."""
        return self.compare(runs, "error", "none", "batch")

    @statement("At batches of 10, the gap between the losses is smaller with batch norm than without norm.")
    def batch_gap(self, runs: Runs) -> Verdict:
        """The loss also tells how sure the wrong answers are."""
        return self.compare(runs, "gap", "none", "batch")

    @statement("At batches of 10, the test error is smaller with layer norm than without norm.")
    def layer_error(self, runs: Runs) -> Verdict:
        """The control: if it holds, normalization without noise is enough."""
        return self.compare(runs, "error", "none", "layer")

    @statement("At batches of 10, the gap between the losses is smaller with layer norm than without norm.")
    def layer_gap(self, runs: Runs) -> Verdict:
        """The same of the losses."""
        return self.compare(runs, "gap", "none", "layer")

    @statement("With batch norm, the gap between the losses is smaller at batches of 10 than at 50: smaller batches "
               "regularize more.")
    def smaller_batch(self, runs: Runs) -> Verdict:
        """The noise of the statistics grows as the batch shrinks."""
        return more(runs.of("gap", norm="batch", batch=50), runs.of("gap", norm="batch", batch=10),
                    ("batch 50", "batch 10"), ".3f")

    @statement("At batches of 10, the test error is smaller with dropout than without anything.")
    def dropout_error(self, runs: Runs) -> Verdict:
        """The regularizer that batch norm is compared with."""
        return self.compare(runs, "error", "none", "dropout")

    @statement("At batches of 10, the gap between the losses is smaller with dropout than without anything.")
    def dropout_gap(self, runs: Runs) -> Verdict:
        """The same of the losses."""
        return self.compare(runs, "gap", "none", "dropout")

    def draw(self, runs: Runs) -> Any:
        """Gap, error and training loss."""
        figure, axes = subplots(1, 3, 2.9)
        sizes = runs.levels("batch")
        titles = {"gap": "test loss - training loss", "error": "test error in %", "train": "training loss"}
        for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
            for norm in METHODS:
                line(axis, norm, sizes, np.transpose([runs.of(name, norm=norm, batch=b) for b in sizes]))
            axis.set_title(title)
            levels(axis, "batch size", sizes)
        log_scale(axes[0, 2])
        legend(figure, axes[0, 0])
        return figure
