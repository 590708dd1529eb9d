"""The table of workloads, as Markdown."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import minigrad as mg

from .roof import copy_bandwidth, fma_peak
from .rows import mlp_step, workloads
from .timing import interleaved, us


def table(torch: Any) -> list[str]:
    """Measures the workloads. Returns the lines of the table as Markdown, and prints them as they come."""
    peak, copy = fma_peak(), copy_bandwidth()
    lines = [f"minigrad {mg.__version__}, {mg.simd_level()}, one thread; FMA peak {peak:.0f} GFLOP/s, "
             f"copy {copy:.1f} GB/s (float32, same run)" + (f"; torch {torch.__version__}" if torch else ""), "",
             "| workload | minigrad min (median) | torch min (median) | share of torch | goal | others, roof |",
             "| --- | --- | --- | --- | --- | --- |"]
    for load in workloads(torch):
        names = list(load.run)
        times = dict(zip(names, interleaved(*load.run.values()), strict=True))
        ours, theirs = times["minigrad"], times.get("torch")
        notes = [f"{n} {us(times[n].minimum)}" for n in names if n not in ("minigrad", "torch")]
        if load.flops:
            notes.append(f"{load.flops / ours.minimum / 1e9 / peak:.0%} of FMA peak")
        if load.bytes:
            notes.append(f"{load.bytes / ours.minimum / 1e9 / copy:.0%} of copy bandwidth")
        other = "- | -"
        if theirs:
            other = f"{us(theirs.minimum)} ({us(theirs.median)}) | {ours.minimum / theirs.minimum:.2f}"
        lines.append(f"| {load.name} | {us(ours.minimum)} ({us(ours.median)}) | {other}"
                     + f" | {load.goal if load.goal is not None else ''} | {'; '.join(notes)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", f"`import minigrad` over `import numpy`: {import_time() * 1e3:.0f} ms (goal: at most 60).",
              "Resident memory over 10,000 captured and 2,000 eager training steps of the MLP: "
              f"{memory_growth() / 1024:+.1f} MB."]
    return lines


def import_time() -> float:
    """Seconds that `import minigrad` takes beyond `import numpy`, the best of seven fresh processes."""
    def fresh(statement: str) -> float:
        code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        return min(float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                        cwd=tempfile.gettempdir()).stdout) for _ in range(7))
    return fresh("import numpy, minigrad") - fresh("import numpy")


def memory_growth() -> int:
    """KiB by which resident memory grows while the MLP trains, after a warm-up; 0 on systems without /proc."""
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    if not Path("/proc/self/statm").exists():
        return 0
    load = mlp_step(None)
    for _ in range(300):
        load.run["minigrad"](), load.run["minigrad eager"]()
    before = resident()
    for i in range(10_000):
        load.run["minigrad"]()
        if i % 5 == 0:
            load.run["minigrad eager"]()
    return resident() - before
