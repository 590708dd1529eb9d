"""Shared by the examples: what they draw. Each function fills one figure of the plot (matplotlib's `SubFigure`)."""
from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

if lacking := [name for name in ("tqdm", "matplotlib") if find_spec(name) is None]:       # now, not when a run ends
    raise SystemExit(f"the examples need {' and '.join(lacking)}: pip install {' '.join(lacking)}")


def plot(path: Path, title: str, *pictures: Callable[[Any], None]) -> None:
    """Draws the pictures, two in a row (the last one alone if their number is odd), without a screen."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    rows = [pictures[i:i + 2] for i in range(0, len(pictures), 2)]
    heights = [4.5 if len(row) == 2 else 6.5 for row in rows]
    figure = plt.figure(figsize=(12, sum(heights)), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    strips = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, row in zip(strips, rows, strict=True):
        for part, picture in zip(strip.subfigures(1, len(row), squeeze=False)[0], row, strict=True):
            picture(part)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curves(figure: Any, history: Sequence[dict[str, dict[str, float]]]) -> None:
    """One axis for each quantity (logarithmic, unless it is the accuracy), one line for each who has it.
    A run that ended in its first epoch has none."""
    from matplotlib.ticker import LogLocator
    if not history:
        figure.text(0.5, 0.5, "no epoch is complete", ha="center")
        return
    who = list(history[-1])
    quantities = list(dict.fromkeys(name for values in history[-1].values() for name in values))
    epochs = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(len(quantities), sharex=True, squeeze=False)[:, 0], quantities, strict=True):
        for i, owner in enumerate(who):
            if name in history[-1][owner]:
                axes.plot(epochs, [h[owner][name] for h in history], color=f"C{i}", marker=".", label=owner)
        finite = any(math.isfinite(h[owner].get(name, math.nan)) for h in history for owner in who)
        axes.set_title(name if finite else f"{name}: not a finite number in any epoch")
        if name != "accuracy":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            low, high = axes.get_ylim()
            if high < 100 * low:
                if high > 3 * low:                          # else the locator chooses round numbers by itself
                    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5) if high < 10 * low else (2, 5)))
                axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(who), frameon=False)
    axes.set(xlabel="epoch", xlim=(0.5, len(history) + 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def confusion(figure: Any, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str] = ()) -> None:
    """How often each class was answered (columns) for the samples of each class (rows)."""
    n = logits.shape[1]
    names = list(classes) or [str(i) for i in range(n)]
    counts = np.zeros((n, n), int)
    np.add.at(counts, (labels, logits.argmax(1)), 1)
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(counts):
        colour = "white" if shares[i, j] > 0.5 else "black" if i == j else "crimson"
        axes.text(j, i, counts[i, j], ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(n), names, rotation=0 if max(map(len, names)) < 3 else 90)
    axes.set_yticks(range(n), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(f"test set: {np.trace(counts)} of {len(labels)} answers are right")


def mistakes(figure: Any, logits: np.ndarray, labels: np.ndarray, images: np.ndarray,
             classes: Sequence[str] = ()) -> None:
    """Images (N, C, H, W) that got a wrong answer, the most certain ones first. Where the logits are not finite, no
    certainty is known, and the answer means nothing."""
    names = list(classes) or [str(i) for i in range(logits.shape[1])]
    found = logits.argmax(1)
    known = np.isfinite(logits).all(1)
    certainty = np.full(len(logits), np.nan)
    certainty[known] = np.exp(logits[known].max(1) - np.logaddexp.reduce(logits[known], 1))
    wrong = np.flatnonzero(found != labels)
    wrong = wrong[np.argsort(-certainty[wrong])][:12]
    title = "test images with a wrong answer" if len(wrong) else "no test image has a wrong answer"
    figure.suptitle(title if known.all() else f"{title}\n(logits of {(~known).sum()} images are not finite)")
    for axes, i in zip(figure.subplots(3, 4).flat, [*wrong, *[None] * 12], strict=False):
        axes.set_axis_off()
        if i is not None:
            axes.imshow(images[i].transpose(1, 2, 0), cmap="gray_r")
            answer = f"{names[found[i]]} ({certainty[i]:.0%})" if known[i] else "not finite"
            axes.set_title(f"{answer}\nis {names[labels[i]]}", fontsize=8)


def filters(figure: Any, weight: np.ndarray, title: str) -> None:
    """The weights (outputs, C, H, W) of a first layer, one image for each output: in colours for C = 3, else the first
    channel, blue where it is negative and red where it is positive."""
    n, channels, h, w = weight.shape
    columns = math.ceil(math.sqrt(1.5 * n))
    rows = math.ceil(n / columns)
    tiles = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, 3 if channels == 3 else 1), np.nan)
    finite = np.isfinite(weight)
    top = np.abs(weight[finite]).max(initial=0) or 1.0
    for i, one in enumerate(weight):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        tiles[y:y + h, x:x + w] = one.transpose(1, 2, 0) / (2 * top) + 0.5 if channels == 3 else one[0, :, :, None]
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(title if finite.all() else f"{title}: {(~finite).sum()} of {weight.size} weights are not finite")
    if channels == 3:
        axes.imshow(np.nan_to_num(tiles, nan=1.0))
    else:
        figure.colorbar(axes.imshow(tiles[:, :, 0], cmap="RdBu_r", vmin=-top, vmax=top), ax=axes, shrink=0.7)


def heat(axes: Any, values: np.ndarray, title: str, x: str, y: str, **style: Any) -> Any:
    """A matrix as colours, with a title and the names of its axes. Returns the image, for a colour bar."""
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **style)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return image


def page(figure: Any, title: str, text: str) -> None:
    """A text in typewriter letters."""
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, 62) or [""]]
    figure.suptitle(title)
    figure.text(0.03, 0.88, "\n".join(lines[:22]), family="monospace", fontsize=8, va="top", parse_math=False)
