"""Claim 2: batch normalization needs large batches; layer and group normalization do not."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import optim
from .claim import Cell, Claim, Result, Runs, Verdict, every, more, statement
from .plots import legend, levels, line, log_scale, subplots
from .training import cnn, digits, epochs, fit, mlp, seeded, test

NORMS = ("none", "batch", "layer", "group")


class BatchSize(Claim):
    """Test error of one MLP and one CNN over batch sizes."""

    name = "batch-size"
    title = "Dependence on the batch size"
    source = "Ba, Kiros and Hinton 2016, section 6.6; Wu and He 2018, figure 1"
    setup = ("An MLP (64-128-128-10) and a CNN (two convolutions of 16 channels) learn one half of the digits; the "
             "error is that on the other half, in evaluation mode. SGD with momentum 0.9, 20 epochs at every batch "
             "size. The learning rate is proportional to the batch size, 0.1 at 128, as in Wu and He: so an epoch "
             "moves the weights equally far at every batch size. In the CNN a channel has 64 or 16 values of each "
             "sample, in the MLP one: there, batch norm makes 1 and -1 of two samples, whatever their values. So the "
             "MLP is judged at batches of 4 against 128, the sizes of Ba et al.")
    caption = "Test error over the batch size: mean of the seeds, bars over their range."

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each norm at each batch size."""
        for model in ("mlp", "cnn"):
            for norm in NORMS:
                for batch in (1, 2, 4, 32, 128) if quick else (1, 2, 4, 8, 32, 128):
                    yield {"model": model, "norm": norm, "batch": batch, "lr": 0.1 * batch / 128,
                           "epochs": 1 if quick else 20}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains one network and tests it; "defined" is 0 where the norm refuses the batch."""
        flat = settings["model"] == "mlp"
        train, held_out = digits(seed, flat=flat)
        model = seeded(seed, mlp if flat else cnn, settings["norm"])
        optimizer = optim.SGD(model.parameters(), lr=settings["lr"], momentum=0.9)
        try:
            fit(model, optimizer, epochs(train, settings["batch"], settings["epochs"], seed))
        except ValueError as refused:           # "Expected more than 1 value per channel when training"
            if "more than 1 value per channel" not in str(refused):
                raise
            return {"defined": 0}
        return {"defined": 1, "error": round(test(model, held_out)[0], 3)}

    def growth(self, runs: Runs, model: str, norm: str, small: int, large: int) -> np.ndarray:
        """By how many points the error is larger at the small batch."""
        at_small, at_large = (runs.of("error", model=model, norm=norm, batch=batch) for batch in (small, large))
        return at_small - at_large

    @statement("MLP: from batch 128 down to 4, the error with batch norm grows more than that with layer norm "
               "(the shape of Ba et al., section 6.6).")
    def mlp_batch_grows(self, runs: Runs) -> Verdict:
        """Growth of the error against growth of the error."""
        return more(self.growth(runs, "mlp", "batch", 4, 128), self.growth(runs, "mlp", "layer", 4, 128),
                    ("growth with BN", "with LN"), ".2f", " points")

    @statement("CNN: from batch 32 down to 2, the error with batch norm grows more than that with group norm "
               "(the shape of Wu and He, figure 1).")
    def cnn_batch_grows(self, runs: Runs) -> Verdict:
        """The same with space in the statistics."""
        return more(self.growth(runs, "cnn", "batch", 2, 32), self.growth(runs, "cnn", "group", 2, 32),
                    ("growth with BN", "with GN"), ".2f", " points")

    @statement("CNN at batch 2: the error with batch norm is larger than that with group norm.")
    def cnn_batch_worse(self, runs: Runs) -> Verdict:
        """The errors themselves."""
        return more(runs.of("error", model="cnn", norm="batch", batch=2),
                    runs.of("error", model="cnn", norm="group", batch=2), ("BN", "GN"), ".2f", " %")

    @statement("CNN at batch 32: the error with batch norm is smaller than that with group norm.")
    def cnn_batch_better(self, runs: Runs) -> Verdict:
        """Where the batch is large enough, batch norm is said to be the better one."""
        return more(runs.of("error", model="cnn", norm="group", batch=32),
                    runs.of("error", model="cnn", norm="batch", batch=32), ("GN", "BN"), ".2f", " %")

    @statement("MLP: batch norm is not defined for a batch of one sample: the layer refuses to train on it.")
    def refused(self, runs: Runs) -> Verdict:
        """It would subtract each value from itself."""
        return every([d == 0 for d in runs.of("defined", model="mlp", norm="batch", batch=1)], "refused")

    def draw(self, runs: Runs) -> Any:
        """One plot for each network."""
        figure, axes = subplots(1, 2, sharey=True)
        for axis, model, title in zip(axes[0], ("mlp", "cnn"), ("MLP", "CNN"), strict=True):
            for norm in NORMS:
                sizes = [b for b in runs.levels("batch") if all(runs.of("defined", model=model, norm=norm, batch=b))]
                line(axis, norm, sizes, np.transpose([runs.of("error", model=model, norm=norm, batch=b)
                                                      for b in sizes]))
            axis.set_title(title)
            levels(axis, "batch size", runs.levels("batch"))
        axes[0, 0].set_ylabel("test error in %")
        log_scale(axes[0, 0])
        legend(figure, axes[0, 0])
        return figure
