"""Claim 5: batch normalization speeds up convolutional networks; layer normalization falls behind there."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import optim
from .claim import Cell, Claim, Result, Runs, Verdict, more, statement
from .plots import band, legend, levels, line, log_scale, subplots
from .training import cnn, digits, epochs, fit, seeded, test, thinned

NORMS = ("none", "batch", "layer", "group")
GOAL, WINDOW = 0.1, 5           # the loss to reach, as a mean over so many steps
DEPTH = 3                       # convolutions at each resolution


def steps_to(losses: list[float], goal: float) -> int | None:
    """The first step after which the mean loss of the last WINDOW steps is at most `goal`; None if there is none."""
    means = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    reached = np.flatnonzero(means <= goal)
    return int(reached[0]) + WINDOW if len(reached) else None


class Convergence(Claim):
    """Steps to a given training loss, over learning rates."""

    name = "convergence"
    title = "Convergence of convolutional networks"
    source = "Ioffe and Szegedy 2015, section 4.2; Ba et al. 2016, section 6.7; Wu and He 2018"
    setup = (f"A CNN of {2 * DEPTH} convolutions of 16 channels, with the initial values of He et al. 2015, learns "
             "half of the digits: 200 steps of SGD with momentum 0.9, batches of 64, five learning rates. Counted are "
             f"the steps until the mean training loss of the last {WINDOW} steps is at most {GOAL}; a run that never "
             "gets there counts as all its steps. Each norm stands at its best learning rate, that with the fewest "
             "steps or the smallest error. Layer norm takes channels and space together, and has a weight and a bias "
             "for each element; batch norm has them for each channel.")
    caption = (f"Left: steps to a loss of {GOAL} over the learning rate. Middle: loss curves at the learning rate with "
               "the fewest steps. Right: test error at the end. Bars and bands: range of the seeds.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each norm at each learning rate."""
        for norm in NORMS:
            for lr in (0.03, 0.1) if quick else (0.003, 0.01, 0.03, 0.1, 0.3):
                yield {"norm": norm, "lr": lr, "steps": 15 if quick else 200}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains one network and tests it."""
        steps = settings["steps"]
        train, held_out = digits(seed, flat=False)
        model = seeded(seed, cnn, settings["norm"], 16, DEPTH)
        batches = list(epochs(train, 64, steps * 64 // len(train) + 2, seed))[:steps]
        losses = fit(model, optim.SGD(model.parameters(), lr=settings["lr"], momentum=0.9), batches)
        reached = steps_to(losses, GOAL)
        return {"steps_to": steps if reached is None else reached, "error": round(test(model, held_out)[0], 3),
                "curve": thinned(losses, steps), "parameters": sum(p.numel() for p in model.parameters())}

    def compare(self, runs: Runs, slow: str, fast: str) -> Verdict:
        """Whether one norm needs more steps than another, each at its best learning rate."""
        short = {"none": "none", "batch": "BN", "layer": "LN", "group": "GN"}
        return more(runs.best("steps_to", "lr", norm=slow), runs.best("steps_to", "lr", norm=fast),
                    (short[slow], short[fast]), ".0f", " steps")

    @statement("Batch norm needs fewer steps than no norm.")
    def batch_faster(self, runs: Runs) -> Verdict:
        """The claim of Ioffe and Szegedy."""
        return self.compare(runs, "none", "batch")

    @statement("Layer norm needs more steps than batch norm.")
    def layer_behind(self, runs: Runs) -> Verdict:
        """What Ba et al. report of convolutional networks."""
        verdict = self.compare(runs, "layer", "batch")
        layer, batch = (int(runs.of("parameters", norm=norm)[0]) for norm in ("layer", "batch"))
        return Verdict(f"{verdict.evidence}; LN has {layer:,} parameters, BN {batch:,}", verdict.holds)

    @statement("Layer norm needs fewer steps than no norm.")
    def layer_faster(self, runs: Runs) -> Verdict:
        """Behind batch norm, yet ahead of none."""
        return self.compare(runs, "none", "layer")

    @statement("Layer norm ends with a larger test error than batch norm, each at its best learning rate.")
    def layer_error(self, runs: Runs) -> Verdict:
        """The error instead of the steps."""
        return more(runs.best("error", "lr", norm="layer"), runs.best("error", "lr", norm="batch"), ("LN", "BN"), ".2f",
                    " %")

    def draw(self, runs: Runs) -> Any:
        """Steps, curves, errors."""
        figure, axes = subplots(1, 3, 2.9)
        lrs, steps = runs.levels("lr"), runs.levels("steps")[0]
        for norm in NORMS:
            counts = [runs.of("steps_to", norm=norm, lr=lr) for lr in lrs]
            line(axes[0, 0], norm, lrs, np.transpose(counts))
            curves = runs.of("curve", norm=norm, lr=lrs[int(np.argmin(np.mean(counts, 1)))])
            band(axes[0, 1], norm, (np.arange(curves.shape[1]) + 0.5) * steps / curves.shape[1], curves)
            line(axes[0, 2], norm, lrs, np.transpose([runs.of("error", norm=norm, lr=lr) for lr in lrs]))
        levels(axes[0, 0], "learning rate", lrs)
        levels(axes[0, 2], "learning rate", lrs)
        axes[0, 1].axhline(GOAL, color="#333333", linewidth=0.8, linestyle=":")
        axes[0, 0].set(title=f"steps to a loss of {GOAL}", ylabel="steps", ylim=(0, steps * 1.04))
        axes[0, 1].set(title="training loss, best learning rate", xlabel="step")
        axes[0, 2].set(title="test error in %")
        log_scale(axes[0, 1])
        log_scale(axes[0, 2])
        legend(figure, axes[0, 0])
        return figure
