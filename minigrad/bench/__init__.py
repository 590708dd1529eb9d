"""Timings of minigrad, compared with torch and JAX where they are installed, and with the peak of this machine.

    python -m minigrad.bench                       the table of workloads, interleaved with torch in one process
    python -m minigrad.bench layer_norm mse_loss   the samples of these ops: kernel and definition
    python -m minigrad.bench my_package:hard_mish  those of an op of yours, by its module and name
    python -m minigrad.bench --write FILE          also writes the table to a Markdown file

All on one thread. Times are minima and medians over blocks of calls; the blocks alternate between the frameworks. The
ratios are more reliable than the times, and so are the shares of the peak (FMA rate and copy bandwidth, measured in the
same run). Run it on one core: `taskset -c 1 python -m minigrad.bench`.
"""
from __future__ import annotations

from .command import main
from .ops import find_op, time_op
from .report import import_time, memory_growth, table
from .roof import copy_bandwidth, fma_peak
from .rows import Workload, workloads
from .timing import Times, interleaved

__all__ = ["Times", "Workload", "copy_bandwidth", "find_op", "fma_peak", "import_time", "interleaved", "main",
           "memory_growth", "table", "time_op", "workloads"]
