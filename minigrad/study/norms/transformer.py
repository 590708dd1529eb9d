"""Claim 4: where the norm of a transformer stands decides which learning rates it can be trained with."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import nn, optim
from ...core.shape import BOOL
from ...core.tensor import Tensor
from ...ops.creation import arange, ones
from .claim import Cell, Claim, Result, Runs, Verdict, more, statement
from .plots import band, legend, levels, line, log_scale, subplots
from .training import CEILING, ending, fit, seeded, text_batches, text_windows, thinned

PLACES = ("none", "post", "pre")
LENGTH, WIDTH, LAYERS = 32, 32, 6
SHOWN = 0.003                   # the learning rate of the loss curves


class Reader(nn.Module):
    """Characters (N, T) -> logits (N * T, characters) of the next ones; `place` of the norms is none, post or pre."""

    def __init__(self, characters: int, place: str) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(characters, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True, norm_first=place == "pre")
        if place == "none":
            layer.norm1 = layer.norm2 = nn.Identity()       # type: ignore[assignment]
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH) if place == "pre" else None)
        self.head = nn.Linear(WIDTH, characters)
        self.register_buffer("later", ones(LENGTH, LENGTH, dtype=BOOL).triu(1))
        self.register_buffer("places", arange(LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y = self.encoder(self.embedding(x) + self.position(self.places), mask=self.later, is_causal=True)
        return self.head(y).flatten(0, 1)


def entropy(characters: Tensor) -> float:
    """The loss of a guess that knows only how frequent each character is."""
    share = np.bincount(characters.numpy().ravel()) / characters.numel()
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


class Transformer(Claim):
    """Final loss and divergence over learning rates."""

    name = "transformer"
    title = "Transformers: pre-norm, post-norm, none"
    source = "Xiong et al. 2020, figures 1 to 3; Vaswani et al. 2017 (post-norm); Ba et al. 2016"
    setup = (f"Decoders of {LAYERS} layers, width {WIDTH}, four heads, predict each next character of windows of "
             f"{LENGTH} characters of CPython's documentation. 300 steps of Adam on batches of 16, without warm-up, "
             "clipping or dropout, at six learning rates. A run has failed if, over the last tenth of the steps, its "
             "loss is less than 2 % below the entropy of the character frequencies: it has learned next to nothing "
             "from the characters before. How many runs fail depends on these 2 %. A loss that is not finite, or above "
             f"{CEILING:g}, counts as {CEILING:g}.")
    caption = ("Left: final training loss over the learning rate. Middle: share of runs that failed. Right: loss "
               "curves at learning rate 0.003. Bars and bands: range of the seeds.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each place of the norm at each learning rate."""
        for norm in PLACES:
            for lr in (SHOWN, 1e-2) if quick else (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
                yield {"norm": norm, "lr": lr, "steps": 10 if quick else 300}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains one network."""
        windows, characters = text_windows(LENGTH)
        model = seeded(seed, Reader, characters, settings["norm"])
        losses = fit(model, optim.Adam(model.parameters(), lr=settings["lr"]),
                     text_batches(windows, 16, settings["steps"], seed))
        final = ending(losses, settings["steps"])
        curve = {"curve": thinned(losses, settings["steps"])} if settings["lr"] == SHOWN else {}
        return {"final": final, "failed": int(final > 0.98 * entropy(windows)), **curve}

    def failed(self, runs: Runs, norm: str) -> np.ndarray:
        """The share of runs that failed, over all learning rates, in % for each seed."""
        return 100 * np.mean([runs.of("failed", norm=norm, lr=lr) for lr in runs.levels("lr")], axis=0)

    def rates(self, runs: Runs, norm: str) -> str:
        """At which learning rates runs fail, and what share of them if not all."""
        shares = {lr: 100 * float(np.mean(runs.of("failed", norm=norm, lr=lr))) for lr in runs.levels("lr")}
        listed = [f"{lr:g}" + f" ({share:.0f} %)" * (share < 100) for lr, share in shares.items() if share]
        return f"{norm} fails at {', '.join(listed)}" if listed else f"{norm} never fails"

    def fails_less(self, runs: Runs, norm: str) -> Verdict:
        """Whether a smaller share of runs fails with pre-norm, and where each fails."""
        verdict = more(self.failed(runs, norm), self.failed(runs, "pre"), (norm, "pre"), ".0f", " %")
        return Verdict(f"{self.rates(runs, norm)}, {self.rates(runs, 'pre')}: {verdict.evidence}", verdict.holds)

    @statement("Over all learning rates, a smaller share of runs fails with pre-norm than with post-norm.")
    def pre_fails_less(self, runs: Runs) -> Verdict:
        """The claim of Xiong et al."""
        return self.fails_less(runs, "post")

    @statement("Over all learning rates, a smaller share of runs fails with pre-norm than without norm.")
    def none_fails(self, runs: Runs) -> Verdict:
        """Whether the norm is needed at all."""
        return self.fails_less(runs, "none")

    @statement("Each at its best learning rate: the final loss with pre-norm is lower than with post-norm.")
    def pre_better(self, runs: Runs) -> Verdict:
        """Speed of training without warm-up."""
        return more(runs.best("final", "lr", norm="post"), runs.best("final", "lr", norm="pre"), ("post", "pre"), ".3f")

    @statement("Each at its best learning rate: the final loss with pre-norm is lower than without norm.")
    def none_worse(self, runs: Runs) -> Verdict:
        """What the norm brings at all."""
        return more(runs.best("final", "lr", norm="none"), runs.best("final", "lr", norm="pre"), ("none", "pre"), ".3f")

    def draw(self, runs: Runs) -> Any:
        """Loss and failures over the learning rate, and curves."""
        figure, axes = subplots(1, 3, 2.9)
        lrs, steps = runs.levels("lr"), runs.levels("steps")[0]
        for norm in PLACES:
            line(axes[0, 0], norm, lrs, np.transpose([runs.of("final", norm=norm, lr=lr) for lr in lrs]))
            line(axes[0, 1], norm, lrs, np.transpose([100 * runs.of("failed", norm=norm, lr=lr) for lr in lrs]))
            curves = runs.of("curve", norm=norm, lr=SHOWN)
            band(axes[0, 2], norm, (np.arange(curves.shape[1]) + 0.5) * steps / curves.shape[1], curves)
        levels(axes[0, 0], "learning rate", lrs)
        levels(axes[0, 1], "learning rate", lrs)
        axes[0, 0].set(title="final loss", ylabel="cross entropy")
        axes[0, 1].set(title="failed runs", ylabel="share in %")
        axes[0, 2].set(title=f"loss at learning rate {SHOWN:g}", xlabel="step")
        log_scale(axes[0, 0])
        log_scale(axes[0, 2])
        legend(figure, axes[0, 0])
        return figure
