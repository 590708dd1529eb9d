"""Claim 1: which elements share statistics, seen in the Jacobian dy/dx of the real layers."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import nn
from ...core.tensor import Tensor
from ...ops.creation import tensor
from .claim import Cell, Claim, Result, Runs, Verdict, every, statement
from .plots import subplots
from .training import digits

N, C, L = 3, 4, 3               # samples, channels, positions: small enough to see each element
SAMPLE, CHANNEL, POSITION = (i.reshape(-1) for i in np.indices((N, C, L)))
GROUP = CHANNEL // (C // 2)

# how the layer is made, and what elements that share statistics have in common
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[np.ndarray, ...]]] = {
    "LayerNorm over all of a sample": (lambda: nn.LayerNorm((C, L)), (SAMPLE,)),
    "LayerNorm over channels": (lambda: nn.LayerNorm(C, axis=1), (SAMPLE, POSITION)),
    "RMSNorm over all of a sample": (lambda: nn.RMSNorm((C, L)), (SAMPLE,)),
    "GroupNorm, 2 groups": (lambda: nn.GroupNorm(2, C), (SAMPLE, GROUP)),
    "InstanceNorm": (lambda: nn.InstanceNorm1d(C), (SAMPLE, CHANNEL)),
    "BatchNorm, training": (lambda: nn.BatchNorm1d(C), (CHANNEL,)),
    "BatchNorm, evaluation": (lambda: nn.BatchNorm1d(C).eval(), (SAMPLE, CHANNEL, POSITION)),
    "no norm": (nn.Identity, (SAMPLE, CHANNEL, POSITION)),
}


def shares(keys: tuple[np.ndarray, ...]) -> np.ndarray:
    """True (elements, elements) where two elements agree in all keys."""
    return np.all([k[:, None] == k for k in keys], axis=0)


def inputs(seed: int) -> Tensor:
    """Three digits through a random matrix: float64 (N, C, L)."""
    images = digits(seed)[0].tensors[0].numpy()[:N].astype(np.float64)
    return tensor((images @ np.random.default_rng(seed).normal(size=(64, C * L))).reshape(N, C, L))


def jacobian(layer: nn.Module, x: Tensor) -> np.ndarray:
    """dy/dx (outputs, inputs) of y = layer(x), one backward pass for each row."""
    x.requires_grad_()
    y = layer(x * 1).flatten()
    rows = []
    for i in range(len(y)):
        x.grad = None
        y[i].backward(retain_graph=True)
        gradient: Any = x.grad
        rows.append(gradient.numpy().reshape(-1).copy())
    return np.array(rows)


class Jacobian(Claim):
    """The pattern of zeros of dy/dx is that of the sets which share statistics."""

    name = "jacobian"
    title = "What shares statistics"
    source = ("Ba et al. 2016, equation 3 (layer norm); Ioffe and Szegedy 2015, algorithm 1 (batch norm); Ulyanov et "
              "al. 2016 (instance norm); Wu and He 2018, figure 2 (group norm); Zhang and Sennrich 2019 (RMS norm)")
    setup = (f"Three digits, projected by a random matrix to {C} channels and {L} positions each, in float64. The full "
             f"Jacobian, {N * C * L} x {N * C * L}, comes from the engine's own backward of each layer. An output "
             "depends on an input if the entry is not exactly 0.")
    caption = ("Size of dy/dx of each layer. Rows are outputs, columns inputs, in the order sample, channel, "
               "position. White is exactly 0; the lines part the samples.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each layer."""
        for layer in LAYERS:
            yield {"layer": layer}

    def measure(self, seed: int, **settings: Any) -> Result:
        """The Jacobian, and in how many entries its zeros are not where they should be."""
        build, keys = LAYERS[settings["layer"]]
        entries = jacobian(build().double(), inputs(seed))
        wrong = int(((entries != 0) != shares(keys)).sum())
        return {"wrong": wrong, "filled": int((entries != 0).sum()),
                **({"entries": [[float(f"{e:.2g}") or 0 for e in row] for row in entries]} if seed == 0 else {})}

    def exact(self, runs: Runs, *layers: str) -> Verdict:
        """Whether the zeros of these layers are where they should be in every run."""
        found = [runs.where(layer=layer) for layer in layers]
        size = (N * C * L) ** 2
        parts = ", ".join(f"{layer}: {results[0]['filled']} of {size} entries not 0"
                          for layer, results in zip(layers, found, strict=True))
        verdict = every([r["wrong"] == 0 for results in found for r in results], "pattern exact")
        return Verdict(f"{verdict.evidence}; {parts}", verdict.holds)

    @statement("LayerNorm and RMSNorm over all of a sample: an output depends on all elements of its own sample and on "
               "no other sample.")
    def layer(self, runs: Runs) -> Verdict:
        """Channels and positions are normalized together."""
        return self.exact(runs, *[name for name in LAYERS if name.endswith("over all of a sample")])

    @statement("LayerNorm over channels: an output depends only on the channels at its own position of its own sample, "
               "and on all of these.")
    def layer_channels(self, runs: Runs) -> Verdict:
        """As in a transformer, where each position is normalized by itself."""
        return self.exact(runs, "LayerNorm over channels")

    @statement("BatchNorm in training: an output depends on its own channel in all samples of the batch and on no "
               "other channel.")
    def batch(self, runs: Runs) -> Verdict:
        """The only norm that mixes samples."""
        return self.exact(runs, "BatchNorm, training")

    @statement("BatchNorm in evaluation mode: an output depends on its own input only.")
    def batch_evaluated(self, runs: Runs) -> Verdict:
        """A constant scale and shift for each channel."""
        return self.exact(runs, "BatchNorm, evaluation")

    @statement("GroupNorm stays within a group of channels of a sample, InstanceNorm within one channel of a sample.")
    def between(self, runs: Runs) -> Verdict:
        """Both between the extremes."""
        return self.exact(runs, "GroupNorm, 2 groups", "InstanceNorm")

    def draw(self, runs: Runs) -> Any:
        """All layers, the first seed."""
        from matplotlib.colors import LogNorm
        figure, axes = subplots(2, 4, 2.5)
        for axis, layer in zip(axes.flat, runs.levels("layer"), strict=True):
            entries = np.abs(runs.where(layer=layer)[0]["entries"])
            scaled = np.ma.masked_equal(entries / entries.max(), 0)
            image = axis.imshow(scaled, cmap="viridis_r", norm=LogNorm(1e-3, 1))
            axis.grid(False)
            axis.set_title(layer, fontsize=9)
            for edge in range(C * L, N * C * L, C * L):
                axis.axhline(edge - 0.5, color="#999999", linewidth=0.7)
                axis.axvline(edge - 0.5, color="#999999", linewidth=0.7)
            middles = [C * L * (i + 0.5) - 0.5 for i in range(N)]
            axis.set_xticks(middles, [f"sample {i + 1}" for i in range(N)], fontsize=7)
            axis.set_yticks(middles, [str(i + 1) for i in range(N)], fontsize=7)
            axis.tick_params(length=0)
        figure.colorbar(image, ax=axes, shrink=0.7, label="|dy/dx| over its largest entry", pad=0.01)
        return figure
