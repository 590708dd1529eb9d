"""The stubs: what type checkers and editors read of names that exist only at run time.

    python tests/project/stubs.py            compares them with the package, and fails where they differ
    python tests/project/stubs.py --write    writes them

`minigrad.ops` gathers functions from its modules and binds methods to `Tensor` when it is imported, so no type checker
sees them in the sources. This program reads them from the imported package and writes two files:

* `minigrad/__init__.pyi`: every public name of `minigrad`;
* `minigrad/core/methods.pyi`: `Methods`, for type checkers the base class of `Tensor`, with all that is bound.

There is no `core/tensor.pyi`: type checkers would then leave out the bodies of `core/tensor.py`.
"""
from __future__ import annotations

import ast
import builtins
import difflib
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":              # the package of this checkout, whichever is installed
    sys.path.insert(0, str(Path(__file__).parents[2]))

import minigrad  # noqa: E402
from minigrad import Tensor  # noqa: E402
from minigrad.core.tensor import ValuesIndices  # noqa: E402

ROOT = Path(minigrad.__file__).parent
minigrad.ops.load_all()
OPS = {name: getattr(minigrad, name) for name in minigrad.ops.__all__}
WIDTH = 120
HEAD = '''"""{}

Written by tests/project/stubs.py: change the sources, then run `python tests/project/stubs.py --write`.
"""
'''
OPERAND = "Tensor | builtins.float | np.number[Any] | np.bool_ | np.ndarray[Any, Any]"       # float: int and bool too
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
OPERATORS = {f"__{prefix}{name}__" for name in BINARY for prefix in ("", "r", "i")}
COMPARISONS = {f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge")}
UNARY = {f"__{name}__" for name in ("neg", "pos", "abs", "invert")}
# What these return depends on their arguments, which one signature cannot say: (parameters after the first, result).
OVERLOADS = {
    **dict.fromkeys(("max", "min"), (
        ("", "Tensor"), ("other: Tensor", "Tensor"),
        ("dim: builtins.int, keepdim: builtins.bool = False", "ValuesIndices"),
        ("*, axis: builtins.int, keepdims: builtins.bool = False", "ValuesIndices"))),
    "nonzero": (("*, as_tuple: Literal[False] = False", "Tensor"),
                ("*, as_tuple: Literal[True]", "builtins.tuple[Tensor, ...]")),
    "unique": (("sorted: builtins.bool = True, *, dim: builtins.int | None = None", "Tensor"),
               ("sorted: builtins.bool = True, return_inverse: builtins.bool = False, "
                "return_counts: builtins.bool = False, dim: builtins.int | None = None", "Any")),
    "where": (("", "builtins.tuple[Tensor, ...]"),
              ("input: Operand, other: Operand, *, out: Tensor | None = None", "Tensor")),
}


class Names:
    """Annotations as text in a stub of `package`, and the imports that they need."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.imports: dict[str, set[str]] = {"typing": {"Any"}}     # module: names

    def imported(self, module: str, name: str) -> str:
        """A name, imported: relatively from a module of minigrad."""
        if module.startswith(f"{self.package}."):
            module = module.removeprefix(self.package)
        elif module.startswith("minigrad."):
            module = "." + module.removeprefix("minigrad")
        self.imports.setdefault(module, set()).add(name)
        return name

    def text(self, annotation: Any, scope: dict[str, Any]) -> str:
        """An annotation of a function whose globals are `scope`."""
        if annotation is Parameter.empty:
            return "Any"
        if not isinstance(annotation, str):
            annotation = "None" if annotation is None else annotation.__name__
        return ast.unparse(_Qualified(self, scope).visit(ast.parse(annotation, mode="eval").body))

    def text_of_imports(self, public: Iterable[tuple[str, str]] = ()) -> str:
        """The import statements. In a stub, `import x as x` makes a name public."""
        public = set(public)
        found = [(module, f"{name} as {name}") for module, name in public]
        for module, names in self.imports.items():
            ordered = sorted(names, key=lambda name: (not name.isupper(), name))           # as ruff orders imports
            private = [name for name in ordered if (module, name) not in public]
            found += [(module, ", ".join(private))] if private else []
        lines = [f"from {module} import {names}" for module, names in sorted(found)]
        groups: tuple[list[str], ...] = ["import builtins"], ["import numpy as np"], []
        for line in lines:
            groups[1 if line.startswith("from numpy") else 2 if line.startswith("from .") else 0].append(line)
        return "\n\n".join("\n".join(group) for group in groups) + "\n"


class _Qualified(ast.NodeTransformer):
    """Python's own names become `builtins.int`, since methods and dtypes hide them; others are imported."""

    def __init__(self, names: Names, scope: dict[str, Any]) -> None:
        self.names, self.scope = names, scope

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in ("Any", "Operand", "Literal"):
            if node.id == "Literal":
                self.names.imported("typing", "Literal")
            return node
        value = self.scope.get(node.id)
        if isinstance(getattr(builtins, node.id, None), type) and not isinstance(value, type):
            return ast.Attribute(ast.Name("builtins"), node.id)
        if value is np:
            return ast.Name("np")
        if value is None:
            raise NameError(f"{node.id} in an annotation is no name of its module")
        self.names.imported(value.__module__, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        text = f"{ast.unparse(self.visit(node.value))}.{node.attr}"
        arguments = {"np.dtype": "[Any]", "np.ndarray": "[Any, Any]"}.get(text, "")     # mypy --strict asks for them
        return ast.parse(text + arguments, mode="eval").body

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node


# ---- signatures -----------------------------------------------------------------------------------------------------
def underlying(function: Any) -> Any:
    """The plain function whose signature an op shows."""
    if isinstance(function, types.FunctionType):
        return inspect.unwrap(function)
    return getattr(function, "definition", type(function).__call__)


def signature_of(function: Any) -> Signature:
    """How a public function or op is called."""
    signature = inspect.signature(underlying(function))
    parameters = list(signature.parameters.values())
    either = Parameter.POSITIONAL_OR_KEYWORD
    if isinstance(function, types.FunctionType):
        if getattr(getattr(function, "op", None), "any_layout", False):     # an activation: its numbers by position too
            parameters = [p.replace(kind=either) for p in parameters]
        return signature.replace(parameters=parameters)
    if hasattr(function, "definition"):                     # an op
        if getattr(function, "prepare", None) is not None:          # fused kernels take tensors by position only
            parameters = [p.replace(kind=p.POSITIONAL_ONLY) if p.kind == either else p for p in parameters]
        return signature.replace(parameters=parameters)
    alone = max(function.tensors, len(function.inputs) == 1)    # an elementwise primitive: so many must be tensors
    inputs = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation="Tensor" if i < alone else "Operand")
              for i, name in enumerate(function.inputs)]
    if function.options is not None:
        parameters = [*inspect.signature(function.options).parameters.values(), *parameters]
    return Signature([*inputs, *[p for p in parameters if p.kind == p.KEYWORD_ONLY]], return_annotation="Tensor")


def is_open(method: Any) -> bool:
    """Does its code take arguments that it does not name, and hand them on?"""
    return bool(method.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def method_signature(name: str, method: Any) -> tuple[Any, Signature]:
    """How a bound method is called, without its first parameter, and the function whose names its annotations use.

    Methods of ops hand their arguments on: those not named in the method are those of the op.
    """
    own = inspect.signature(method)
    in_place = name.endswith("_") and is_open(method)
    function = OPS.get(name[:-1] if in_place else name)
    if function is not None and function is method:
        own = signature_of(function)
    if function is None or isinstance(function, types.FunctionType) and not in_place:
        return method, own.replace(parameters=list(own.parameters.values())[1:])
    of = signature_of(function)
    parameters = [p for p in list(of.parameters.values())[1:] if is_open(method) or p.name in own.parameters]
    if in_place:
        return function, of.replace(parameters=[p for p in parameters if p.name != "out"], return_annotation="Tensor")
    return function, of.replace(parameters=parameters)


def given_by_name(function: Any) -> str:
    """The name in `f(2, 3)` or `f(name=(2, 3))`: the message for a wrong one tells."""
    try:
        function(*[Tensor([0.0])] if "input" in inspect.signature(function).parameters else (), unknown=0)
    except TypeError as error:
        return str(error).partition("; it takes ")[2].partition(",")[0]
    raise AssertionError(f"{function} takes an argument of any name")


def default_text(p: Parameter) -> str:
    if p.default is Parameter.empty:
        return ""
    plain = isinstance(p.default, (bool, int, str, float, types.NoneType)) and p.default not in (math.inf, -math.inf)
    return f" = {p.default!r}" if plain else " = ..."


def parameter_texts(function: Any, signature: Signature, names: Names) -> list[str]:
    """Each parameter as text, with `*` and `/` where they belong."""
    scope = underlying(function).__globals__
    parameters, found, star = list(signature.parameters.values()), [], False
    for i, p in enumerate(parameters):
        respelled = p.kind == p.VAR_KEYWORD and p.name in ("numpy", "given")
        if (p.kind == p.KEYWORD_ONLY or respelled) and not star:
            found.append("*")
        star |= p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        text = f"{p.name}: {names.text(p.annotation, scope)}{default_text(p)}"
        if respelled and p.name == "numpy":                     # NumPy's names of options
            found += ["axis: Any = ..."] + ["keepdims: builtins.bool = ..."] * ("keepdim" in signature.parameters)
        elif respelled:
            found.append(f"{given_by_name(function)}: Any = ...")
        else:
            found.append("*" * (p.kind == p.VAR_POSITIONAL) + "**" * (p.kind == p.VAR_KEYWORD) + text)
        if p.kind == p.POSITIONAL_ONLY and p.kind not in [after.kind for after in parameters[i + 1:]]:
            found.append("/")
    return found


def definition(name: str, parameters: list[str], returns: str, indent: str = "", note: str = "") -> list[str]:
    """The lines of one `def`, none longer than WIDTH."""
    end = f") -> {returns}: ...{note}"
    start = f"{indent}def {name}("
    lines = [start]
    for i, p in enumerate(parameters):
        text = p + ("," if i + 1 < len(parameters) else end)
        if len(lines[-1]) + len(text) + 1 > WIDTH and lines[-1].strip():
            lines.append(f"{indent}        ")
        lines[-1] += text if lines[-1].endswith("(") or not lines[-1].strip() else " " + text
    return lines if parameters else [start + end]


def overloads(name: str, first: str, names: Names, indent: str = "") -> Iterator[str]:
    """The lines of a function with several signatures."""
    names.imported("typing", "overload")
    scope = {"Tensor": Tensor, "ValuesIndices": ValuesIndices}
    for rest, returns in OVERLOADS[name]:
        for kind in ("Literal", "ValuesIndices"):
            if kind in rest + returns:
                names.text(kind, scope)
        yield f"{indent}@overload"
        yield from definition(name, [first, *rest.split(", ")] if rest else [first], returns, indent)


# ---- the two files --------------------------------------------------------------------------------------------------
def bound() -> dict[str, Any]:
    """What is bound to Tensor when `minigrad.ops` is imported, by name: all but what its class body defines."""
    tree = ast.parse((ROOT / "core" / "tensor.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Tensor").body
    own = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    own |= {ast.unparse(target) for node in body if isinstance(node, ast.Assign) for target in node.targets}
    made = {"__module__", "__doc__", "__annotations__", "__static_attributes__", "__firstlineno__", "__orig_bases__"}
    return {name: value for name, value in sorted(vars(Tensor).items()) if name not in own | made}


def method_lines(name: str, value: Any, names: Names) -> Iterator[str]:
    """One method, property or constant of `Methods`."""
    if name in OPERATORS | COMPARISONS:
        wrong = ""
        if name in COMPARISONS:         # `object` says that == and != return a bool; numbers define the others too
            wrong = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else "  # type: ignore[misc]"
        yield from definition(name, ["self", "other: Operand"], "Tensor", "    ", wrong)
    elif name in UNARY:
        yield from definition(name, ["self"], "Tensor", "    ")
    elif isinstance(value, property):
        yield "    @property"
        getter: Any = value.fget
        returns = names.text(inspect.signature(getter).return_annotation, underlying(getter).__globals__)
        yield from definition(name, ["self"], returns, "    ")
    elif not callable(value):
        yield f"    {name}: builtins.{type(value).__name__}"
    elif name in OVERLOADS and name != "where":
        yield from overloads(name, "self", names, "    ")
    else:
        function, signature = method_signature(name, value)
        returns = names.text(signature.return_annotation, underlying(function).__globals__)
        wrong = "  # type: ignore[override]" if name == "__reduce_ex__" else ""
        yield from definition(name, ["self", *parameter_texts(function, signature, names)], returns, "    ", wrong)


def methods_stub() -> str:
    """The text of `minigrad/core/methods.pyi`."""
    names = Names("minigrad.core")
    names.imported("minigrad.core.tensor", "Tensor")
    names.imported("minigrad.core.tape", "Variable")
    names.imported("typing", "TypeAlias")
    body = [line for name, value in bound().items() for line in method_lines(name, value, names)]
    # core imports nothing from the ops above it, so their class of generators is Any here
    return re.sub(r"^from \.\.ops\.random import Generator\n|\bGenerator\b", lambda m: "Any" if m[0] == "Generator" else "",
                  "\n".join([HEAD.format("What `minigrad.ops` binds to `Tensor`, for type checkers and editors."),
                      names.text_of_imports(), f"Operand: TypeAlias = {OPERAND}", "",
                      "class Methods(Variable):", "    __slots__ = ()", *body, ""]), flags=re.M)


def imported_names() -> Iterator[tuple[str, str]]:
    """(module, name) of what `minigrad/__init__.py` imports from its submodules under the same name."""
    for node in ast.parse((ROOT / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from ((f".{node.module}", a.name) for a in node.names if a.name != "*" and a.asname in (None, a.name))


def package_stub() -> str:
    """The text of `minigrad/__init__.pyi`."""
    names = Names("minigrad")
    names.imported("minigrad.core.methods", "Operand")
    modules: tuple[str, ...] = vars(minigrad)["_LAZY_MODULES"]
    lazy: dict[str, str] = vars(minigrad)["_LAZY_NAMES"]
    public = [*imported_names(), *[(".", name) for name in modules], *[(module, name) for name, module in lazy.items()]]
    variables, functions = ["bfloat16: np.dtype[Any]"], list[str]()
    for name in sorted(set(dir(minigrad)) - {"bfloat16", *[name for _, name in public]}):
        value = getattr(minigrad, name)
        if isinstance(value, np.dtype):
            variables.append(f"{name}: np.dtype[np.{'bool_' if value.kind == 'b' else value.name}]")
        elif value is None or isinstance(value, float):
            variables.append(f"{name}: {'None' if value is None else 'builtins.float'}")
        elif isinstance(value, type):
            public.append((value.__module__.replace("minigrad.", ".", 1), name))
        elif name in OVERLOADS:
            functions += overloads(name, f"{next(iter(signature_of(value).parameters))}: Tensor", names)
        else:
            signature = signature_of(value)
            returns = names.text(signature.return_annotation, underlying(value).__globals__)
            functions += definition(name, parameter_texts(value, signature, names), returns)
    head = HEAD.format("The public names of minigrad, for type checkers and editors.")
    variables = ["__version__: builtins.str", *sorted(variables)]
    return "\n".join([head, names.text_of_imports(public), *variables, "", *functions, ""])


STUBS: dict[str, Callable[[], str]] = {"__init__.pyi": package_stub, "core/methods.pyi": methods_stub}


def differences() -> str:
    """What the files would change to; empty where they are up to date."""
    found: list[str] = []
    for file, write in STUBS.items():
        path, want = ROOT / file, write().splitlines()
        have = path.read_text().splitlines() if path.exists() else []
        found += difflib.unified_diff(have, want, f"minigrad/{file}", "the package", "", "", 0, "")
    return "\n".join(found)


if __name__ == "__main__":
    if "--write" in sys.argv:
        for file, write in STUBS.items():
            (ROOT / file).write_text(write())
    else:
        sys.exit(differences() or None)
