"""Claim 8: layer normalization is the same in training and evaluation, alone and in any batch; batch norm is not."""
from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np

from ... import data, nn, optim
from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...ops.creation import tensor
from .claim import Cell, Claim, Result, Runs, Verdict, every, more, statement
from .plots import legend, levels, line, subplots
from .training import cnn, digits, epochs, fit, mlp, seeded

NORMS = ("batch", "layer")
SIZES = (2, 4, 8, 32, 128, 512)
SAME_BITS_IN = (1, 2, 3, 7, 64)     # batches that a sample is put in, besides one of 257
WIDTHS = (5, 64, 100, 513)      # with and without a rest after whole vectors


@no_grad()
def both_modes(model: nn.Module, held_out: data.TensorDataset, batch: int) -> tuple[float, float, float]:
    """How the modes differ on the test set, in %: logits, predictions, and the error in training mode."""
    images, labels = (t[:512] for t in held_out.tensors)
    evaluated = deepcopy(model).eval()(images)
    training = deepcopy(model)                  # a copy: its running statistics move
    parts = [training(images[i:i + batch]).numpy().copy() for i in range(0, 512, batch)]
    trained, wanted = np.concatenate(parts), evaluated.numpy()
    change = np.linalg.norm(trained - wanted) / np.linalg.norm(wanted)
    guess = trained.argmax(1)
    return (100 * float(change), 100 * float((guess != wanted.argmax(1)).mean()),
            100 * float((guess != labels.numpy()).mean()))


def differing_bits(width: int, seed: int) -> int:
    """How many samples of a LayerNorm's output or input gradient have other bits alone than inside a batch."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(257, width)).astype(np.float32)
    layer = nn.LayerNorm(width)

    def passed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        leaf: Tensor = tensor(rows, requires_grad=True)
        y = layer(leaf)
        (y * y * y).sum().backward()
        assert leaf.grad is not None
        return y.numpy(force=True).copy(), leaf.grad.numpy().copy()
    together = passed(x)
    count = 0
    for size in SAME_BITS_IN:
        for start in range(0, 64, size):
            apart = passed(x[start:start + size])
            count += sum(int((a.view(np.uint32) != b[start:start + size].view(np.uint32)).any(1).sum())
                         for a, b in zip(apart, together, strict=True))
    return count


class Modes(Claim):
    """The same input in both modes over batch sizes, and one sample alone and in a batch."""

    name = "modes"
    title = "Training against evaluation"
    source = "Ba et al. 2016, section 3; Ioffe and Szegedy 2015, section 3.1"
    setup = ("The MLP and the CNN of claim 2, trained for 10 epochs at batches of 32 with batch norm or layer norm, "
             "get the same 512 test digits in evaluation mode and, in batches of each size, in training mode. Change "
             "is the norm of the difference of the logits over that of the logits. Then a LayerNorm in float32 gets "
             "64 samples alone, in batches of 2, 3, 7 and 64, and in one of 257: outputs and input gradients are "
             "compared bit by bit.")
    caption = ("Training mode against evaluation mode on the same test digits, over the batch size: change of the "
               "logits, and predictions that change. Layer norm stands at 0 everywhere. Bars: range of the seeds.")

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each network with each norm, and each width of a LayerNorm."""
        for model in ("mlp", "cnn"):
            for norm in NORMS:
                yield {"model": model, "norm": norm, "epochs": 1 if quick else 10}
        for width in WIDTHS:
            yield {"width": width}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Trains a network and compares its modes, or compares bits."""
        if "width" in settings:
            return {"differing": differing_bits(settings["width"], seed)}
        flat = settings["model"] == "mlp"
        train, held_out = digits(seed, flat=flat)
        model = seeded(seed, mlp if flat else cnn, settings["norm"])
        fit(model, optim.SGD(model.parameters(), lr=0.025, momentum=0.9), epochs(train, 32, settings["epochs"], seed))
        found = [both_modes(model, held_out, size) for size in SIZES]
        return {"change": [f[0] for f in found], "flips": [f[1] for f in found], "error": [f[2] for f in found]}

    @statement("LayerNorm: output and input gradient of a sample have the same bits alone and inside any batch.")
    def same_bits(self, runs: Runs) -> Verdict:
        """Reductions are split by shape, never by what else is there."""
        counts = [int(n) for width in WIDTHS for n in runs.of("differing", width=width)]
        return every([n == 0 for n in counts], f"no bit differs, widths {', '.join(map(str, WIDTHS))},")

    @statement("Networks with layer norm: the logits in training mode equal those in evaluation mode.")
    def layer_same(self, runs: Runs) -> Verdict:
        """Up to rounding of the matrix products, whose order may depend on the batch."""
        changes = [c for model in ("mlp", "cnn") for c in runs.of("change", model=model, norm="layer").ravel()]
        verdict = every([c < 1e-3 for c in changes], "change below 0.001 %")
        return Verdict(f"{verdict.evidence}; largest {max(changes):.1e} %", verdict.holds)

    @statement("CNN and MLP with batch norm: the logits change more between the modes at batches of 4 than at 128.")
    def batch_changes(self, runs: Runs) -> Verdict:
        """The mean of the two networks."""
        changes = np.mean([runs.of("change", model=model, norm="batch") for model in ("mlp", "cnn")], axis=0)
        return more(changes[:, SIZES.index(4)], changes[:, SIZES.index(128)], ("change at 4", "at 128"), ".1f", " %")

    @statement("MLP with batch norm: at batches of 4, more test digits are wrong in training mode than at 128.")
    def batch_errors(self, runs: Runs) -> Verdict:
        """Why one must not forget `model.eval()`."""
        errors = runs.of("error", model="mlp", norm="batch")
        return more(errors[:, SIZES.index(4)], errors[:, SIZES.index(128)], ("error at 4", "at 128"), ".1f", " %")

    def draw(self, runs: Runs) -> Any:
        """Change of logits and predictions, for each network."""
        figure, axes = subplots(1, 2, 2.9)
        for axis, (name, title) in zip(axes[0], (("change", "change of the logits in %"),
                                                 ("flips", "predictions that change, in %")), strict=True):
            for norm in NORMS:
                for model, style in (("mlp", "-"), ("cnn", "--")):
                    line(axis, norm, SIZES, runs.of(name, model=model, norm=norm), linestyle=style,
                         suffix=f", {model.upper()}")
            axis.set_title(title)
            levels(axis, "batch size", SIZES)
        legend(figure, axes[0, 0])
        return figure
