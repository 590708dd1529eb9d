"""`mpi(n, text)` runs a program in n processes by the MPI that is installed beside this Python."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HEAD = """
import os, signal, sys, time
import numpy as np
import minigrad as mg
from minigrad import data, distributed as dist, nn, optim
from minigrad.nn import functional as F
dist.init_process_group("mpi")
rank, size = dist.get_rank(), dist.get_world_size()
"""


@pytest.fixture(scope="session")
def mpi():
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI: pip install '.[mpi]'")
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if launcher is None:
        pytest.skip("no mpiexec beside this Python or on the path")
    trial = subprocess.run([launcher, "-n", "2", sys.executable, "-c", "from mpi4py import MPI"], capture_output=True, text=True, timeout=120)
    if trial.returncode:
        pytest.skip(f"this machine's MPI does not start two processes: {(trial.stdout + trial.stderr)[-300:]}")
    root = Path(__import__("minigrad").__file__).parent.parent
    environment = {**os.environ, "MINIGRAD_NUM_THREADS": "1", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONUNBUFFERED": ""}      # whole lines, so that those of several processes do not mix

    def command(n: int, program: str, *arguments: str, script: bool = False) -> list[str]:
        return [launcher, "-n", str(n), sys.executable, *([program] if script else ["-c", HEAD + program]), *arguments]

    def run(n: int, program: str, *arguments: str, seconds: int = 240, script: bool = False) -> subprocess.CompletedProcess:
        return subprocess.run(command(n, program, *arguments, script=script), capture_output=True, text=True, timeout=seconds, env=environment,
                              cwd=tempfile.gettempdir())

    def started(n: int, program: str, *arguments: str, script: bool = False, **options) -> subprocess.Popen:
        return subprocess.Popen(command(n, program, *arguments, script=script), env=environment, cwd=tempfile.gettempdir(), **options)
    run.started, run.command, run.environment = started, command, environment
    return run


@pytest.fixture
def passes(mpi):
    """Runs a program in n processes, each of which must come to its end; returns what they said."""
    def run(n: int, text: str, *arguments: str, **options) -> str:
        ran = mpi(n, text + "\nprint('at the end', rank)\n", *arguments, **options)
        assert ran.returncode == 0 and ran.stdout.count("at the end") == n, ran.stdout + ran.stderr
        return ran.stdout
    return run
