"""Matrix products of 200 shapes, timed in turn with NumPy's and PyTorch's on one thread.

    taskset -c 1 python tests/benchmarks/products.py                    all; about two minutes
    taskset -c 1 python tests/benchmarks/products.py --kind nt          x @ y.T only
    taskset -c 1 python tests/benchmarks/products.py --only 128x1000x784 --blocks 15

A shape is (m, k) times (k, n), written m x n x k, in float32, without a graph. Its kind says which operands are
transposed views: "n" as they lie, "t" transposed. Prints the five shapes where minigrad takes most of the faster of the
two others, and how many it loses. NumPy and PyTorch may share their BLAS with the whole process: both are held to one
thread. `--all` prints every shape.
"""
from __future__ import annotations

import argparse
from itertools import product

import numpy as np

import minigrad as mg
from minigrad.bench.timing import Run, interleaved, us

SQUARES = (1, 2, 4, 8, 16, 32, 48, 64, 100, 128, 200, 256, 384, 512, 1000, 1024)
THIN = (1, 8, 1000)             # all shapes of these but for the squares
LAYERS = ((32, 64, 64), (32, 10, 64), (4, 1000, 784), (128, 1000, 784), (128, 10, 1000), (256, 256, 128),
          (64, 512, 128), (512, 64, 28), (1024, 96, 256), (784, 1000, 128))
KINDS = ("nn", "nt", "tn", "tt")


def shapes() -> list[tuple[int, int, int]]:
    """The m, n, k of the grid."""
    thin = [s for s in product(THIN, repeat=3) if len(set(s)) > 1]
    return [(n, n, n) for n in SQUARES] + thin + list(LAYERS)


def runs(m: int, n: int, k: int, kind: str) -> dict[str, Run]:
    """A product for each framework: minigrad, NumPy, and PyTorch if it is installed."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s if t == "n" else s[::-1]).astype(np.float32)
            for s, t in zip(((m, k), (k, n)), kind, strict=True))

    def of(convert: Run) -> Run:
        a, b = convert(x), convert(y)
        a, b = a if kind[0] == "n" else a.T, b if kind[1] == "n" else b.T
        return lambda: a @ b
    found = {"minigrad": of(mg.tensor), "numpy": of(np.array)}
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    return {**found, "torch": of(torch.tensor)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", choices=KINDS, help="only products with these operands transposed")
    parser.add_argument("--only", metavar="MxNxK", help="only this shape")
    parser.add_argument("--blocks", type=int, default=5, help="of calls that a shape is measured in")
    parser.add_argument("--all", action="store_true", help="print every shape")
    options = parser.parse_args()
    mg.set_num_threads(1)
    chosen = [(s, kind) for s in shapes() for kind in KINDS
              if kind == (options.kind or kind) and "x".join(map(str, s)) == (options.only or "x".join(map(str, s)))]
    rows = []
    for (m, n, k), kind in chosen:
        each = runs(m, n, k, kind)
        with mg.no_grad():
            times = [t.minimum for t in interleaved(*each.values(), blocks=options.blocks)]
        share = times[0] / min(times[1:])
        took = ", ".join(f"{name} {us(t)}" for name, t in zip(each, times, strict=True))
        rows.append((share, f"{share:.2f}  {m}x{n}x{k} {kind}: {took}"))
    behind = sum(share > 1 for share, _ in rows)
    print(f"{len(rows)} shapes, {behind} behind the faster of the others; the worst:")
    for _, line in sorted(rows, reverse=True)[:None if options.all else 5]:
        print(line)


if __name__ == "__main__":
    main()
