"""`python -m minigrad.as_torch program.py ARGUMENTS`: Python, with `import torch` answered by minigrad.

What follows is as for `python`: a file, a folder or archive with a `__main__.py`, or `-m module` or `-c text`; then the
program's arguments.
"""
from __future__ import annotations

import os
import runpy
import sys
from types import CodeType, ModuleType, TracebackType

from .finder import install

_USAGE = "usage: python -m minigrad.as_torch [-m module | -c text | program.py] [arguments]"
_HERE = (__file__, runpy.__file__, "<frozen runpy>")


def main(arguments: list[str]) -> None:
    """Runs a program as `__main__`. SystemExit with the status 2 if none is given."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments[0] in ("-m", "-c") and len(arguments) == 1:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)
    install()
    sys.excepthook = _show
    first = arguments[0]
    if first == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)      # the first entry of sys.path is ""
    elif first == "-c":
        sys.argv = ["-c", *arguments[2:]]
        _run(compile(arguments[1], "<string>", "exec"), None)
    elif os.path.isfile(first) and not first.endswith((".zip", ".pyz")):
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.realpath(first))
        with open(first, "rb") as file:
            _run(compile(file.read(), first, "exec"), first)
    else:
        sys.argv = arguments
        if not os.path.exists(first):
            print(f"python -m minigrad.as_torch: can't open file {os.path.abspath(first)!r}: no such file",
                  file=sys.stderr)
            raise SystemExit(2)
        runpy.run_path(first, run_name="__main__")


def _run(code: CodeType, file: str | None) -> None:
    """Runs code in a new module `__main__`, which stays: what the program defines can be found there afterwards, by
    pickles and at exit."""
    module = ModuleType("__main__")
    if file is not None:
        module.__dict__.update(__file__=file, __cached__=None)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own report of an error, without the lines above the program."""
    while trace is not None and trace.tb_frame.f_code.co_filename in _HERE:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    main(sys.argv[1:])
