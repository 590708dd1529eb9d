"""The examples: ten steps of each against the curves frozen from torch, captured steps against eager ones, and a run of the smallest."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from golden import curves

import minigrad as mg
from minigrad import optim

GOLDEN = json.loads((curves.HERE / "curves.json").read_text())["curves"]
sys.path.insert(0, str(curves.EXAMPLES))
pytest.importorskip("tqdm", reason="the examples' extra is not installed")


def test_every_example_has_a_curve():
    programs = {p.stem for p in curves.EXAMPLES.glob("*.py")} - {"experiment", "new_op"}
    assert programs == {case.example for case in curves.CASES.values()}
    assert GOLDEN.keys() == curves.CASES.keys()


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("name", curves.CASES)
def test_golden(name, captured):
    case = curves.CASES[name]
    losses = curves.curve(case, import_module(case.example), optim, mg.tensor, wrap=mg.capture if captured else lambda step: step)
    np.testing.assert_allclose(losses, GOLDEN[name], rtol=0, atol=1e-9)


SMALL = {"digits_mlp": lambda e: e.build("batch", 32), "digits_cnn": lambda e: e.build(8), "digits_rnn": lambda e: e.RowReader(hidden=16),
         "mnist_cnn": lambda e: e.build(2), "cifar_cnn": lambda e: e.build(2), "char_rnn": lambda e: e.CharRNN(30, 16),
         "char_transformer": lambda e: e.CharTransformer(30, 16, 2, 2), "adding_problem": lambda e: e.Adder("gru", 16)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_200_captured_steps_are_eager_ones(name):
    """Bit for bit, with dropout and running statistics."""
    case, example = curves.CASES[name], import_module(curves.CASES[name].example)

    def run(wrap):
        mg.manual_seed(0)
        model = SMALL[name](example)
        optimizer, options = case.optimizer
        step = wrap(example.training_step(model, getattr(optim, optimizer)(model.parameters(), **options)))
        rng, losses = np.random.default_rng(1), []
        for _ in range(200):
            arrays = [mg.tensor(a.astype(np.float32) if a.dtype.kind == "f" else a) for a in case.batches(rng)]
            result = step(*arrays)
            losses.append((result[0] if isinstance(result, tuple) else result).item())
        return losses, {k: v.numpy(force=True) for k, v in model.state_dict().items()}
    (eager, want), (captured, got) = run(lambda step: step), run(mg.capture)
    assert captured == eager
    assert len(set(eager)) > 190
    for key in want:
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)


@pytest.mark.slow
def test_a_program_runs_and_resumes(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the examples' extra is not installed")
    program = [sys.executable, str(Path(curves.EXAMPLES, "digits_mlp.py")), "--out", str(tmp_path), "--norm", "batch"]
    subprocess.run([*program, "--epochs", "1"], check=True, capture_output=True)
    again = subprocess.run([*program, "--epochs", "2", "--resume"], check=True, capture_output=True, text=True)
    assert "resumed after epoch 1" in again.stdout
    assert (tmp_path / "digits_mlp_batch.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_new_op_in_three_steps():
    """With a C compiler: kernels run, every check holds, and the table says so."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler here")
    ran = subprocess.run([sys.executable, "new_op.py"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "fused kernels are switched off" in ran.stdout and "launches capped_norm_forward_f32\n" in ran.stdout
    assert "capped_norm: all checks hold\n  oracle     2 samples" in ran.stdout and "fused      2 of 2 samples" in ran.stdout
    table = ran.stdout.splitlines()[-3:]
    assert table[0].split()[:3] == ["capped_norm", "kernel", "definition"] and table[1].startswith("[1024, 256], [256] ")
    again = subprocess.run([sys.executable, "-m", "minigrad.bench", "new_op:capped_norm"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.splitlines()[0].split() == table[0].split()
    wrong = subprocess.run([sys.executable, "-m", "minigrad.bench", "new_op:main"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert wrong.returncode == 2 and "'new_op:main' is no op: decorate the function with @minigrad.op" in wrong.stderr
