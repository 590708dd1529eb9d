"""The list of kernels is one: what minigrad.h declares is built, and is what the Python side launches."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import HEADER

import minigrad as mg
from minigrad.devices.native import LEVELS, best_simd_level

SOURCES = [p.read_text() for p in Path(mg.__file__).parent.rglob("*.py")]
FAMILIES = sorted({re.sub(r"_(f32|f64|i32|i64|u8|u16)$", "", k.name) for k in mg.device("cpu").kernels})


@pytest.mark.parametrize("family", FAMILIES)
def test_kernel_is_used(family):
    """Each kernel of minigrad.h is claimed by an op (by name), and so is none that does not exist."""
    stem = re.sub("_(forward|backward)$", "", family)
    quoted = re.compile(rf"""kernels\.{family}\b|["']{family}["']|["']{stem}["']|def {stem}\(""")
    assert any(quoted.search(text) for text in SOURCES), f"{family} is in minigrad.h, but nothing launches it"


def test_no_kernel_is_missing():
    asked = {name for text in SOURCES for name in re.findall(r"\bkernels\.(\w+)\[", text)}
    assert asked <= set(FAMILIES), f"launched, but not in minigrad.h: {asked - set(FAMILIES)}"


def test_workspace_sizes_agree():
    """How many partial sums the kernels keep is said in minigrad.h and in the ops that allocate them: the same numbers."""
    import inspect
    from importlib import import_module
    loss, norm = import_module("minigrad.ops.loss"), import_module("minigrad.ops.norm")
    header = HEADER.read_text()
    for macro, function in (("MG_CHUNKS(rows)", norm._chunks), ("MG_LOSS_CHUNKS(n)", loss._chunks)):
        text = next(line for line in header.splitlines() if line.startswith(f"#define {macro}"))
        numbers = sorted(re.findall(r"\b\d+\b", text.split(")", 1)[1]))
        assert numbers == sorted(re.findall(r"\b\d+\b", inspect.getsource(function).split("return")[1])), macro


def run(code, **environment):
    """In a fresh process, outside the source folder (whose minigrad is not built)."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment},
                          cwd=tempfile.gettempdir())


@pytest.mark.parametrize("level", LEVELS[:LEVELS.index(best_simd_level()) + 1])
def test_forced_level(level):
    assert run("import minigrad; print(minigrad.simd_level())", MINIGRAD_SIMD=level).stdout.strip() == level


@pytest.mark.parametrize("name, value, message", [("MINIGRAD_SIMD", "mmx", "use one of"), ("MINIGRAD_NUM_THREADS", "0", "positive")])
def test_bad_environment(name, value, message):
    ran = run("import minigrad", **{name: value})
    assert ran.returncode and message in ran.stderr


def test_threads_from_environment():
    assert run("import minigrad; print(minigrad.get_num_threads())", MINIGRAD_NUM_THREADS="1").stdout.strip() == "1"


def test_no_threads_at_import():
    code = "import threading, os, minigrad; print(len(os.listdir('/proc/self/task')))"
    if Path("/proc/self/task").exists():
        baseline = run("import os, numpy; print(len(os.listdir('/proc/self/task')))").stdout
        assert run(code).stdout == baseline


def test_fork():
    """A child after parallel work computes the same, in parallel."""
    code = """
import os, minigrad as mg
mg.set_num_threads(2)
x = mg.ones(1 << 20)
first = x.exp().sum().item()
child = os.fork()
if child == 0:
    os._exit(0 if x.exp().sum().item() == first else 3)
print(os.waitpid(child, 0)[1], x.exp().sum().item() == first)
"""
    assert run(code).stdout.split() == ["0", "True"]


def test_unbuilt_checkout(tmp_path):
    """The sources without the compiled module say what to do."""
    import shutil
    copied = shutil.copytree(Path(mg.__file__).parent, tmp_path / "minigrad", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    assert copied.exists()
    ran = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import minigrad"], capture_output=True, text=True)
    assert ran.returncode and "pip install ." in ran.stderr
