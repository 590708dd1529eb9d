"""The table: its lines, which rows are chosen, and that only those are built."""
from __future__ import annotations

import re
import subprocess
import sys
import tempfile

import pytest

import minigrad as mg
from minigrad import bench
from minigrad.bench import report

CORE = bench.Limits(100.0, (80.0,) * 6)


def test_a_line_shows_the_roofs_of_both():
    load = bench.Workload("a product", dict, "roof 0.80", flops=1e6)            # 10 us at the peak
    times = {"minigrad": bench.Times(20e-6, 21e-6), "torch": bench.Times(40e-6, 50e-6), "numpy": bench.Times(30e-6, 30e-6)}
    assert report.line(load, times, CORE) == ("| a product | 20.0 us (21.0 us) | 0.50 | 40.0 us (50.0 us) | 0.25 | 0.50 | "
                                              "roof 0.80 | numpy 30.0 us |")
    del times["torch"]
    assert report.line(load._replace(flops=0, bytes=8e5), times, CORE).startswith("| a product | 20.0 us (21.0 us) | 0.50 | - | - | - |")
    none = load._replace(flops=0, goal="", roofless="because")
    assert report.line(none, times, CORE) == "| a product | 20.0 us (21.0 us) | - | - | - | - |  | numpy 30.0 us; because |"


def test_rows_are_chosen_by_a_word_of_their_name():
    loads = bench.workloads()
    assert report.chosen(loads) == loads
    found = [load.name for load in report.chosen(loads, "BATCH_norm")]
    assert len(found) > 3 and all(name.startswith("batch_norm") for name in found)
    with pytest.raises(ValueError, match="no row has 'nothing' in its name; the rows are\n  x \\+ y"):
        report.chosen(loads, "nothing")


def test_only_chosen_rows_are_built(monkeypatch):
    def never():
        raise AssertionError("built")
    loads = [bench.Workload("one", never, flops=1.0), bench.Workload("two", lambda: {"minigrad": int}, flops=1.0)]
    monkeypatch.setattr(report, "workloads", lambda torch: loads)
    monkeypatch.setattr(report, "limits", lambda: CORE)
    lines = report.table(None, "two", blocks=1)
    assert lines[-1].startswith("| two |") and str(CORE) in lines[2] and bench.cpu_name() in lines[0]


@pytest.mark.slow
def test_the_command_measures_the_rows_with_a_word():
    run = lambda *args: subprocess.run([sys.executable, "-m", "minigrad.bench", "--blocks", "1", *args],      # noqa: E731
                                       capture_output=True, text=True, cwd=tempfile.gettempdir())
    shown = run("--rows", "layer_norm 64x512").stdout
    assert re.search(r"FMA peak \d+ GFLOP/s; .*GB/s at 32 kB, .* 2 MB, .* 25 MB, .* 50 MB, .* 100 MB, .* 250 MB", shown)
    assert len(re.findall(r"^\| layer_norm 64x512, fwd\+bwd \| .* us\) \| \d\.\d\d \|", shown, re.M)) == 1
    assert "import minigrad" not in shown                       # what concerns no row is left out
    assert "Only rows with 'layer_norm 64x512' in their name." in shown


@pytest.mark.parametrize("given, told", [
    (["--rows", "no such row"], "no row has 'no such row' in its name"), (["--blocks", "0"], "--blocks must be at least 1; got 0"),
    (["--write", "no/such/folder/x.md"], "argument --write: there is no folder"),
    (["--rows", "norm", "layer_norm"], "--rows and --write are for the table"), (["no_such_op"], "unknown op 'no_such_op'")])
def test_the_command_refuses_what_it_would_not_do(given, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *given])
    before = mg.get_num_threads()
    with pytest.raises(SystemExit):
        bench.main()
    mg.set_num_threads(before)
    assert told in capsys.readouterr().err
