"""Third derivatives of normalization: where PyTorch goes wrong, silently.

    python examples/third_derivative.py

Each norm is a function y(x) of a batch. Along a line x + t v, the weighted sum

    f(t) = sum of a * y(x + t v)

is a function of one number, with derivatives f', f'', f''' of t. This program
compares three ways to find them:

- exact: f is written in NumPy, without any automatic differentiation. It is
  smooth, so it may be computed at complex t, and Cauchy's integral formula
  gives its derivatives from values on a circle, to about 13 digits.
- minigrad: grad of grad of grad. The backward of a norm is an op, derived from
  the definition of the norm. Whatever it saves, a further derivative goes back
  to the definition.
- PyTorch: the same text. The second derivatives of layer_norm, instance_norm
  and batch_norm are formulas written by hand. They read the mean and the
  deviation that forward has saved, which autograd takes for constants. So f'
  and f'' are right. f''' lacks what comes through these two, and version 2.13
  says nothing (issues 175754 and 186256 of pytorch/pytorch tell more; another
  version may refuse). Its group_norm and rms_norm are made of simpler ops
  where a second derivative is asked for, and are right.

Third derivatives are not exotic: a step of gradient descent on the curvature
(v' H v), or a meta-gradient of a gradient penalty, needs them.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from experiment import folder, option
from pictures import plot

import minigrad as mg

try:
    import torch
except ImportError:
    torch = None                                            # type: ignore[assignment]

N, C, GROUPS, EPS = 8, 6, 2, 1e-5
RNG = np.random.default_rng(0)
X, V, A = RNG.standard_normal((N, C)), 0.3 * RNG.standard_normal((N, C)), RNG.standard_normal((N, C))


class Norm(NamedTuple):
    """A norm in NumPy, for real and complex x (N, C); and in minigrad or PyTorch, given `nn.functional` of either."""

    numpy: Callable[[np.ndarray], np.ndarray]
    call: Callable[[Any, Any], Any]


def standardised(x: np.ndarray, axis: int) -> np.ndarray:
    """(x - mean) / sqrt(variance + eps) along an axis, for real and complex x."""
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis, keepdims=True) + EPS)


NORMS = {
    "layer_norm": Norm(lambda x: standardised(x, 1), lambda F, x: F.layer_norm(x, (C,))),
    # one sample with N channels of C values: the numbers of layer_norm, by other kernels
    "instance_norm": Norm(lambda x: standardised(x, 1), lambda F, x: F.instance_norm(x.unsqueeze(0)).squeeze(0)),
    "batch_norm": Norm(lambda x: standardised(x, 0), lambda F, x: F.batch_norm(x, None, None, training=True)),
    "group_norm": Norm(lambda x: standardised(x.reshape(N * GROUPS, -1), 1).reshape(x.shape),
                       lambda F, x: F.group_norm(x, GROUPS)),
    "rms_norm": Norm(lambda x: x / np.sqrt((x**2).mean(1, keepdims=True) + EPS),
                     lambda F, x: F.rms_norm(x, (C,), eps=EPS)),
}


def exact(norm: Norm, t: float, order: int, radius: float = 0.25, points: int = 64) -> float:
    """The derivative of f at t by Cauchy's formula: n! / r^n * the mean of f(t + r z) / z^n over |z| = 1."""
    z = np.exp(2j * np.pi * np.arange(points) / points)
    values = np.array([(A * norm.numpy(X + (t + radius * one) * V)).sum() for one in z])
    return float((math.factorial(order) / radius**order * (values / z**order).mean()).real)


def derivatives(library: ModuleType, norm: Norm, t: float, orders: int = 3) -> list[float]:
    """f'(t), f''(t), ... as grad of grad of ...: the same text for minigrad and PyTorch. NaN where PyTorch refuses."""
    x, v, a = (library.tensor(array) for array in (X, V, A))
    at = library.tensor(t, dtype=library.float64, requires_grad=True)
    f = (a * norm.call(library.nn.functional, x + at * v)).sum()
    found: list[float] = []
    for _ in range(orders):
        try:
            f, = library.autograd.grad(f, at, create_graph=True)
        except RuntimeError:
            if library is mg:
                raise
            return found + [math.nan] * (orders - len(found))
        found.append(f.item())
    return found


def prime(order: int) -> str:
    """The name of a derivative of f."""
    return "f" + "'" * order


def third(figure: Any, name: str) -> None:
    """f''' along the line, by all three; crosses at the bottom where PyTorch refuses."""
    t = np.linspace(-1, 1, 41)
    axes = figure.subplots()
    axes.plot(t, [exact(NORMS[name], float(one), 3) for one in t], "o", color="black", markersize=4, label="exact")
    for library, style in (mg, "C0-"), (torch, "C3--"):
        if library is not None:
            label = "minigrad" if library is mg else f"PyTorch {library.__version__}"
            values = np.array([derivatives(library, NORMS[name], float(one))[2] for one in t])
            refused = np.isnan(values)
            if not refused.all():
                axes.plot(t, values, style, label=label)
            if refused.any():
                axes.plot(t[refused], np.full(refused.sum(), 0.03), "x", color=style[:2], label=f"{label} refuses",
                          transform=axes.get_xaxis_transform())
    axes.set(title=f"{name}: third derivative along x + t v", xlabel="t", ylabel="f'''(t)")
    axes.grid(alpha=0.3)
    axes.legend()


def errors(figure: Any, rows: list[tuple[str, int, float, float, float]]) -> None:
    """The relative errors of the table as dots, on a logarithmic axis. An error of 0 is a ring at the bottom; a cross
    at the top is a derivative that PyTorch refuses."""
    axes, least = figure.subplots(), 3e-17
    ring, cross = "error 0: every digit is right", "PyTorch refuses"
    for column, label, colour, size in (4, "PyTorch", "C3", 12), (3, "minigrad", "C0", 6):
        values = np.array([row[column] for row in rows])
        for mark, name, chosen, height in (("o", label, values > 0, values), ("o", ring, values == 0, values + least),
                                           ("x", cross, np.isnan(values), np.full(len(rows), 1.0))):
            if chosen.any() and (torch or column == 3):
                axes.semilogy(np.flatnonzero(chosen), height[chosen], mark, color=colour, markersize=size,
                              label=name, fillstyle="none" if name == ring else "full")
    axes.set_xticks(range(len(rows)), [f"{prime(order)}\n{name if order == 2 else ''}" for name, order, *_ in rows])
    axes.set(title="relative error of each derivative at t = 0" + " (PyTorch is not installed)" * (torch is None),
             xlim=(-0.6, len(rows) - 0.4), ylim=(least / 3, 10))
    axes.grid(alpha=0.3)
    axes.legend()


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=folder, default=Path("runs"), help="folder for the plot (default: runs)")
    out = arguments.parse_args().out
    with option("--out"):
        out.mkdir(parents=True, exist_ok=True)

    rows = []
    print(f"{'':20} {'exact':>14} {'minigrad is off by':>20} {'PyTorch is off by':>20}")
    for name, norm in NORMS.items():
        ours = derivatives(mg, norm, 0.0)
        theirs = [math.nan] * 3 if torch is None else derivatives(torch, norm, 0.0)
        for order in (1, 2, 3):
            true = exact(norm, 0.0, order)
            off, torch_off = (abs(found[order - 1] / true - 1) for found in (ours, theirs))
            rows.append((name, order, true, off, torch_off))
            shown = "not installed" if torch is None else "refuses" if math.isnan(torch_off) else f"{torch_off:.1e}"
            print(f"{name:14} {prime(order):5} {true:14.8f} {off:20.1e} {shown:>20}"
                  + ("   <- wrong" if torch_off > 1e-6 else ""))
    if torch is None:
        print("PyTorch is not installed, so its column is empty: pip install torch")

    plot(out / "third_derivative.png", "derivatives of normalization", lambda figure: third(figure, "layer_norm"),
         lambda figure: third(figure, "batch_norm"), lambda figure: errors(figure, rows))
    print(f"plot: {out / 'third_derivative.png'}")


if __name__ == "__main__":
    main()
