"""Declarations of kernels, `KERNEL(TYPES, name, arguments)`, as C texts and native/minigrad.h write them.

Nothing to read first. Nothing to import: native/build_cffi.py loads this file by its path while the module is built.
"""
from __future__ import annotations

import re
from typing import NamedTuple

TYPES = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t", "u16": "uint16_t"}
SETS = {"REAL": ["f32", "f64"], "NUMBER": ["f32", "f64", "i32", "i64"], "ANY": ["f32", "f64", "i32", "i64", "u8"],
        "MOVE": ["u8", "u16", "i32", "i64"], "BOOL": ["u8"], "LONG": ["i64"], "ONCE": [""]}
_KERNEL = re.compile(r"^[ \t]*KERNEL\(\s*(\w+),\s*(\w+),\s*([^()]*)\)", re.M)             # may run over several lines
_SHORTHAND = re.compile(r"^#define (\w+)\(types, name\) KERNEL\(types, name, (.*)\)$", re.M)
_SCALARS = {"int64_t": "i", "double": "d"}
ARGUMENTS_MAX = 64              # of a kernel: native/runtime.h


class Declared(NamedTuple):
    """A kernel: its set of types, its name, and the C types and names of its arguments."""

    types: str
    name: str
    c_types: list[str]
    names: list[str]

    @property
    def suffixes(self) -> list[str]:
        """The element types: "f32", ..., or "" for a kernel that has none."""
        return SETS[self.types]

    def full(self, suffix: str) -> str:
        """The name with an element type."""
        return f"{self.name}_{suffix}" if suffix else self.name

    @property
    def letters(self) -> str:
        """One letter for each argument: o address written to, p address only read, i int64, d double."""
        return "".join([("p" if "const" in c else "o") if "*" in c else _SCALARS[c] for c in self.c_types])


def kernels(text: str) -> list[Declared]:
    """Each KERNEL of a text; shorthands are expanded. ValueError for a set or an argument that there is not."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    for shorthand, arguments in _SHORTHAND.findall(text):
        text = re.sub(rf"^{shorthand}\((\w+), *(\w+)\)$", rf"KERNEL(\1, \2, {arguments})", text, flags=re.M)
    return [_declared(*found) for found in _KERNEL.findall(text)]


def _declared(types: str, name: str, arguments: str) -> Declared:
    if types not in SETS:
        raise ValueError(f"KERNEL({types}, {name}, ...): a set of types is one of {', '.join(SETS)}; got {types}")
    c_types, names = [], []
    for argument in arguments.split(","):
        found = re.fullmatch(r"\s*(.*?[\s*])(\w+)\s*", argument, re.S)
        c_type = " ".join(found[1].split()) if found else ""
        if found is None or "*" not in c_type and c_type not in _SCALARS:
            raise ValueError(f"KERNEL({types}, {name}, ...): an argument is a pointer, an int64_t or a double, "
                             f"with its name; got `{' '.join(argument.split())}`")
        c_types.append(c_type)
        names.append(found[2])
    if len(names) > ARGUMENTS_MAX:
        raise ValueError(f"KERNEL({types}, {name}, ...): at most {ARGUMENTS_MAX} arguments; got {len(names)}")
    return Declared(types, name, c_types, names)
