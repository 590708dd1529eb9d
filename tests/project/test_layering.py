"""The house: six floors, every import runs down, no circle; how long the core may be, and what one must read to follow `x + y`."""
from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from support import run_python

import minigrad
from minigrad.core.op import registry
from minigrad.devices import open_device

ROOT = Path(minigrad.__file__).parent
FLOORS = {"devices": 1, "core": 2, "ops": 3, "amp": 4, "nn": 4, "optim": 4, "data": 4, "distributed": 4, "io": 4, "linalg": 4, "masked": 4, "signal": 4, "special": 4, "testing": 4, "__init__": 4,
          "study": 5, "autograd": 5, "distributions": 5, "utils": 5, "bench": 5, "cuda": 5,
          "func": 5, "__main__": 5, "as_torch": 6}
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in ROOT.rglob("*.py")}
CORE = ("shape", "tape", "engine", "tensor", "op")
READING = (*[f"core/{name}" for name in CORE], "core/modes", "core/gradient", "core/hooks", "core/arrays", "devices/memory", "devices/plan", "devices/base",
           "devices/cpu", "devices/private", "devices/addresses", "ops/arguments", "ops/dispatch", "ops/elementwise")       # what runs for x + y and its gradient
ADDITION = """
import sys, minigrad as mg
x, y = mg.ones(3, requires_grad=True), mg.ones(3)
seen = set()
sys.setprofile(lambda frame, event, _: event == "call" and seen.add((frame.f_code.co_filename, frame.f_code.co_name)))
for _ in range(2):
    z = x + y
z.backward(y)
x.grad
sys.setprofile(None)
print("\\n".join(f"{file}:{name}" for file, name in seen))
"""


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a file's syntax, parsed once for all tests."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(module: str) -> set[str]:
    """The modules of minigrad that a module imports, anywhere in its text."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for a in node.names:
                found.add(f"{source}.{a.name}" if f"{source}.{a.name}" in MODULES else source)
    return {name for name in found if name in MODULES} - {module}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_a_floor():
    assert {room(m) for m in MODULES} == set(FLOORS)


def test_the_readme_has_every_room_on_its_floor():
    rows = [line.split("|") for line in (Path(__file__).parents[2] / "minigrad/README.md").read_text().splitlines() if re.match(r"\| \d \|", line)]
    assert {name: int(floor) for _, floor, rooms, *_ in rows for name in re.findall(r"(\w+)(?:/|\.py)", rooms)} == FLOORS


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_import_runs_down(module):
    up = {m for m in imports(module) if room(m) != room(module) and FLOORS[room(m)] > FLOORS[room(module)]}
    assert not up, f"{module} imports {up} from a higher floor"


def test_rooms_on_one_floor_form_no_circle():
    below = {m: {room(n) for n in imports(m)} for m in MODULES}
    for a in FLOORS:
        for b in FLOORS:
            both = any(b in below[m] for m in MODULES if room(m) == a) and any(a in below[m] for m in MODULES if room(m) == b)
            assert a == b or not both, f"{a} and {b} import each other"


def test_no_modules_form_a_circle():
    edges = {m: imports(m) for m in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*path, module))
            done.add(module)
    for module in sorted(edges):
        visit(module, ())


def test_core_never_imports_ops():
    for module in MODULES:
        if room(module) in ("core", "devices"):
            assert not {room(m) for m in imports(module)} - {"core", "devices"}, module


def test_core_has_no_list_of_ops():
    """What it has to know of an op stands where the op is defined: a new one would have to be added to a list."""
    minigrad.ops.load_all()
    names = {*registry, *minigrad.ops.__all__, *(kernel.name.rpartition("_")[0] for kernel in open_device("cpu").kernels)}
    for module in MODULES:
        if room(module) in ("core", "devices"):
            for node in nodes(MODULES[module]):
                texts = [e.value for e in getattr(node, "elts", ()) if isinstance(e, ast.Constant) and isinstance(e.value, str)]
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split" and isinstance(node.func.value, ast.Constant):
                    texts = node.func.value.value.split()
                assert len(texts) < 2 or not names.issuperset(texts), f"{module}, line {node.lineno}: {texts}"


def test_only_doors_import_what_looks_at_the_core():
    looking = {"study", "testing", "bench"}
    for module in set(MODULES) - {"minigrad.autograd.profiler"}:         # PyTorch's name for study.profile
        if room(module) not in looking:
            assert not {room(m) for m in imports(module)} & looking, f"{module} imports {imports(module)}"


def test_layers_do_not_import_optimisers_or_data():
    for module in MODULES:
        if room(module) == "nn":
            assert not {room(m) for m in imports(module)} & {"optim", "data", "io"}, module


def lines(*names: str) -> int:
    return sum(len((ROOT / f"{name}.py").read_text().splitlines()) for name in names)


def test_core_is_short():
    assert lines(*[f"core/{name}" for name in CORE]) < 1500


def test_what_one_reads_to_follow_an_addition_is_short():
    assert lines(*READING) < 3800


def test_what_one_reads_to_follow_an_addition_is_all_that_runs():
    ran = {line for line in run_python("-c", ADDITION).stdout.splitlines() if str(ROOT) in line}
    others = [line for line in ran if str(Path(line.partition(":")[0]).relative_to(ROOT).with_suffix("")) not in READING]
    assert len(ran) > 50
    assert sorted(Path(line).name for line in others if "<" not in line) == ["convert.py:cast", "creation.py:clone"], others
    assert {Path(line).name for line in others if "<" in line} == {"math.py:<lambda>"}               # the row of `add`


def test_no_function_is_longer_than_60_lines():
    for path in ROOT.rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"


def test_no_line_is_longer_than_120_columns():
    for path in ROOT.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 120, f"{path.relative_to(ROOT)}:{number} has {len(line)} columns"


def test_no_inner_function_calls_itself():
    """It would refer to itself, so that only the garbage collector could free it, with all that it refers to."""
    for path in ROOT.rglob("*.py"):
        for outer in nodes(path):
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for inner in ast.walk(outer):
                    if isinstance(inner, ast.FunctionDef) and inner is not outer:
                        calls = [n.func for part in inner.body for n in ast.walk(part) if isinstance(n, ast.Call)]
                        assert not any(isinstance(f, ast.Name) and f.id == inner.name for f in calls), \
                            f"{path.relative_to(ROOT)}:{inner.lineno} {inner.name}"


def test_warnings_are_made_in_one_place():
    """`core/warning.py` finds the user's line; a `stacklevel` that is counted by hand ends in the package."""
    for path in ROOT.rglob("*.py"):
        if path != ROOT / "core/warning.py":
            for node in nodes(path):
                names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [a.name for a in node.names] if isinstance(node, ast.Import) else []
                assert "warnings" not in names, f"{path.relative_to(ROOT)}:{node.lineno} imports warnings; use core.warning.warn"
