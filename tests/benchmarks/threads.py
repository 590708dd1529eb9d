"""The large rows of the benchmark on one thread and on two, with free cores and with busy ones.

    python tests/benchmarks/threads.py                      one thread over two threads: at least 1.8 is the goal
    python tests/benchmarks/threads.py --busy               the same beside one busy process for each core
    python tests/benchmarks/threads.py --rows conv --seconds 2

Free: the least time of a run, in turn on one thread and on two. Busy: mean times, since a run is cut into time slices;
the goals are at most 2.5 times the mean on free cores, and no more than one thread takes beside the same processes.
Needs two cores that nobody else uses.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import minigrad as mg
from minigrad.bench.rows import workloads
from minigrad.bench.timing import Run, us

LARGE = ("norm 4096x768, fwd", "norm 32x64x28x28", "softmax 4096", "cross_entropy", "linear 128x784", "linear 256",
         "linear 1024", "x @ y, 1024", "32x32x28x28", "8x256x7x7", "max_pool", "attention", "T28 B64 128", "T64 B32",
         "MLP 784", "CNN", "char-LSTM", "GPT")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that compute without end, at the priority of this one."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def on_threads(run: Run, seconds: float, turns: int = 6) -> list[tuple[float, float]]:
    """For one thread and for two: the least time of a run and the mean, in turns that take `seconds` in all."""
    times: list[list[float]] = [[], []]
    for turn in range(2 * turns):
        threads = turn % 2 + 1
        mg.set_num_threads(threads)
        run()                           # makes the thread, and brings what it needs into its cache
        end = time.perf_counter() + seconds / 2 / turns
        while (start := time.perf_counter()) < end:
            run()
            times[threads - 1].append(time.perf_counter() - start)
    return [(min(t), sum(t) / len(t)) for t in times]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--busy", action="store_true", help="beside busy processes, too")
    parser.add_argument("--rows", default="", help="only the rows with this word in their name")
    parser.add_argument("--seconds", type=float, default=0.6, help="that a row is measured in")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        parser.error("two threads need two cores")
    print("| workload | one thread | two | one over two |" + (" busy: one | two | two over free two |" * options.busy))
    print("| --- | --- | --- | --- |" + " --- | --- | --- |" * options.busy)
    for load in workloads():
        if not any(word in load.name for word in LARGE) or options.rows.lower() not in load.name.lower():
            continue
        run = load.build()["minigrad"]
        (one, _), (two, mean) = on_threads(run, options.seconds)
        cells = [load.name, us(one), us(two), f"{one / two:.2f}"]
        if options.busy:
            with busy(cores):
                (_, one), (_, two) = on_threads(run, 3 * options.seconds)
            cells += [us(one), us(two), f"{two / mean:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
        mg.empty_cache()


if __name__ == "__main__":
    main()
