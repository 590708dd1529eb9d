"""The script for a machine with a GPU (`device_check.py`), in the emulator: so that it runs when there is one."""
from __future__ import annotations

import importlib.util
import re
import sys
import time
from functools import partial

import pytest
from cuda_on_cpu.twins import REAL, emulated
from support import ROOT, run_python

pytestmark = emulated
SCRIPT = ROOT / "tests" / "cuda" / "device_check.py"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("device_check", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = before


def verdicts(text):
    """{phase: its verdict} of a report."""
    return dict(re.findall(r"^\| (\w+) \| (ok|measured|FAILED|not run) \| [\d.]+ \|", text, re.M))


@pytest.mark.slow
@pytest.mark.cuda
def test_all_phases(tmp_path, script):
    ran = run_python(str(SCRIPT), "--fake", "--write", str(tmp_path / "found.md"), CUDA_ON_CPU="", MINIGRAD_NUM_THREADS="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = (tmp_path / "found.md").read_text()
    assert verdicts(text) == {**dict.fromkeys(script.PHASES, "ok"), **dict.fromkeys(("launches", "kernels", "steps"), "measured")}
    assert text.startswith("# Emulated\n") and "no timing below means anything" in text
    for said in (r"^\| date \| 20\d\d-\d\d-\d\d \|$", r"^\| device \| emulator \|$", r"^\| driver, memory \| .+ \|$",
                 r"^\| x \+ y, 64x64 \| [\d.]+ \| [\d.]+ \|$", r"^\| layer_norm 4x64, fwd\+bwd \| [\d.]+ \| \d+ GB/s \|",
                 r"^\| GPT .* same bits \|$", r"^\| layer-normalised LSTM.* \| \d+ \| [\d.]+ \| \S+ \| - \|$"):
        assert re.search(said, text, re.M), said


def test_a_phase_that_fails_or_takes_too_long(script):
    """What it found until then is kept."""
    def wrong(check, lines):
        lines.append("so far")
        raise ValueError("two | lines\nof text")

    def long(check, lines):
        lines.append("so far")
        for _ in range(200):
            try:
                time.sleep(0.1)
            except Exception:
                lines.append("went on")
    result, _, lines = script.run_phase(wrong, 10, None)
    assert result == (script.FAILED, "ValueError: two / lines of text") and lines[0] == "so far" and "    raise ValueError" in "".join(lines)
    result, took, lines = script.run_phase(long, 1, None)
    assert result == (script.FAILED, "Over: it took more than 1 s") and took < 10 and lines[0] == "so far" and "went on" not in lines
    assert script.run_phase(wrong, 0.5, None) == (script.Result(script.NOT_RUN, "no time was left"), 0.0, [])


@pytest.mark.skipif(REAL, reason="its device is the stand-in")
def test_a_row_that_fails_leaves_the_others(script, gpu, monkeypatch):
    def wrong(frame):
        raise MemoryError("it is full")
    right = partial(script._alone, lambda frame, x: x + x, [(4, 4)])
    monkeypatch.setattr(script, "passes_over_memory", lambda fake: [script.Timed("first", wrong, 1), script.Timed("second", right, 128)])
    monkeypatch.setattr(script, "products", lambda fake: [])
    net = script.bench.TINY
    monkeypatch.setattr(script, "nets", lambda check: [net._replace(name="no net", model=wrong), net._replace(inputs=(4, 64), labels=(4, 10))])
    result, _, lines = script.run_phase(script.kernels, 60, script.Check(True))
    assert result == (script.FAILED, "failed: first") and lines[2] == "| first | MemoryError: it is full | - | - | - |"
    assert re.match(r"\| second \| [\d.]+ \| \d+ GB/s \| 1.00 \| - \|", lines[3]) and len(lines) == 4
    result, _, lines = script.run_phase(script.steps, 60, script.Check(True))
    assert result.verdict == script.FAILED and result.summary.startswith("2 nets, 1 failed") and lines[2].startswith("| no net | MemoryError")
    assert re.match(r"\| MLP .* \| \d+ \| [\d.]+ \|", lines[3])


@pytest.mark.skipif(REAL, reason="its device is the stand-in")
def test_the_next_phase_runs_and_the_exit_says_so(script, gpu, monkeypatch, tmp_path, capsys):
    def wrong(check, lines):
        """What is wrong."""
        assert check.gpu is gpu, "the device"
        raise RuntimeError("no | good")

    def right(check, lines):
        return script.Result(script.OK, "all of it")
    monkeypatch.setattr(script, "PHASES", {"first": (wrong, 10), "second": (right, 10)})
    monkeypatch.setattr(sys, "argv", ["device_check.py", "--fake", "--write", str(tmp_path / "found.md")])
    assert script.main() == 1
    text = (tmp_path / "found.md").read_text()
    assert verdicts(text) == {"first": "FAILED", "second": "ok"} and "## First\n\nWhat is wrong.\n" in text
    monkeypatch.setattr(sys, "argv", ["device_check.py", "--fake", "second"])
    assert script.main() == 0
    assert verdicts(capsys.readouterr().out) == {"second": "ok"}


@pytest.mark.parametrize("arguments, say", [
    (["--fake", "--write", str(ROOT / "tests/benchmarks/RESULTS_GPU.md")], "RESULTS_GPU.md is for results on a GPU"),
    (["--fake", "kernel"], "there is no phase 'kernel'; there are environment, ")])
def test_refused(script, monkeypatch, capsys, arguments, say):
    monkeypatch.setattr(sys, "argv", ["device_check.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2 and say in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_without_a_gpu():
    ran = run_python(str(SCRIPT), CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 2 and "[device] 'cuda' is not available" in ran.stderr and "--fake" in ran.stderr
