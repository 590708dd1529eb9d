"""The cost of averaging gradients between processes, and on paper that of many workers.

    mpiexec -n 2 python tests/benchmarks/all_reduce.py                          as processes of one host do it
    UCX_TLS=tcp,self mpiexec -n 2 python tests/benchmarks/all_reduce.py --messages    by messages over TCP

Fits the least times over the bytes by a ring all-reduce between n workers, which takes 2 (n - 1) messages one after
the other, each of one n-th of the bytes (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms"):

    t(n, bytes) = 2 (n - 1) (latency + bytes / n / bandwidth)
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from minigrad import distributed
from minigrad.distributed.group import joined
from minigrad.distributed.memory import shared_memory
from minigrad.distributed.shared import Shared

SIZES = [2 ** k for k in range(12, 24)]         # bytes
WORKERS = [8, 16, 32, 64, 128, 256]


def least(run: Callable[[], None], times: int = 30) -> float:
    """The least time of a call, in seconds; all processes begin together."""
    found = []
    for _ in range(times):
        distributed.barrier()
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def ring(workers: int, nbytes: float, latency: float, bandwidth: float) -> float:
    """The time of a ring all-reduce, in seconds."""
    return 2 * (workers - 1) * (latency + nbytes / workers / bandwidth)


def fit(sizes: list[int], times: list[float], workers: int) -> tuple[float, float]:
    """Latency in seconds and bandwidth in bytes a second, of least relative squares."""
    columns = np.stack([np.full(len(sizes), 2.0 * (workers - 1)), 2 * (workers - 1) / workers * np.array(sizes)], 1)
    weights = 1 / np.array(times)
    latency, slope = np.linalg.lstsq(columns * weights[:, None], np.ones(len(sizes)), rcond=None)[0]
    return float(latency), 1 / float(slope)


def measured(messages: bool) -> list[float]:
    """The times of the averaging of an array of each size."""
    group, found = joined(), []
    for nbytes in SIZES:
        memory = None if messages else shared_memory(group, nbytes)
        if memory is None:
            array = np.ones(nbytes // 4, np.float32)
            found.append(least(lambda array=array: group.run("gradients", lambda: group.all_reduce(array, "sum"))))  # type: ignore
        else:
            common = Shared(memory.take(nbytes // 4, np.dtype("float32")), group.rank)
            found.append(least(lambda common=common: common.exchange("gradients")()))       # type: ignore[misc]
    return found


def main() -> None:
    """Process 0 prints the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--messages", action="store_true", help="all-reduce by MPI, as between hosts")
    options.add_argument("--step", type=float, nargs=2, action="append", metavar=("MS", "MB"), default=[],
                         help="a worker's step without exchange, and its gradients")
    given = options.parse_args()
    distributed.init_process_group("mpi")
    times = measured(given.messages)
    if distributed.get_rank():
        return
    latency, bandwidth = fit(SIZES, times, distributed.get_world_size())
    for nbytes, seconds in zip(SIZES, times, strict=True):
        print(f"{nbytes / 1024:9.0f} kB {1e6 * seconds:9.1f} us   fit "
              f"{1e6 * ring(distributed.get_world_size(), nbytes, latency, bandwidth):9.1f}")
    print(f"latency {1e6 * latency:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s")
    for step, megabytes in given.step:
        print(f"step {step} ms, gradients {megabytes} MB")
        for n in WORKERS:
            whole = step + 1e3 * ring(n, 1e6 * megabytes, latency, bandwidth)
            print(f"{n:5} workers {whole:8.2f} ms   efficiency {step / whole:.2f}")


if __name__ == "__main__":
    main()
