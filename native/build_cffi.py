"""Writes the C source of the cffi module `minigrad._native` from minigrad.h, the only list of kernels.

    python build_cffi.py OUTPUT.c "baseline=FLAGS" ["avx2=FLAGS" "avx512=FLAGS"] [TYPE:LEVEL=OTHER]

FLAGS are the compiler options of a SIMD level, with which kernels from outside the tree are compiled, too. In TYPE, the
kernels of LEVEL are those of OTHER.
For each kernel and element type the module holds a row of function pointers, one for each SIMD level, of which
`mg_select(level)` copies one to `mg_now`; and a thunk, which calls through that pointer and takes its arguments from an
array of 8-byte words: objects.c calls kernels by it, and program.c replays them. What cffi makes is the door to
the rest: services, the formulas of workspace.h, and the texts of the headers that kernels from outside the tree are
compiled with, and CUDA kernels (types.h, workspace.h).
"""
from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("declared", HERE.parent / "minigrad" / "devices" / "declared.py")
declared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(declared)
TYPES, SETS = declared.TYPES, declared.SETS
HEADERS = ("types.h", "workspace.h", "common.h", "simd.h", "loops.h", "walk.h", "runtime.h", "foreign.h")
LEVELLED = {"f32", "f64"}       # the other types are compiled once, at the baseline

# what is not a kernel: what this file itself generates
SERVICES = """
int mg_cpu_level(void);
void mg_select(int level);
const char *mg_kernel_name(int64_t index);
const char *mg_kernel_signature(int64_t index);
const char *mg_kernel_arguments(int64_t index);
uintptr_t mg_kernel_row(int64_t index);
int64_t mg_kernel_count(void);
const char *mg_header_name(int64_t index);
const char *mg_header_text(int64_t index);
int64_t mg_header_count(void);
const char *mg_level_flags(int64_t level);
"""


def texts(name: str, values: list[str]) -> str:
    """A C function that returns the text of a number."""
    literals = ["\n".join("  " + json.dumps(line) for line in (text or "").splitlines(keepends=True) or [""])
                for text in values]
    return (f"const char *{name}(int64_t i) {{\n  static const char *const all[] = {{\n" + ",\n".join(literals)
            + "};\n  return all[i];\n}")


def without_comments(text: str) -> str:
    """A header as the module holds it: 8 kB of the wheel less. No literal of a header looks like a comment."""
    text = re.sub(r"[ \t]*//.*", "", re.sub(r"/\*.*?\*/", " ", text, flags=re.S))
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


def workspace(text: str) -> list[str]:
    """cdef lines for the functions and constants of workspace.h."""
    formulas = re.findall(r"^MG_FORMULA (\w+)\((.*)\) \{", text, re.M)
    cdef = [f"int64_t {name}({arguments});" for name, arguments in formulas]
    cdef += [f"#define {name} ..." for name in re.findall(r"^#define (MG_\w+) \d+", text, re.M)]
    return cdef


def generate(flags: dict[str, str], forms: dict[str, str]) -> tuple[str, str]:
    """cdef and C source; `flags` by SIMD level, `forms` by TYPE:LEVEL."""
    levels = list(flags)
    prototypes, thunks, names = [], [], []
    labels = []                                                     # the arguments' names of each kernel
    rows: list[list[str]] = [[] for _ in levels]                    # the kernels of a level, in the order of `names`
    for kernel in declared.kernels((HERE / "minigrad.h").read_text()):
        signature = kernel.letters
        for ty in kernel.suffixes:
            full = kernel.full(ty)
            c_types = [re.sub(r"\bT\b", TYPES.get(ty, "T"), c) for c in kernel.c_types]
            formal = ", ".join(c_types)
            once = f"_{levels[0]}" if ty else ""
            suffixes = [f"_{forms.get(f'{ty}:{level}', level)}" if ty in LEVELLED else once for level in levels]
            prototypes += [f"void {full}{suffix}({formal});" for suffix in dict.fromkeys(suffixes)]
            for row, suffix in zip(rows, suffixes, strict=True):
                row.append(f"(mg_function){full}{suffix},")
            words = ", ".join(f"({c})(uintptr_t)w[{i}].i" if s in "op" else f"w[{i}].{s}"
                              for i, (c, s) in enumerate(zip(c_types, signature, strict=True)))
            thunks.append(f"static void t_{full}(const mg_word *w) "
                          f"{{ ((void (*)({formal}))mg_now[{len(names)}])({words}); }}")
            names.append(f'  {{ "{full}", "{signature}", t_{full} }},')
            labels.append(f'  "{" ".join(kernel.names)}",')
    workspace_text = (HERE / "workspace.h").read_text()
    source = "\n".join([
        # a replay does not read errno: keeping it would take 15 ns
        "#undef _cffi_restore_errno", "#undef _cffi_save_errno",
        "#define _cffi_restore_errno() ((void)0)", "#define _cffi_save_errno() ((void)0)",
        # a kernel that failed in a replay raises: where cffi's function takes the interpreter's lock again
        "#undef Py_END_ALLOW_THREADS",
        "#define Py_END_ALLOW_THREADS PyEval_RestoreThread(_save); } "
        "if (atomic_load_explicit(&mg_failures, memory_order_relaxed) && mg_raised(__func__)) return NULL;",
        "int mg_raised(const char *called);", "PyObject *mg_with_types(PyObject *module);",
        "#include <stddef.h>", "#include <string.h>", '#include "runtime.h"', '#include "workspace.h"', *prototypes,
        "typedef void (*mg_function)(void);",
        f"static const mg_function mg_levels[{len(levels)}][{len(names)}] = {{",
        *[f"{{ {' '.join(row)} }}," for row in rows], "};",
        f"static mg_function mg_now[{len(names)}];",
        "void mg_select(int level) { memcpy(mg_now, mg_levels[level], sizeof mg_now); }",
        *thunks,
        "const mg_kernel mg_kernels[] = {", *names, '  { NULL, NULL, NULL }', "};",
        f"int64_t mg_kernel_count(void) {{ return {len(names)}; }}",
        "const char *mg_kernel_name(int64_t i) { return mg_kernels[i].name; }",
        "const char *mg_kernel_signature(int64_t i) { return mg_kernels[i].signature; }",
        "uintptr_t mg_kernel_row(int64_t i) { return (uintptr_t)&mg_kernels[i]; }",
        "static const char *const argument_names[] = {", *labels, "};",
        "const char *mg_kernel_arguments(int64_t i) { return argument_names[i]; }",
        texts("mg_header_name", list(HEADERS)),
        texts("mg_header_text", [without_comments((HERE / name).read_text()) for name in HEADERS]),
        f"int64_t mg_header_count(void) {{ return {len(HEADERS)}; }}",
        texts("mg_level_flags", list(flags.values())),
    ])
    services = re.findall(r"/\* cdef \*/(.*?)/\* end \*/", (HERE / "runtime.h").read_text(), re.S)
    return "\n".join([SERVICES, *workspace(workspace_text), *services]), source


if __name__ == "__main__":
    out, *given = sys.argv[1:]
    builder = FFI()
    options = dict(a.split("=", 1) for a in given)
    form_of = {key: options.pop(key) for key in list(options) if ":" in key}
    cdef_text, source_text = generate(options, form_of)
    builder.cdef(cdef_text)
    builder.set_source("minigrad._native", source_text)
    builder.emit_c_code(out)
    c_text = Path(out).read_text()
    start = "return _cffi_init("
    if c_text.count(start) != 1:
        raise SystemExit(f"cffi's C source has no single {start!r}: objects.c cannot add its types to the module")
    Path(out).write_text(re.sub(r"return (_cffi_init\(.*\));", r"return mg_with_types(\1);", c_text))
