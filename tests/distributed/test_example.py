"""`examples/digits_ddp.py`: killed in the middle and resumed, it prints the losses of a run that was not."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.slow
EXAMPLE = str(ROOT / "examples" / "digits_ddp.py")
LINE = re.compile(r"^(\w+ +\d+ a process  seed \d+  epoch \d+  loss \S+  test accuracy \S+)$", re.M)


def process_of(rank: int, out: Path) -> int:
    """The process of a rank, by what the launcher tells it."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(out).encode() in (entry / "cmdline").read_bytes() and f"PMI_RANK={rank}".encode() in (
                    entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            pass
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_is_resumed_with_the_same_losses(mpi, tmp_path):
    pytest.importorskip("matplotlib"), pytest.importorskip("sklearn"), pytest.importorskip("tqdm")
    options = ["--epochs", "3", "--batch-sizes", "16"]
    whole = mpi(2, EXAMPLE, *options, "--out", str(tmp_path / "whole"), script=True)
    assert whole.returncode == 0 and len(LINE.findall(whole.stdout)) == 6, whole.stdout + whole.stderr
    assert (tmp_path / "whole" / "digits_ddp.png").stat().st_size > 5000
    out = tmp_path / "killed"
    with mpi.started(2, EXAMPLE, *options, "--out", str(out), script=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "epoch 2" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        os.kill(process_of(1, out), signal.SIGKILL)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and re.search(r"\[distributed\] .*rank 1 \(process \d+\).* died", rest + errors), rest + errors
    resumed = mpi(2, EXAMPLE, *options, "--out", str(out), "--resume", script=True)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    for other, said_of in ((["--batch-sizes", "16", "2"], "made with --batch-sizes [16], got [16, 2]"), (["--epochs", "4"], "made with --epochs 3, got 4")):
        refused = mpi(2, EXAMPLE, *options, *other, "--out", str(out), "--resume", script=True, seconds=60)
        assert refused.returncode != 0 and said_of in refused.stdout + refused.stderr, refused.stdout + refused.stderr
    before, after, every = (LINE.findall(text) for text in (said, resumed.stdout, whole.stdout))
    assert every[:len(before)] == before and 0 < len(after) < 6 and every[-len(after):] == after
