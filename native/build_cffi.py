"""Writes the C source of the cffi module `minigrad._native` from minigrad.h, the only list of kernels.

    python build_cffi.py OUTPUT.c baseline [avx2 avx512]

For each kernel and element type the module holds: a function pointer set by `mg_select(level)`, a wrapper that takes
addresses as integers (what cffi calls), and a thunk that takes its arguments from an array of 8-byte words (what
program.c replays).
"""
from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
TYPES = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t", "u16": "uint16_t"}
SETS = {"REAL": ["f32", "f64"], "NUMBER": ["f32", "f64", "i32", "i64"], "ANY": ["f32", "f64", "i32", "i64", "u8"],
        "MOVE": ["u8", "u16", "i32", "i64"], "BOOL": ["u8"], "LONG": ["i64"], "ONCE": [""]}
LEVELLED = {"f32", "f64"}       # the other types are compiled once, at the baseline
_DEFINITION = re.compile(r"^KERNEL\((\w+), *(\w+), *(.*)\)$", re.M)
_SCALARS = {"int64_t": "i", "double": "d"}

# what is not a kernel: run-time services of parallel.c and program.c
SERVICES = """
int mg_cpu_level(void);
void mg_select(int level);
const char *mg_kernel_name(int64_t index);
const char *mg_kernel_signature(int64_t index);
const char *mg_kernel_arguments(int64_t index);
int64_t mg_kernel_count(void);
"""


def kernels(header: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(set of types, name, [(C type, argument name)]) for each KERNEL line of minigrad.h, macros of the header expanded."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S).replace("\\\n", " ")
    lines = []
    shorthand = dict(re.findall(r"^#define (\w+)\(types, name\) KERNEL\(types, name, (.*)\)$", header, re.M))
    for line in header.splitlines():
        m = re.match(r"^(\w+)\((\w+), *(\w+)\)$", line)
        lines.append(f"KERNEL({m[2]}, {m[3]}, {shorthand[m[1]]})" if m and m[1] in shorthand else line)
    found = []
    for types, name, arguments in _DEFINITION.findall("\n".join(lines)):
        split = [re.fullmatch(r"\s*(.*?[\s*])(\w+)\s*", a) for a in arguments.split(",")]
        found.append((types, name, [(m[1].strip(), m[2]) for m in split if m]))
    return found


def generate(levels: list[str]) -> tuple[str, str]:
    """cdef and C source."""
    cdef, prototypes, pointers, select, wrappers, table = [SERVICES], [], [], [], [], []
    named = []          # the arguments' names of each kernel, separated by spaces
    for types, name, arguments in kernels((HERE / "minigrad.h").read_text()):
        for ty in SETS[types]:
            full = f"{name}_{ty}" if ty else name
            c_types = [re.sub(r"\bT\b", TYPES.get(ty, "T"), a) for a, _ in arguments]
            signature = "".join(("p" if "const" in c else "o") if "*" in c else _SCALARS[c] for c in c_types)
            formal = ", ".join(c_types)
            if ty in LEVELLED:
                variants = [f"{full}_{level}" for level in levels]
            elif ty:
                variants = [f"{full}_{levels[0]}"] * len(levels)
            else:
                variants = [full] * len(levels)
            prototypes += [f"void {v}({formal});" for v in dict.fromkeys(variants)]
            pointers.append(f"static void (*p_{full})({formal});")
            select.append(f"  p_{full} = level == 0 ? {variants[0]}" +
                          "".join(f" : level == {i} ? {v}" for i, v in enumerate(variants[1:-1], 1)) + f" : {variants[-1]};")
            words = {"o": "uintptr_t", "p": "uintptr_t", "i": "int64_t", "d": "double"}
            cdef.append(f"void {full}({', '.join(words[s] for s in signature)});")
            cast = [f"({c})a{i}" if s in "op" else f"a{i}" for i, (c, s) in enumerate(zip(c_types, signature, strict=True))]
            wrappers.append(f"static void w_{full}({', '.join(f'{words[s]} a{i}' for i, s in enumerate(signature))}) "
                            f"{{ p_{full}({', '.join(cast)}); }}\n#define {full} w_{full}")
            load = [f"({c})(uintptr_t)w[{i}].i" if s in "op" else f"w[{i}].{s}"
                    for i, (c, s) in enumerate(zip(c_types, signature, strict=True))]
            wrappers.append(f"static void t_{full}(const mg_word *w) {{ p_{full}({', '.join(load)}); }}")
            table.append(f'  {{ "{full}", "{signature}", t_{full} }},')
            named.append(f'  "{" ".join(argument for _, argument in arguments)}",')
    source = "\n".join([
        "#include <stdint.h>", "#include <stddef.h>", '#include "runtime.h"', *prototypes, *pointers,
        "void mg_select(int level) {", "  (void)level;", *select, "}", *wrappers,
        "const mg_kernel mg_kernels[] = {", *table, '  { NULL, NULL, NULL }', "};",
        f"int64_t mg_kernel_count(void) {{ return {len(table)}; }}",
        "const char *mg_kernel_name(int64_t i) { return mg_kernels[i].name; }",
        "const char *mg_kernel_signature(int64_t i) { return mg_kernels[i].signature; }",
        "static const char *const argument_names[] = {", *named, "};",
        "const char *mg_kernel_arguments(int64_t i) { return argument_names[i]; }",
    ])
    services = re.findall(r"/\* cdef \*/(.*?)/\* end \*/", (HERE / "runtime.h").read_text(), re.S)
    return "\n".join(cdef + services), source


if __name__ == "__main__":
    out, *isa_levels = sys.argv[1:]
    builder = FFI()
    cdef_text, source_text = generate(isa_levels)
    builder.cdef(cdef_text)
    builder.set_source("minigrad._native", source_text)
    builder.emit_c_code(out)
