"""An op is added to a copy of the tree with three new files and its lines in native/minigrad.h; the copy is built, and the op checked.

Once with the op below, once with the files of native/README.md's section "Add an op to the tree". There, a fenced block is a file if the
language is followed by a path, as in

    ```c native/hard_mish.c

A block of a file that exists already (native/minigrad.h) holds the lines to add to it.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from support import ROOT

HERE = {
    "minigrad/ops/cubic.py": '''
from __future__ import annotations

from typing import Any

from ..core.op import op
from ..core.tensor import Tensor
from ..devices.launch import launch, over
from ..devices.memory import alloc

__all__ = ["cubic"]


@op
def cubic(x: Tensor, *, scale: float = 0.5) -> Tensor:
    """x^3 + scale x"""
    return x * x * x + x * scale


@cubic.fused
def _cubic_kernels(kernels: Any, x: Any, *, scale: float = 0.5) -> Any:
    forward, backward = kernels.cubic_forward[x.dtype], kernels.cubic_backward[x.dtype]

    def run_forward(xa: Any) -> Any:
        y = alloc(x)
        forward.call(y.ptr, xa.ptr, x.size, scale)
        return y, xa

    def run_backward(xa: Any, g: Any, needs: list) -> list:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, xa.ptr, x.size, scale)
        return [gx]
    return run_forward, run_backward


@cubic.reference
def _cubic_oracle(x: Any, *, scale: float = 0.5) -> Any:
    return x ** 3 + scale * x


@cubic.samples
def _cubic_samples(make: Any) -> Any:
    yield make(4, 33)
    yield make(7), {"scale": -2.0}


launch("ops/cubic.cu", "cubic_forward cubic_backward", lambda k, host: [over(k.n)])
''',
    "native/cubic.c": """/* types: f32 f64 */
/* y = x^3 + scale x, elementwise. */
#include "simd.h"

void FN(cubic_forward)(T *y, const T *x, int64_t n, double scale) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * (x[i] * x[i] + (T)scale);
}
void FN(cubic_backward)(T *gx, const T *g, const T *x, int64_t n, double scale) {
  for (int64_t i = 0; i < n; i++) gx[i] = g[i] * (3 * x[i] * x[i] + (T)scale);
}
""",
    "minigrad/ops/cubic.cu": """// y = x^3 + scale x, elementwise.
#if IS_REAL
KERNEL(cubic_forward)(T *y, const T *x, int64_t n, double scale) {
  GRID_LOOP(i, n) y[i] = x[i] * (x[i] * x[i] + (T)scale);
}
KERNEL(cubic_backward)(T *gx, const T *g, const T *x, int64_t n, double scale) {
  GRID_LOOP(i, n) gx[i] = g[i] * (3 * x[i] * x[i] + (T)scale);
}
#endif
""",
    "native/minigrad.h": """KERNEL(REAL, cubic_forward, T *y, const T *x, int64_t n, double scale)
KERNEL(REAL, cubic_backward, T *gx, const T *g, const T *x, int64_t n, double scale)
""",
}


def files_of(page: str, title: str) -> dict[str, str]:
    """The files that a section of a page in Markdown gives: text by path."""
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return {path: text for path, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", section, re.M | re.S)}


def in_the_readme() -> dict[str, str]:
    return files_of((ROOT / "native" / "README.md").read_text(), "Add an op to the tree")


CHECK = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]       # of an editable install: it goes before sys.path
import numpy as np
import minigrad as mg
from minigrad import study, testing
from minigrad.core.op import registry
from minigrad.ops.dispatch import set_fused
name = sys.argv[1]
op = registry[name]
testing.check_op(op)
args, attrs = testing.samples_of(op, np.float32)[0]
print(mg.__file__, study.explain(op, *args, **attrs))
if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
    from cuda_on_cpu import fakeblas, fakecupy
    from minigrad.devices import blas, cuda
    cuda.cp, blas.library = fakecupy, fakeblas
    for on_cpu, on_cuda in zip(testing.samples_of(op, np.float32), testing.samples_of(op, np.float32, device="cuda")):
        with set_fused("require"):
            results = [testing.evaluate(op, *sample) for sample in (on_cpu, on_cuda)]
        for a, b in zip([*results[0][0], *results[0][1]], [*results[1][0], *results[1][1]]):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
"""


def build(tree) -> None:
    tools = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    for command in (["-S", ".", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}",
                     "-DCMAKE_INSTALL_PREFIX=."], ["--build", "build"], ["--install", "build"]):
        ran = subprocess.run(["cmake", *command], cwd=tree, capture_output=True, text=True, env=tools)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("files", [lambda: HERE, in_the_readme], ids=["this file's", "the README's"])
def test_an_op_is_three_files_and_its_lines_in_the_header(files, tmp_path):
    added = files()
    for tool, there in (("cmake", shutil.which("cmake")), ("ninja", shutil.which("ninja")), ("cffi", find_spec("cffi"))):
        if not there:
            pytest.skip(f"{tool} is not installed: the copy cannot be built")
    for part in ("minigrad", "native"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path)
    new = [path for path in added if not (tmp_path / path).exists()]
    assert sorted(os.path.splitext(path)[1] for path in new) == [".c", ".cu", ".py"] and set(added) - set(new) == {"native/minigrad.h"}
    for path in new:
        (tmp_path / path).write_text(added[path])
    header = tmp_path / "native" / "minigrad.h"
    text = header.read_text()
    first = re.search(r"^(KERNEL|UNARY)\(", text, re.M).start()
    header.write_text(text[:first] + added["native/minigrad.h"] + text[first:])
    build(tmp_path)
    name = os.path.basename(next(path for path in new if path.endswith(".py"))).removesuffix(".py")
    emulator = [str(ROOT / "tests")] if sys.platform == "linux" and shutil.which(os.environ.get("CXX", "g++")) else []
    ran = subprocess.run([sys.executable, "-c", CHECK, name, *emulator], capture_output=True, text=True, cwd=tmp_path / "build",
                         env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(tmp_path)) and "fused kernel on cpu" in ran.stdout
    check_the_tree(tmp_path)


def check_the_tree(tree) -> None:
    """The rules of the house hold with the op in it, once the stubs are written."""
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    tools = {**os.environ, "PYTHONPATH": str(tree)}
    for command in (["tests/project/stubs.py", "--write"], ["tests/project/stubs.py"],
                    ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/project/test_layering.py"]):
        ran = subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, env=tools)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
