"""A captured step that reads the world outside (clock, files, fresh random numbers, the process) is refused with the line."""
from __future__ import annotations

import copy
import cProfile
import datetime
import gc
import glob
import importlib
import json
import logging
import os
import pathlib
import pickle
import random
import secrets
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from time import monotonic as now

import numpy as np
import pytest

import minigrad as mg
from minigrad import devices, nn, optim

HERE = pathlib.Path(__file__)
KEPT = {"clock": time.perf_counter}


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.elapsed = 0.0

    def forward(self, x):
        began = time.perf_counter()
        y = x * 2
        self.elapsed += time.perf_counter() - began
        return y


def opened():
    with open(HERE) as f:
        return sum(len(line) for line in f)


def loaded():
    with HERE.with_name("README.md").open() as f:
        return json.load(f)


def imports():
    import time as clock
    return clock.time_ns()


CLOCK = [time.time, lambda: now(), lambda: KEPT["clock"](), lambda: datetime.datetime.now(), lambda: time.strftime("%Y"), imports,
         lambda: datetime.date.today(), lambda: Timed()(mg.ones(1))]
FILES = [opened, HERE.read_text, HERE.exists, lambda: os.path.getsize(HERE), lambda: os.getcwd(), lambda: os.listdir("."), lambda: glob.glob("*"),
         lambda: HERE.open("r").close(), lambda: np.loadtxt(HERE, str, max_rows=1), lambda: np.fromfile(HERE, np.uint8), lambda: open(HERE, mode="rb").close(),
         lambda: list(os.walk(HERE.parent)), loaded]
RANDOM = [random.Random, lambda: np.random.default_rng(), np.random.RandomState, lambda: os.urandom(1), uuid.uuid4, lambda: random.seed(),
          lambda: random.SystemRandom().random(), lambda: secrets.randbelow(9)]
PROCESS = [lambda: gc.get_count(), gc.isenabled, lambda: sys.getrefcount(KEPT)]


@pytest.mark.parametrize("what, read", [(what, r) for what, reads in (("the clock", CLOCK), ("a file or folder", FILES), ("fresh random numbers", RANDOM),
                                                                      ("the state of the process", PROCESS)) for r in reads])
def test_a_step_that_reads_what_is_outside_is_refused(what, read):
    ran = []

    def run(x):
        ran.append(1)
        try:
            read()
        except (json.JSONDecodeError, FileNotFoundError):
            pass
        return x * 2
    step = mg.capture(run)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"\[capture\] the step read {what} \(\w+\.\w+\) at .*test_capture_outside.py:\d+, which .* as an argument"):
            step(mg.ones(2))
    assert len(ran) == 1 and sys.getprofile() is None


def test_files_of_tensors_are_refused(tmp_path):
    mg.save({"w": mg.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(RuntimeError, match=r"\[capture\] load\(\) reads a value while recording"):
        mg.capture(lambda x: x * mg.load(tmp_path / "w.safetensors")["w"])(mg.ones(2))
    with open(HERE) as lines, pytest.raises(RuntimeError, match="is an iterator"):
        mg.capture(lambda x: x * len(next(lines)))(mg.ones(2))
    with open(HERE, "rb") as raw, pytest.raises(RuntimeError, match="is an iterator"):
        mg.capture(lambda x: x * len(raw.read()))(mg.ones(2))


class Draws:
    def __init__(self):
        self.generator = np.random.default_rng(3)


def replayed(run, count=1):
    """Runs a step three times: it gives the same, and has so many recordings."""
    step = mg.capture(run)
    first = step(mg.ones(2)).tolist()
    assert [step(mg.ones(2)).tolist() for _ in range(2)] == [first] * 2
    assert sum(map(len, step.programs.values())) == count and sys.getprofile() is None


def test_what_names_a_clock_and_does_not_read_it_is_replayed():
    def run(x):
        if x.shape[0] > 2:
            return x * time.time() * len(os.listdir("."))
        time.sleep(0)
        return x * len(os.path.join("a", "b")) * datetime.timedelta(1).days * np.random.default_rng(3).integers(9)
    replayed(run)


def test_what_only_writes_is_replayed(tmp_path):
    def run(x):
        with open(tmp_path / "a", "w") as f:
            f.write("a")
        with (tmp_path / "b").open("ab") as f:
            f.write(b"b")
        (tmp_path / "c").write_text("c")
        np.save(tmp_path / "d.npy", np.ones(2))
        return x * 2
    replayed(run)


class Stamped:
    """What a program may have put in the place of `sys.stdout`."""

    def write(self, text):
        return time.time()

    def flush(self):
        pass


class Stamps(logging.Handler):
    def emit(self, record):
        record.stamp = time.time()


def test_what_python_and_this_package_read_for_themselves_is_replayed(monkeypatch, tmp_path):
    """A log, an import, a copy, a warning, the kernels of a program, what a launch runs."""
    logger = logging.getLogger("minigrad.test.outside")
    logger.addHandler(Stamps())
    (tmp_path / "read_at_import.py").write_text("import time\nbegan = time.time()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stdout", Stamped())
    held = Draws()

    def launched(function):
        return lambda *arguments: (time.time(), function(*arguments))[1]
    for kernel in devices.all_kernels():
        monkeypatch.setattr(kernel, "function", launched(kernel.function))

    def run(x):
        import read_at_import
        logger.error("a step of %s", x.shape)
        print("a step", type(copy.deepcopy(held)), type(pickle.loads(pickle.dumps(held.generator))))
        if x.shape[0] > 2:
            return x * time.time() * len(read_at_import.__doc__)
        return (x + 1) * x.sum()
    monkeypatch.setattr(logging, "lastResort", None)
    replayed(run)


def test_a_schedule_that_reads_the_clock_does_so_at_each_replay():
    w = nn.Parameter(mg.ones(1))
    optimizer = optim.SGD([w], lr=1.0)
    read = []
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda n: read.append(time.time()) or 0.5)

    def run(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        schedule.step()
        return x + 0 if x.shape[0] < 3 else x * time.time()
    before = len(read)
    replayed(run)
    assert len(read) > before + 2


def test_a_step_that_runs_at_an_import_is_refused_too(monkeypatch, tmp_path):
    (tmp_path / "steps_at_import.py").write_text("import time, minigrad as mg\nmg.capture(lambda x: x * time.time())(mg.ones(2))\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="the step read the clock"):
        importlib.import_module("steps_at_import")


def test_another_profiler_is_left_alone():
    step, profiler = mg.capture(lambda x: x * time.time()), cProfile.Profile()
    profiler.enable()
    try:
        at_work = sys.getprofile()
        step(mg.ones(2))
        assert sys.getprofile() is at_work
    finally:
        profiler.disable()
    seen = []

    def watch(frame, event, argument):
        seen.append(event)
    sys.setprofile(watch)
    try:
        mg.capture(lambda x: x * time.time())(mg.ones(2))
        assert sys.getprofile() is watch and "c_call" in seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_ends_the_watch(error):
    def run(x):
        if x.shape[0] == 2:
            raise error
        return x * time.time()
    with pytest.raises(error):
        mg.capture(run)(mg.ones(2))
    assert sys.getprofile() is None
    with pytest.raises(RuntimeError, match="the step read the clock"):
        mg.capture(run)(mg.ones(3))


def test_a_step_that_names_nothing_of_the_kind_is_not_watched():
    seen = []
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Dropout(0.5))

    def run(x, names_it=False):
        seen.append(sys.getprofile())
        return model(x) * np.float32(2)
    mg.capture(run)(mg.ones(1, 2))
    mg.capture(lambda x: (run(x), time.sleep(0), os.path)[0])(mg.ones(1, 2))
    assert seen[0] is None and seen[1] is not None


def test_a_recording_that_was_watched_keeps_nothing_alive():
    """A reference cycle would: arrays would wait for the garbage collector."""
    held, seen = Draws(), []

    def run(x):
        seen.append(sys.getprofile())
        return x * (2.0 if held.generator else time.time())
    step, there = mg.capture(run), weakref.ref(held)
    gc.disable()
    try:
        step(mg.ones(2))
        step = run = held = None
        seen[:] = map(callable, seen)
        assert seen == [True] and there() is None
    finally:
        gc.enable()


INTERRUPTED = """
import signal, sys, threading, time, os
import minigrad as mg
def step(x):
    for _ in range(20):
        x = (x * 2 + 1).tanh()
    return x if x.shape[0] else x * time.time()
go = threading.Event()
def send():
    for i in range(100):
        go.wait()
        time.sleep(0.002 + i % 37 * 0.0001)
        if go.is_set():
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
thread, rounds = threading.Thread(target=send, daemon=True), 0
thread.start()
while thread.is_alive():
    try:
        go.set()
        while thread.is_alive():
            mg.capture(step)(mg.ones(4))
    except KeyboardInterrupt:
        rounds += 1
    for _ in range(2):
        try:
            go.clear()
            time.sleep(0.004)
        except KeyboardInterrupt:
            pass
    assert sys.getprofile() is None
print("whole", rounds)
"""


@pytest.mark.slow
def test_an_interrupt_ends_the_watch():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=env, timeout=120, cwd=tempfile.gettempdir())
    assert ran.stdout.startswith("whole"), ran.stderr[-2000:]
