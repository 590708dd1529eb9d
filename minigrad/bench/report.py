"""The table of workloads, as Markdown."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import minigrad as mg

from .roof import Limits, cpu_name, limits
from .rows import workloads
from .steps import tiny_step
from .timing import BLOCKS, Times, interleaved, us
from .workload import Workload

HEAD = ("workload", "minigrad min (median)", "roof", "torch min (median)", "roof", "share of torch", "goal", "others")
MEANING = ("roof: the least time that the work needs on this core, as a part of the minimum: multiply-adds at the FMA "
           "peak, and memory that must be moved, once in each pass, at the rate of a copy of arrays as large. Above 1: "
           "part of it stayed in a faster cache, or a convolution took fewer multiplications than its definition. "
           "Goals: at least this roof, at most this share of torch's time. "
           "Training steps: minigrad's are captured, torch's eager.")


def chosen(loads: Sequence[Workload], word: str = "") -> list[Workload]:
    """The rows with this word in their name, in capitals or not. ValueError if there is none."""
    found = [load for load in loads if word.lower() in load.name.lower()]
    if not found:
        raise ValueError(f"no row has {word!r} in its name; the rows are\n  " + "\n  ".join(x.name for x in loads))
    return found


def table(torch: Any, word: str = "", blocks: int = BLOCKS) -> list[str]:
    """Measures the workloads, or those with `word` in their name. Returns the lines of the table as Markdown, and
    prints them as they come."""
    loads, core = chosen(workloads(torch), word), limits()
    lines = [f"CPU {cpu_name()}; minigrad {mg.__version__}, SIMD level {mg.simd_level()}, one thread, float32"
             + (f"; torch {torch.__version__}" if torch else ""), "", f"{core} (same run).", "", MEANING,
             *(["", f"Only rows with {word!r} in their name."] if word else []), "",
             _cells(*HEAD), _cells(*["---"] * len(HEAD))]
    print("\n".join(lines), file=sys.stderr, flush=True)
    for load in loads:
        runs = load.build()
        times = dict(zip(runs, interleaved(*runs.values(), blocks=blocks), strict=True))
        lines.append(line(load, times, core))
        print(lines[-1], file=sys.stderr, flush=True)
        del runs
        mg.empty_cache()            # of large arrays that no other row has a use for
    if not word:
        lines += ["", f"`import minigrad` over `import numpy`: {import_time() * 1e3:.0f} ms (goal: at most 60).",
                  "Resident memory over 10,000 captured and 2,000 eager training steps of the MLP: "
                  f"{memory_growth() / 1024:+.1f} MB."]
    return lines


def line(load: Workload, times: Mapping[str, Times], core: Limits) -> str:
    """A line of the table: the times of a row by framework, and what they are of its roof."""
    least = load.least(core)

    def of(name: str) -> tuple[str, str]:
        if name not in times:
            return "-", "-"
        best, median = times[name]
        return f"{us(best)} ({us(median)})", f"{least / best:.2f}" if least else "-"
    share = f"{times['minigrad'].minimum / times['torch'].minimum:.2f}" if "torch" in times else "-"
    notes = [f"{name} {us(found.minimum)}" for name, found in times.items() if name not in ("minigrad", "torch")]
    notes += [load.roofless] if load.roofless else []
    return _cells(load.name, *of("minigrad"), *of("torch"), share, load.goal, "; ".join(notes))


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


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
    runs = tiny_step()
    captured, eager = runs["minigrad"], runs["minigrad eager"]
    for _ in range(300):
        captured(), eager()
    before = resident()
    for i in range(10_000):
        captured()
        if i % 5 == 0:
            eager()
    return resident() - before
