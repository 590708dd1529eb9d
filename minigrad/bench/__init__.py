"""Timings of minigrad, compared with torch and JAX where they are installed, and with what this core can do at most.

    python -m minigrad.bench                       the table of workloads, interleaved with torch in one process
    python -m minigrad.bench --rows norm           those of its rows that have the word in their name
    python -m minigrad.bench --rows conv --blocks 2    with fewer blocks of calls: a quick look
    python -m minigrad.bench layer_norm mse_loss   the samples of these ops: kernel and definition
    python -m minigrad.bench my_package:hard_mish  those of an op of yours, by its module and name
    python -m minigrad.bench --write FILE          also writes the table to a Markdown file

All on one thread. Times are minima and medians over blocks of calls; the blocks alternate between the frameworks. Times
say more about the machine than about a framework. A share of the roof does not: it is the least time that the work
needs on this core over the time it took, with the core's limits measured in the same run. Each row says how much it
computes and moves at least (`Workload`); the limits are the rate of fused multiply-adds, and the rates of copies that
fit into the caches and of one that does not (`Limits`). The ratio to torch swings with the CPU, because torch's
kernels come nearer to the roof on some than on others. Run it on one core: `taskset -c 1 python -m minigrad.bench`.

`workload.py` has what a row is, `rows.py` and `steps.py` the rows, `roof.py` the limits, `report.py` the table,
`ops.py` the times of one op.
"""
from __future__ import annotations

from .command import main
from .ops import find_op, time_op
from .report import import_time, memory_growth, table
from .roof import Limits, copy_bandwidth, cpu_name, fma_peak, limits
from .rows import workloads
from .timing import Times, interleaved
from .workload import Workload

__all__ = ["Limits", "Times", "Workload", "copy_bandwidth", "cpu_name", "find_op", "fma_peak", "import_time",
           "interleaved", "limits", "main", "memory_growth", "table", "time_op", "workloads"]
