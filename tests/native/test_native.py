"""The list of kernels is one: what minigrad.h declares is built, and is what the Python side launches. SIMD levels, threads, fork."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import run_python

import minigrad as mg
from minigrad import nn, optim, testing
from minigrad.core.op import registry
from minigrad.devices import launch_hook
from minigrad.devices.base import split
from minigrad.devices.native import LEVELS, best_simd_level
from minigrad.distributed.shared import Shared

SOURCES = [p.read_text() for p in Path(mg.__file__).parent.rglob("*.py")]
FAMILIES = sorted({split(k.name)[0] for k in mg.device("cpu").kernels})


def train(optimizer, **options):
    p = nn.Parameter(mg.ones(3))
    p.grad = mg.ones(3)
    nn.utils.clip_grad_norm_([p], 1.0)
    nn.utils.clip_grad_value_([p], 0.5)
    optimizer([p], lr=0.1, **options).step()


def normalize():
    x, norm = mg.randn(4, 3, requires_grad=True), nn.BatchNorm1d(3)
    norm(x)
    norm(x[:, :, None], mask=mg.ones(4, 1, dtype=mg.bool))
    norm.eval()(x).sum().backward()         # the statistics take no gradient here, as they do in the op's samples


# kernels that no op's sample launches: who does, by family
OTHERS = {
    ("sgd", "grad_norm_sq", "grad_scale", "grad_clip"): lambda: train(optim.SGD),
    ("adam",): lambda: train(optim.Adam), ("rmsprop",): lambda: train(optim.RMSprop), ("adagrad",): lambda: train(optim.Adagrad), ("composed_update",): lambda: train(optim.NAdam),
    ("running_update", "counted_update", "batch_norm_eval_backward"): normalize,
    ("uniform",): lambda: mg.rand(3), ("normal",): lambda: mg.randn(3), ("random_bits",): lambda: mg.randint(0, 5, (3,)),
    ("dropout_forward",): lambda: nn.functional.dropout(mg.ones(3)),
    ("check_range",): lambda: nn.functional.binary_cross_entropy(mg.ones(3), mg.ones(3)),
    ("average",): lambda: Shared([np.ones(3, np.float32), np.zeros(3, np.float32)], 0).average(),
}
UNUSED = {"fma_roof"}                       # the benchmark measures the CPU's peak with it


def test_every_kernel_is_launched():
    """By the samples of the ops, forward or backward, or by who is listed above."""
    mg.device("cpu")
    launched = set()

    def visit(kernel, arguments):
        launched.add(split(kernel.name)[0])
        kernel.function(*arguments)
    with launch_hook(visit), np.errstate(all="ignore"):
        for op in registry.values():
            for args, attrs in testing.samples_of(op, np.float32) if op.sample_function else ():
                testing.evaluate(op, args, attrs)
    by_samples = set(launched)
    for families, call in OTHERS.items():
        assert not by_samples & set(families), f"samples launch {families} by now: take them out of OTHERS"
        with launch_hook(visit):
            call()
        assert set(families) <= launched, f"{set(families) - launched} is not launched by who is said to do so"
    assert launched.isdisjoint(UNUSED)
    assert not set(FAMILIES) - launched - UNUSED, f"in minigrad.h, but nothing launches {set(FAMILIES) - launched - UNUSED}"


def test_no_kernel_is_missing():
    asked = {name for text in SOURCES for name in re.findall(r"\bkernels\.(\w+)\[", text)}
    assert asked <= set(FAMILIES), f"launched, but not in minigrad.h: {asked - set(FAMILIES)}"


def run(code, **environment):
    return run_python("-c", code, **environment)


@pytest.mark.slow
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
    unbuilt = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    copied = shutil.copytree(Path(mg.__file__).parent, tmp_path / "minigrad", ignore=unbuilt)
    assert copied.exists()
    # -S: an editable install puts an import hook in front of sys.path, by a .pth file
    code = f"import sys; sys.path[:0] = {[str(tmp_path), *sys.path]!r}; import minigrad"
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert ran.returncode and "pip install ." in ran.stderr
