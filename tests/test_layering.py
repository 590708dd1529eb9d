"""The house's layers: who may import whom, and how long the core may be."""
from __future__ import annotations

import ast
from pathlib import Path

import minigrad

ROOT = Path(minigrad.__file__).parent
CORE = {"memory", "device", "shape", "tensor", "engine", "op"}
OBSERVERS = {"study", "testing", "bench"}


def imports(path: Path) -> set[str]:
    """The rooms of minigrad that a file imports when it is loaded or run, e.g. {"tensor", "ops"}."""
    here = ["minigrad", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[:len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*module, a.name]) for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("minigrad.")}
    return found


def files(*rooms: str) -> list[Path]:
    return [p for r in rooms for p in ([ROOT / f"{r}.py"] if (ROOT / f"{r}.py").exists() else sorted((ROOT / r).rglob("*.py")))]


def test_core_imports_no_ops():
    for path in files("memory", "shape", "tensor", "engine", "op"):
        assert imports(path) <= CORE, f"{path.name} imports {imports(path) - CORE}"


def test_device_opens_only_the_devices():
    assert imports(ROOT / "device.py") <= CORE | {"cpu", "cuda"}


def test_ops_import_core_only():
    for path in files("ops"):
        assert not imports(path) & {"nn", "optim", "data", "utils", "autograd", *OBSERVERS}, path


def test_layers_import_core_and_ops_only():
    for path in files("nn"):
        assert not imports(path) & {"optim", "data", "utils", "autograd", *OBSERVERS}, path


def test_utils_import_core_and_ops_only():
    for path in files("utils"):
        room = {"data"} if path.name == "data.py" else set()           # it is minigrad.data under PyTorch's name
        assert imports(path) <= CORE | {"ops", "utils"} | room, f"{path.name} imports {imports(path)}"


def test_nothing_imports_the_observers():
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room not in OBSERVERS and room != "__init__":
            assert not imports(path) & OBSERVERS, f"{path} imports {imports(path) & OBSERVERS}"


def test_core_is_short():
    lines = sum(len((ROOT / f"{name}.py").read_text().splitlines()) for name in ("tensor", "engine", "op", "shape"))
    assert lines < 1500, f"tensor, engine, op and shape have {lines} lines"
