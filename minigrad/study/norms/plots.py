"""How the pictures look: one colour and one mark for each norm in all of them, safe for colour-blind readers."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

STYLE = {                       # label, colour (Okabe and Ito 2008), mark
    "none": ("none", "#555555", "o"),
    "batch": ("batch norm", "#D55E00", "s"),
    "layer": ("layer norm", "#0072B2", "^"),
    "group": ("group norm", "#009E73", "D"),
    "instance": ("instance norm", "#CC79A7", "v"),
    "rms": ("RMS norm", "#E69F00", "P"),
    "dropout": ("dropout", "#8B6BB1", "X"),
    "pre": ("layer norm, pre", "#332288", "^"),
    "post": ("layer norm, post", "#56B4E9", "v"),
}


def subplots(rows: int, columns: int, height: float = 3.2, width: float = 9.0, **options: Any) -> tuple[Any, Any]:
    """A figure that fits a page, and the array (rows, columns) of its axes."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def line(axis: Any, norm: str, x: Any, values: Any, suffix: str = "", **options: Any) -> None:
    """The mean of `values` (seeds, points) over x, with bars over the range of the seeds; x is logarithmic."""
    label, color, mark = STYLE[norm]
    mean = np.mean(values, 0)
    shifted = np.multiply(x, 1.02 ** (list(STYLE).index(norm) - 2))         # so that bars stand side by side
    axis.errorbar(shifted, mean, np.maximum([mean - np.min(values, 0), np.max(values, 0) - mean], 0), color=color,
                  marker=mark, markersize=4.5, linewidth=1.4, elinewidth=0.9, capsize=2, label=label + suffix,
                  **options)


def band(axis: Any, norm: str, x: Any, values: Any, **options: Any) -> None:
    """The mean of `values` (seeds, points) over x, with the range of the seeds as a band."""
    label, color, _ = STYLE[norm]
    axis.plot(x, np.mean(values, 0), color=color, linewidth=1.5, label=label, **options)
    axis.fill_between(x, np.min(values, 0), np.max(values, 0), color=color, alpha=0.15, linewidth=0)


def legend(figure: Any, axis: Any, columns: int = 5) -> None:
    """One legend for all axes, above them, where it covers nothing."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.4)


def levels(axis: Any, label: str, values: Sequence[float]) -> None:
    """A logarithmic x axis with a tick at each of the values."""
    axis.set(xlabel=label, xscale="log")
    axis.set_xticks(values, [f"{v:g}" for v in values])
    axis.xaxis.minorticks_off()


def log_scale(axis: Any) -> None:
    """A logarithmic y axis with plain numbers: 1, 2, 5, 10 over a short range, powers of ten over a long one."""
    from matplotlib.ticker import FuncFormatter, LogLocator
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    marks = (1, 2, 3, 5) if high / low < 20 else (1, 2, 5) if high / low < 300 else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=marks, numticks=6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.minorticks_off()
