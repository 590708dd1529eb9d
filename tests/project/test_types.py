"""What editors, type checkers, `help` and `dir` show: stubs, a right and a wrong program, docstrings, public names."""
from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from project import stubs, typed_program

import minigrad as mg
from minigrad import Tensor

PROGRAM = Path(typed_program.__file__)
MISTAKES = """import minigrad as mg
from minigrad import Tensor

x = mg.zeros(2, 3)
x.unsqeeze(0)  # wrong
x.unsqueeze(0)
mg.zeroes(2)  # wrong
mg.zeros(2, dtyp=mg.float32)  # wrong
x.sum(dims=0)  # wrong
x.sum(axis=0, keepdims=True)
mg.softmax(x, dim=0, axes=1)  # wrong
mg.exp(x, x)  # wrong
mg.add("a", x)  # wrong
mg.layer_norm(x, None, None)  # wrong
mg.layer_norm(x, (3,), None, None)
x.grad.sum()  # wrong
x + "a"  # wrong
x.to(devise="cpu")  # wrong
x.clamp_(minimum=0)  # wrong
x.elu(0.5) + 2 * x ** 2 @ x
n: int = x.shape  # wrong
y: int = x.max()  # wrong
z: Tensor = x.max(dim=0)  # wrong
mg.np  # wrong
mg.tensor([1], requires_grad=True).backward(gradient=1)  # wrong
def f(t: Tensor) -> float:
    return t.exp()  # wrong
"""
WRONG = {i for i, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith("# wrong")}


def checked(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=folder, timeout=300,
                              env={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} gave no answer in 300 s")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """A folder with the good program and the one with mistakes."""
    folder = tmp_path_factory.mktemp("programs")
    shutil.copy(PROGRAM, folder / "good.py")
    (folder / "mistakes.py").write_text(MISTAKES)
    return folder


@pytest.fixture(scope="module")
def by_mypy(programs: Path) -> dict[str, dict[int, str]]:
    """The errors of `mypy --strict` by file and line."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = ["mypy", "--strict", "--config-file=", "--no-color-output", "good.py", "mistakes.py"]
    ran = checked(programs, command, PYTHONPATH=str(stubs.ROOT.parent))     # as an installed package
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    errors: dict[str, dict[int, str]] = {"good.py": {}, "mistakes.py": {}}
    for line in ran.stdout.splitlines():
        if ": error: " in line:
            where, _, message = line.partition(": error: ")
            file, _, number = where.partition(":")
            errors[file][int(number)] = message
    return errors


@pytest.fixture(scope="module")
def by_pyright(programs: Path) -> dict[str, dict[int, str]]:
    """The errors of pyright (its default rules) by file and line."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    if shutil.which("node") is None:
        pytest.skip("pyright runs on node, which is not installed")
    (programs / "pyrightconfig.json").write_text(json.dumps({
        "include": ["good.py", "mistakes.py"], "extraPaths": [str(stubs.ROOT.parent)], "typeCheckingMode": "standard"}))
    ran = checked(programs, ["pyright", "--outputjson", "--pythonpath", sys.executable])
    if not ran.stdout.startswith("{"):
        pytest.skip(f"pyright does not run: {(ran.stdout + ran.stderr).strip()[-200:]}")
    errors: dict[str, dict[int, str]] = {"good.py": {}, "mistakes.py": {}}
    for found in json.loads(ran.stdout)["generalDiagnostics"]:
        if found["severity"] == "error":
            errors[Path(found["file"]).name][found["range"]["start"]["line"] + 1] = found["message"]
    return errors


# ---- stubs ----------------------------------------------------------------------------------------------------------
def test_the_stubs_are_up_to_date():
    assert not stubs.differences(), f"run `python tests/project/stubs.py --write`:\n{stubs.differences()}"


def test_the_program_runs(tmp_path):
    typed_program.main(tmp_path)


@pytest.mark.slow
def test_mypy_finds_nothing_in_a_right_program(by_mypy):
    assert by_mypy["good.py"] == {}


@pytest.mark.slow
def test_mypy_finds_every_mistake(by_mypy):
    assert set(by_mypy["mistakes.py"]) == WRONG, by_mypy["mistakes.py"]


@pytest.mark.slow
def test_pyright_finds_nothing_in_a_right_program(by_pyright):
    assert by_pyright["good.py"] == {}


@pytest.mark.slow
def test_pyright_finds_every_mistake(by_pyright):
    assert set(by_pyright["mistakes.py"]) == WRONG, by_pyright["mistakes.py"]


@pytest.mark.slow
def test_jedi_completes():
    jedi = pytest.importorskip("jedi", reason="jedi is not installed")
    if not hasattr(type(mg.__spec__.loader), "get_source"):
        pytest.skip("jedi reads a module by its loader's get_source, which an editable install's loader has not")
    project = jedi.Project(str(stubs.ROOT.parent), added_sys_path=[str(stubs.ROOT.parent)])

    def names(code: str) -> set[str]:
        return {c.name for c in jedi.Script(f"import minigrad as mg\n{code}", project=project).complete()}
    assert {"exp", "unsqueeze", "add_", "T", "shape", "backward", "to", "grad"} <= names("mg.tensor(1).")
    assert {"sum", "detach"} <= names("(mg.tensor(1) + 1).exp().")
    assert {"tensor", "zeros", "exp", "nn", "save", "float32", "no_grad"} <= names("mg.")
    signature, = jedi.Script("import minigrad as mg\nmg.tensor([1.0]).sum(", project=project).get_signatures()
    assert [p.name for p in signature.params] == ["dim", "keepdim", "dtype", "axis", "keepdims"]


# ---- dir and help ---------------------------------------------------------------------------------------------------
def test_dir_shows_what_is_public_and_nothing_else():
    shown = dir(mg)
    submodules = {"autograd", "bench", "cuda", "data", "io", "nn", "optim", "study", "testing", "utils"}
    values = {"float32", "int", "bool", "bfloat16", "e", "inf", "nan", "pi", "newaxis"}
    others = {"Tensor", "Size", "Device", "device", "save", "load", "no_grad", "capture", "op"}
    assert {*submodules, *values, *others, *mg.ops.__all__} <= set(shown)
    assert len(shown) == len(set(shown)) and not [name for name in shown if name.startswith("_")]
    assert not {"ops", "core", "devices", "annotations", "Any", "np"} & set(shown)
    for name in set(shown) - {"bfloat16"}:
        assert hasattr(mg, name), name


METHODS_OF_OPS = sorted(name for name in mg.ops.__all__ if isinstance(vars(Tensor).get(name), types.FunctionType))


def test_every_public_name_has_a_docstring():
    here = {name: getattr(mg, name) for name in dir(mg) if name != "bfloat16"}
    missing = {name for name, value in here.items()
               if (callable(value) or isinstance(value, types.ModuleType)) and not inspect.getdoc(value)}
    attributes = {name: inspect.getattr_static(Tensor, name) for name in dir(Tensor) if not name.startswith("_")}
    missing |= {f"Tensor.{name}" for name, value in attributes.items()
                if name not in METHODS_OF_OPS and not inspect.getdoc(value)}
    assert not missing


def test_help_of_a_method_shows_its_op():
    for name in METHODS_OF_OPS:
        method = getattr(Tensor, name)
        assert inspect.getdoc(method), name
        shown = set(inspect.signature(method).parameters)
        hidden = {"others", "inputs", "numbers", "named", "attrs", "options"} & shown
        assert not hidden, f"{name} hides its arguments behind {hidden}"
        if hasattr(Tensor, f"{name}_"):
            assert "others" not in inspect.signature(getattr(Tensor, f"{name}_")).parameters, f"{name}_"
