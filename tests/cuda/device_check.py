"""One script for a machine with a GPU: is the device "cuda" right there, and how fast is it beside PyTorch?

    python tests/cuda/device_check.py --write tests/benchmarks/RESULTS_GPU.md
    python tests/cuda/device_check.py --fake        # on the CPU, in the emulator: no timing means anything

It needs a checkout with the compiled module (or minigrad installed), CuPy and pytest; PyTorch if it is to be compared. It
goes through phases, each with a limit of its own, in at most eight minutes. A phase that fails or takes too long is
noted, and the next one begins. The file is written after each phase: a table of phases with verdicts and times, then
what each phase found. `tests/cuda/test_device_check.py` runs all phases with --fake.
"""
from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if any(Path(__file__).resolve().parents[2].glob("minigrad/_native.*")):      # else minigrad must be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from cuda_on_cpu import fakeblas, fakecupy
from cuda_on_cpu.twins import FILES, suffixes_of

import minigrad as mg
from minigrad import study
from minigrad.bench import steps as bench
from minigrad.bench import workload
from minigrad.bench.steps import Net
from minigrad.bench.workload import Frame, by, frames, product, random_arrays
from minigrad.devices import blas, cuda
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import signatures
from minigrad.devices.plan import elementwise_plan

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 480           # for all phases together
RESULTS = ROOT / "tests" / "benchmarks" / "RESULTS_GPU.md"
OK, MEASURED, FAILED, NOT_RUN = "ok", "measured", "FAILED", "not run"


class Result(NamedTuple):
    """What a phase found: a verdict, and a line for the table of phases. The rest is in the lines that it was given."""

    verdict: str
    summary: str


class Over(BaseException):
    """The time of a phase is over. No `except Exception` keeps it from ending."""


class OnGpu(Frame):
    """A framework whose tensors are made on the GPU."""

    def tensor(self, values: np.ndarray, requires_grad: bool = False) -> Any:
        return self.top.tensor(values, requires_grad=requires_grad, device="cuda")


class Check:
    """The device under test: `fake` if it is the emulator. `frames` are minigrad and PyTorch, with tensors on the GPU."""

    def __init__(self, fake: bool, beside_torch: bool = True) -> None:
        self.fake, self.torch = fake, None
        if fake:
            cuda.cp, blas.library, blas.light = fakecupy, fakeblas, fakeblas
        elif beside_torch and importlib.util.find_spec("torch"):
            import torch
            torch.backends.cudnn.allow_tf32 = False         # both compute in float32
            self.torch = torch if torch.cuda.is_available() else None
        self.gpu = mg.device("cuda")
        self.frames = [OnGpu(*frame) for frame in frames(self.torch)]

    def wait(self) -> None:
        """Until the GPU has done all that was launched."""
        mg.cuda.synchronize()
        if self.torch:
            self.torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], count: int) -> tuple[float, float]:
        """For each of `count` calls in a row: until the last call returns, and until the GPU is done."""
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            run()
        called = time.perf_counter() - start
        self.wait()
        return called / count, (time.perf_counter() - start) / count

    def best(self, run: Callable[[], Any]) -> float:
        """Seconds of one call among many in a row, the least of five tries. By the host's clock, so it holds whatever
        streams a framework launches on."""
        self.seconds(run, 1)            # compiles, allocates
        once = self.seconds(run, 1)[1]
        count, tries = (1, 1) if self.fake else (min(max(int(0.03 / once), 2), 1000), 5)
        return min(self.seconds(run, count)[1] for _ in range(tries))


def row(*cells: Any) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(*cells), row(*["---"] * len(cells))]


def us(seconds: float) -> str:
    """Microseconds, to three digits or whole ones."""
    return f"{seconds * 1e6:.3g}" if seconds < 1e-4 else f"{seconds * 1e6:.0f}"


def said_by(error: BaseException) -> str:
    """An error in a cell of a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".replace("|", "/")


# ---- phases: what is there -------------------------------------------------------------------------------------------

def environment(check: Check, lines: list[str]) -> Result:
    """The device, the driver, and the versions of what is between."""
    runtime = cuda.cp.cuda.runtime
    smi = "emulated"
    if not check.fake:
        asked = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        smi = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[check.gpu.index].strip()
    facts = {"date": datetime.date.today().isoformat(), "device": check.gpu.describe(), "driver, memory": smi,
             "CUDA of the driver, of CuPy": f"{runtime.driverGetVersion()}, {runtime.runtimeGetVersion()}",
             "CuPy": getattr(cuda.cp, "__version__", "a stand-in") if not check.fake else "a stand-in",
             "minigrad": mg.__version__, "Python": sys.version.split()[0], "NumPy": np.__version__,
             "torch": check.torch.__version__ if check.torch else "not compared"}
    lines += [*head("what", "which"), *[row(*fact) for fact in facts.items()]]
    return Result(OK, facts["device"])


def compiling(check: Check, lines: list[str]) -> Result:
    """Each kernel file for each of its element types, in processes of their own; CuPy keeps what they compile."""
    pairs = [(file, suffix) for file in FILES for suffix in suffixes_of(file)]
    if check.fake:
        pairs = [("ops/softmax.cu", "f32")]

    def compile_in_a_process(pair: tuple[str, str]) -> tuple[float, str]:
        start = time.perf_counter()
        ran = command(sys.executable, __file__, *(["--fake"] if check.fake else []), "--compile", *pair, seconds=60)
        return time.perf_counter() - start, ran.stderr if ran.returncode else ""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(pairs, pool.map(compile_in_a_process, pairs), strict=True))
    failed = {pair: error for pair, (_, error) in found.items() if error}
    lines += [*head("file", "type", "s"), *[row(*pair, f"{t:.1f}") for pair, (t, _) in found.items()],
              *[f"\n{pair}: {error.strip().splitlines()[-1][:300]}" for pair, error in failed.items()]]
    return Result(FAILED if failed else OK, f"{len(found) - len(failed)} of {len(found)} files and types compile")


def compile_one(file: str, suffix: str) -> None:
    """What the processes of `compiling` do."""
    for name in [k for k, entry in KERNELS.items() if entry.file == file and (f"{k}_{suffix}" if suffix else k) in signatures()]:
        cuda.cp.RawModule(code=cuda.source(file), options=cuda.options(suffix, name)).compile()


# ---- phases: is it right? --------------------------------------------------------------------------------------------

def command(*words: str, seconds: float, **environment: str) -> subprocess.CompletedProcess:
    """Runs a program with this minigrad, outside the checkout (whose minigrad may not be built); without the options of a
    pytest that this runs under."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = os.pathsep.join(filter(None, [str(Path(mg.__file__).parents[1]), kept.get("PYTHONPATH", "")]))
    return subprocess.run(words, cwd=tempfile.gettempdir(), env={**kept, "PYTHONPATH": path, **environment},
                          capture_output=True, text=True, timeout=seconds)


def pytest_of(check: Check, lines: list[str], files: str, chosen: str, seconds: float, *before: str, workers: int = 0) -> Result:
    """Tests of tests/cuda, on this device; `before` is the program that runs them."""
    spread = ["-n", str(workers)] if workers and importlib.util.find_spec("xdist") else []
    ran = command(*before, sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider",
                  "-W", "default", "--maxfail=40", *spread, *[str(ROOT / "tests" / "cuda" / file) for file in files.split()],
                  "-k", chosen, seconds=seconds, MINIGRAD_TEST_CUDA="" if check.fake else "real")
    said = (ran.stdout + ran.stderr).strip().splitlines() or ["nothing was printed"]
    last = next((line for line in reversed(said) if " in " in line), said[-1]).strip("= ")
    lines += ["```", *(said[-40:] if ran.returncode else [last]), "```"]
    return Result(FAILED if ran.returncode else OK, last)


def tests(check: Check, lines: list[str]) -> Result:
    """The tests of this folder, once in one order of threads."""
    if check.fake:
        return pytest_of(check, lines, "test_device.py", "memory", 60)
    return pytest_of(check, lines, ".", "not nvrtc and not descending and not shuffled and not device_check", 150, workers=8)


def memcheck(check: Check, lines: list[str]) -> Result:
    """Some tests under compute-sanitizer, which sees accesses out of bounds that the tests do not."""
    chosen = "ascending and f32"
    if check.fake:
        return pytest_of(check, lines, "test_softmax.py", chosen, 60)
    if not shutil.which("compute-sanitizer"):
        return Result(NOT_RUN, "compute-sanitizer is not installed")
    return pytest_of(check, lines, "test_softmax.py test_norm.py", chosen, 60, "compute-sanitizer", "--error-exitcode", "9")


def _normalised_lstm(frame: Frame) -> Any:
    nn: Any = frame.nn

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = nn.LSTM(28, 128, norm="layer"), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.recurrent(x)[0][-1])
    return Rows()


NORMALISED = Net("layer-normalised LSTM, T28 B64 28 to 128", _normalised_lstm, (28, 64, 28), (64, 10), 0, 0, "")
# what the emulator runs in seconds: a net by the first word of its name, its inputs and the number of labels
TINY = {"MLP": ((4, 64), 4), "LSTM": ((2, 2, 8), 2), "char-LSTM": ((1, 2), 2), "GPT": ((1, 64), 64),
        "layer-normalised": ((2, 2, 28), 2)}


def nets(check: Check) -> Iterator[Net]:
    """The nets of the benchmark and a layer-normalised LSTM; for the emulator one of each kind, on tiny batches."""
    left = dict(TINY)
    for net in (bench.TINY, *bench.NETS, NORMALISED):
        if not check.fake:
            yield net
        elif tiny := left.pop(net.name.split()[0], None):
            yield net._replace(inputs=tiny[0], labels=(tiny[1], net.labels[1]))


def step_on(device: str, net: Net, frame: Frame, wrapped: Callable[..., Any] = lambda step: step) -> Callable[[], Any]:
    """The training step of a net that begins with the same parameters each time."""
    frame.top.manual_seed(3)
    return bench.step_of(net._replace(model=lambda frame: net.model(frame).to(device)), frame, wrapped)


def models(check: Check, lines: list[str]) -> Result:
    """Three training steps of each net: losses as on the CPU, and the same bits when they are done again, and captured."""
    lines += head("net", "largest error of a loss", "again and captured")
    wrong = []
    for net in nets(check):
        on_gpu = partial(step_on, "cuda", net, check.frames[0])
        runs = step_on("cpu", net, frames(None)[0]), on_gpu(), on_gpu(), on_gpu(mg.capture)
        want, got, *others = ([run().item() for _ in range(3)] for run in runs)
        error = max(abs(g - w) / abs(w) for g, w in zip(got, want, strict=True))
        if not error < 1e-4 or others != [got] * 2:         # nan is an error, too
            wrong.append(net.name)
        lines.append(row(net.name, f"{error:.1e}", "same bits" if others == [got] * 2 else f"DIFFERS: {got}, {others}"))
    if wrong:
        return Result(FAILED, f"differ: {'; '.join(wrong)}")
    return Result(OK, f"{len(lines) - 2} nets as on the CPU")


# ---- phases: how fast is it? -----------------------------------------------------------------------------------------

def launches(check: Check, lines: list[str]) -> Result:
    """What a launch costs the host, and how far apart small launches follow each other."""
    x, y = (check.frames[0].tensor(a) for a in random_arrays((64, 64), (64, 64)))
    out, kernel = x + y, check.gpu.kernels.add[np.dtype("float32")]
    plan = elementwise_plan(out.array.layout, x.array.layout, y.array.layout)
    nothing = cuda.cp.RawModule(code='extern "C" __global__ void nothing() {}').get_function("nothing")
    empty = partial(nothing, (1,), (32,), ())
    check.seconds(empty, 1)             # loaded before a stream captures, which refuses that
    stream, nodes = cuda.cp.cuda.Stream(non_blocking=True), 10 if check.fake else 1000
    with stream:
        stream.begin_capture()
        for _ in range(nodes):
            empty()
        graph = stream.end_capture()
    calls = {"x + y, 64x64": lambda: x + y, "its kernel": lambda: kernel.call(out.array.ptr, x.array.ptr, y.array.ptr, plan.ptr),
             "x @ y, 64x64": lambda: x @ y, "an empty kernel through CuPy": empty}
    if check.torch:
        p, q = (check.frames[1].tensor(a) for a in random_arrays((64, 64), (64, 64)))
        calls |= {"torch: x + y": lambda: p + q, "torch: x @ y": lambda: p @ q}
    lines += head("call", "host us", "us with the wait")
    count = 3 if check.fake else 500
    for name, run in calls.items():
        check.seconds(run, 3)
        best = [min(side) for side in zip(*[check.seconds(run, count) for _ in range(5)], strict=True)]
        lines.append(row(name, *map(us, best)))
        if name == "its kernel":
            summary = f"{us(best[0])} us of the host for a launch"
    lines.append(row(f"a node of a CUDA graph of {nodes}", "-", us(check.best(graph.launch) / nodes)))
    return Result(MEASURED, summary)


class Timed(NamedTuple):
    """A run of a kernel: the bytes it must move, or its operations."""

    name: str
    build: Callable[[Frame], Callable[[], Any]]
    nbytes: int = 0
    flops: int = 0


def _both(function: Callable[..., Any], shapes: list[tuple[int, ...]], out: tuple[int, ...], frame: Frame) -> Callable[[], Any]:
    """Runs a function of random tensors forward and backward."""
    *values, seed = random_arrays(*shapes, out)
    return workload.backward_run(partial(function, frame), [frame.tensor(v, True) for v in values], frame.tensor(seed))


def _alone(function: Callable[..., Any], shapes: list[tuple[int, ...]], frame: Frame) -> Callable[[], Any]:
    """Runs a function of random tensors."""
    return partial(function, frame, *[frame.tensor(v) for v in random_arrays(*shapes)])


def passes_over_memory(fake: bool) -> Iterator[Timed]:
    """The first one is the copy that the others are compared with."""
    n, d = (4, 64) if fake else (8192, 4096)
    rows, lines, size = [(n, d)], [(d,), (d,)], 4 * n * d
    for name, function, shapes, passes in (
            ("copy", lambda f, x: x.clone(), rows, 2), ("x + y", lambda f, x, y: x + y, rows * 2, 3),
            ("sum of columns", lambda f, x: x.sum(0), rows, 1), ("relu", lambda f, x: f.functional.relu(x), rows, 2),
            ("layer_norm", lambda f, x, w, b: f.functional.layer_norm(x, (d,), w, b), rows + lines, 2)):
        yield Timed(f"{name} {by(rows[0])}", partial(_alone, function, shapes), passes * size)
    for name, function, shapes in (
            ("layer_norm", lambda f, x, w, b: f.functional.layer_norm(x, (d,), w, b), rows + lines),
            ("rms_norm", lambda f, x, w: f.functional.rms_norm(x, (d,), w), rows + lines[:1]),
            ("batch_norm", lambda f, x, w, b: f.functional.batch_norm(x, None, None, w, b, training=True), rows + lines),
            ("softmax", lambda f, x: f.functional.softmax(x, 1), rows)):
        yield Timed(f"{name} {by(rows[0])}, fwd+bwd", partial(_both, function, shapes, rows[0]), 5 * size)
    shape = (2, 4, 4, 4) if fake else (256, 64, 56, 56)
    yield Timed(f"batch_norm {by(shape)}, fwd+bwd", partial(
        _both, lambda f, x, w, b: f.functional.batch_norm(x, None, None, w, b, training=True),
        [shape, shape[1:2], shape[1:2]], shape), 5 * 4 * prod(shape))
    words, width, count = (50, 16, 40) if fake else (50257, 768, 16384)
    index = np.random.default_rng(0).integers(0, words, count)
    yield Timed(f"embedding of {count}, {words}x{width}, fwd+bwd", partial(_embedding, index, (words, width)),
                4 * width * (3 * count + words))
    yield Timed(f"AdamW of {words}x{width}", partial(_adamw, (words, width)), 7 * 4 * words * width)


def _embedding(index: np.ndarray, table: tuple[int, int], frame: Frame) -> Callable[[], Any]:
    chosen = frame.tensor(index)
    return _both(lambda f, t: f.functional.embedding(chosen, t), [table], (len(index), table[1]), frame)


def _adamw(shape: tuple[int, int], frame: Frame) -> Callable[[], Any]:
    parameter = frame.nn.Parameter(frame.tensor(random_arrays(shape)[0]))
    parameter.grad = frame.top.ones_like(parameter)
    return frame.optim.AdamW([parameter], lr=1e-3).step


def products(fake: bool) -> Iterator[Timed]:
    """Products, and layers that are mostly products."""
    n = 64 if fake else 4096
    yield Timed(f"x @ y, {n}x{n}", partial(_alone, lambda f, x, y: x @ y, [(n, n)] * 2), flops=product(n, n, n, 1))
    for shape in [(1, 2, 16, 8)] if fake else [(16, 4, 128, 32), (8, 12, 1024, 64)]:
        yield Timed(f"causal attention {by(shape)}, fwd+bwd", partial(
            _both, lambda f, q, k, v: f.functional.scaled_dot_product_attention(q, k, v, is_causal=True), [shape] * 3, shape),
            flops=workload.attention_flops(*shape))
    for m, c, k, s in [(2, 3, 4, 6)] if fake else [(64, 1, 16, 28), (128, 64, 64, 32), (64, 256, 256, 14)]:
        yield Timed(f"conv2d {m}x{c}x{s}x{s} to {k}, 3x3, fwd+bwd", partial(
            _both, lambda f, x, w: f.functional.conv2d(x, w, padding=1), [(m, c, s, s), (k, c, 3, 3)], (m, k, s, s)),
            flops=product(m * s * s, 9 * c, k))
    for kind in ("LSTM", "GRU"):
        t, m, i, h = (2, 2, 4, 8) if fake else (28, 64, 128, 128)
        yield Timed(f"{kind} T{t} B{m} {i} to {h}, fwd+bwd", partial(_recurrent, kind, (t, m, i), h),
                    flops=workload.recurrent_flops(kind, t, m, i, h))


def _recurrent(kind: str, shape: tuple[int, int, int], hidden: int, frame: Frame) -> Callable[[], Any]:
    layer = getattr(frame.nn, kind)(shape[2], hidden).to("cuda")
    return _both(lambda f, x: layer(x)[0], [shape], (*shape[:2], hidden), frame)


def kernels(check: Check, lines: list[str]) -> Result:
    """Kernels and layers: bytes as a part of what a copy moves, operations a second, PyTorch's time."""
    lines += head("work", "us", "rate", "of the copy", "torch us")
    copy, failed = 0.0, []
    for work in (*passes_over_memory(check.fake), *products(check.fake)):
        try:
            times = [check.best(work.build(frame)) for frame in check.frames]
        except Exception as error:
            failed.append(work.name)
            lines.append(row(work.name, said_by(error), "-", "-", "-"))
            continue
        rate = (work.nbytes or work.flops) / times[0]
        copy = copy or rate
        lines.append(row(work.name, us(times[0]), f"{rate / 1e9:.0f} GB/s" if work.nbytes else f"{rate / 1e12:.2f} TFLOP/s",
                         f"{rate / copy:.2f}" if work.nbytes else "-", us(times[1]) if times[1:] else "-"))
        mg.empty_cache()
    if failed:
        return Result(FAILED, f"failed: {'; '.join(failed)}")
    return Result(MEASURED, f"a copy moves {copy / 1e9:.0f} GB/s")


def steps(check: Check, lines: list[str]) -> Result:
    """Training steps: kernels called, time eager and captured, PyTorch's eager time."""
    lines += head("training step, Adam", "kernels called", "eager us", "captured us", "torch eager us")
    failed = []
    for net in nets(check):
        others = "-"
        try:
            ours = step_on("cuda", net, check.frames[0])
            ours()
            count, eager = len(study.launches(ours)), us(check.best(ours))
            if check.torch and net.model is not _normalised_lstm:
                others = us(check.best(step_on("cuda", net, check.frames[1])))
            captured = us(check.best(step_on("cuda", net, check.frames[0], mg.capture)))
        except Exception as error:
            failed.append(net.name)
            lines.append(row(net.name, said_by(error), "-", "-", "-"))
            continue
        lines.append(row(net.name, count, eager, captured, others))
    return Result(FAILED if failed else MEASURED, f"{len(list(nets(check)))} nets, {len(failed)} failed")


# ---- all of them -----------------------------------------------------------------------------------------------------

PHASES: dict[str, tuple[Callable[[Check, list[str]], Result], int]] = {       # with the most seconds it may take
    "environment": (environment, 30), "compile": (compiling, 100), "launches": (launches, 20), "models": (models, 60),
    "tests": (tests, 160), "kernels": (kernels, 90), "steps": (steps, 90), "memcheck": (memcheck, 60)}


def run_phase(phase: Callable[[Check, list[str]], Result], seconds: float, check: Check) -> tuple[Result, float, list[str]]:
    """The result of a phase, the seconds it took, and its lines. One that raises, or takes too long, has failed; what it
    found until then is kept."""
    def over(*_: Any) -> None:
        raise Over(f"it took more than {seconds:.0f} s")
    if seconds < 1:
        return Result(NOT_RUN, "no time was left"), 0.0, []
    lines: list[str] = []
    start, before = time.perf_counter(), signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        result = phase(check, lines)
    except (Exception, Over) as error:
        result = Result(FAILED, said_by(error))
        lines += ["", "```", *traceback.format_exc().splitlines()[-12:], "```"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return result, time.perf_counter() - start, lines


def report(found: dict[str, tuple[Result, float, list[str]]], fake: bool) -> list[str]:
    """The file: the table of phases, then what each of them found."""
    title = ["# Results on a GPU"]
    if fake:
        title = ["# Emulated", "", "Run in the emulator, with tiny batches: no timing below means anything."]
    lines = [*title, "", "Written by `tests/cuda/device_check.py`.", "", *head("phase", "verdict", "s", "what it found")]
    for name, (result, took, _) in found.items():
        lines.append(row(name, result.verdict, f"{took:.1f}", result.summary))
    for name, (_, _, more) in found.items():
        if more:
            said = " ".join((PHASES[name][0].__doc__ or "").split())
            lines += ["", f"## {name.capitalize()}", "", said, "", *more]
    return lines


def main() -> int:
    """The command line; 1 if a phase failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"only these of {', '.join(PHASES)}")
    parser.add_argument("--fake", action="store_true", help="run in the emulator, with tiny sizes")
    parser.add_argument("--write", type=Path, help="write what was found to this file, after each phase")
    parser.add_argument("--compile", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.phases if name not in PHASES]:
        parser.error(f"there is no phase {unknown[0]!r}; there are {', '.join(PHASES)}")
    if options.fake and options.write and options.write.resolve() == RESULTS:
        parser.error(f"{RESULTS.name} is for results on a GPU, which --fake has none of")
    try:
        check = Check(options.fake, beside_torch=not options.compile)
    except RuntimeError as error:
        parser.error(f"{error} (--fake runs in the emulator)")
    if options.compile:
        compile_one(*options.compile)
        return 0
    patience = 10 if options.fake else 1                # an emulator on a busy machine proves nothing about time
    end, found = time.perf_counter() + patience * SECONDS, {}
    for name, (phase, seconds) in PHASES.items():
        if options.phases and name not in options.phases:
            continue
        found[name] = run_phase(phase, min(patience * seconds, end - time.perf_counter()), check)
        result, took, _ = found[name]
        print(f"{name:12} {result.verdict:8} {took:6.1f} s  {result.summary}", flush=True)
        if options.write:
            options.write.write_text("\n".join(report(found, options.fake)) + "\n")
    if not options.write:
        print("\n".join(["", *report(found, options.fake)]))
    return int(any(result.verdict == FAILED for result, _, _ in found.values()))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
