"""The list of kernels is one: what minigrad.h declares is built, and is what the Python side launches."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import cpu

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


SHAPES = [0, 1, 2, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 1000, 4096, 4097, 16384, 16385, 20000, 4177921, 4194304, 4194305, 10**7]


def guarded(dtype, size):
    """An array of `size` elements, NaN, with 64 guard elements behind it."""
    whole = np.full(size + 64, np.nan, dtype)
    whole[size:] = 12345.0
    return whole


@pytest.mark.parametrize("n", SHAPES)
def test_work_space_is_split_as_the_kernels_do(n):
    """The formulas of native/workspace.h against what they promise: enough chunks, none too small, at most so many."""
    rows, loss = cpu.norm_chunks(n), cpu.loss_chunks(n)
    assert rows == (1 if n <= 32 else min(-(-n // 32), 128)) and loss == (1 if n <= 16384 else min(-(-n // 16384), 256))
    assert cpu.layer_norm_partial(n, 5) == 10 * rows and cpu.rms_norm_partial(n, 5) == 5 * rows
    assert cpu.rnn_steps(n) == max(1, 256 // max(n, 1) if n else 1)
    up = -(-n // 32) * 32
    assert cpu.rnn_forward_work(n, 3, 7, 0) == 12 + up * 7 and cpu.rnn_backward_work(5, n, 7, 1) == 32 * 5 + up * 7
    assert cpu.rnn_forward_work(2, 3, n, 1) == 12 + 32 * n + up * 3
    assert cpu.rnn_sums(max(n, 1), 4, 3) == -(-max(n, 1) // 16) * 30
    for keep in (1, 7, 100, 20000):
        segments = cpu.segments(keep, n)
        assert 1 <= segments <= 256 and (segments == 1 or keep * segments <= 16384 and (segments - 1) * 16384 < n)


@pytest.mark.parametrize("dtype, suffix", [(np.float32, "f32"), (np.float64, "f64")])
@pytest.mark.parametrize("rows", [1, 32, 33, 65, 1000, 4095, 4096, 4097, 5000])
def test_norm_kernels_stay_in_their_work_space(dtype, suffix, rows):
    """Backward kernels of row norms write all of `partial`, nothing behind it, and their sums are right."""
    n, rng = 3, np.random.default_rng(rows)
    x, gy = rng.standard_normal((rows, n)).astype(dtype), rng.standard_normal((rows, n)).astype(dtype)
    mean, rstd, gx = np.zeros(rows, dtype), np.ones(rows, dtype), np.empty_like(x)
    gw, gb = np.empty(n, dtype), np.empty(n, dtype)

    def at(*arrays):
        return [a.ctypes.data for a in arrays]
    for name, size in (("layer", cpu.layer_norm_partial(rows, n)), ("rms", cpu.rms_norm_partial(rows, n))):
        partial = guarded(dtype, size)
        kernel = getattr(cpu.lib, f"{name}_norm_backward_{suffix}")
        if name == "layer":
            kernel(*at(gx, gw, gb, partial, gy, x, mean, rstd), 0, rows, n)
        else:
            kernel(*at(gx, gw, partial, gy, x, rstd), 0, rows, n)
        assert (partial[size:] == 12345).all() and not np.isnan(partial[:size]).any(), name
        np.testing.assert_allclose(gw, (gy * x).sum(0, dtype=np.float64), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(gb, gy.sum(0, dtype=np.float64), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("n", [1, 16384, 16385, 100000, 4177920, 4177921, 4194304, 4194305, 6000000])
def test_loss_kernels_stay_in_their_work_space(n):
    x, target, loss = np.ones(n, np.float32), np.zeros(n, np.float32), np.empty(1, np.float32)
    size = cpu.loss_chunks(n)
    partial = guarded(np.float32, size)
    cpu.lib.mse_loss_forward_f32(loss.ctypes.data, partial.ctypes.data, x.ctypes.data, target.ctypes.data, n, 2)
    assert (partial[size:] == 12345).all() and not np.isnan(partial[:size]).any()
    assert loss[0] == np.float32(n)


def test_work_space_text_is_the_header():
    assert cpu.WORKSPACE_TEXT == (Path(__file__).parent.parent / "native" / "workspace.h").read_text()


def run(code, **environment):
    """In a fresh process, outside the source folder (whose minigrad is not built)."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment},
                          cwd=tempfile.gettempdir())


@pytest.mark.parametrize("level", cpu.LEVELS[:cpu.LEVELS.index(cpu.best_simd_level()) + 1])
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
    unbuilt = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    copied = shutil.copytree(Path(mg.__file__).parent, tmp_path / "minigrad", ignore=unbuilt)
    assert copied.exists()
    # -S: an editable install puts an import hook in front of sys.path, by a .pth file
    code = f"import sys; sys.path[:0] = {[str(tmp_path), *sys.path]!r}; import minigrad"
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert ran.returncode and "pip install ." in ran.stderr
