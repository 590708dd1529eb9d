"""What a step reads of the world outside while it is recorded: the clock, files, fresh random numbers, the process.

Only functions in C read it, and only code that can reach one (`may_read`) is recorded under `sys.setprofile`, which
says what is called. A call counts if the user's code makes it. Of files and random numbers one counts too that the
standard library or NumPy makes for that code (`np.load`), not one that they make for themselves: an import, a log.
"""
from __future__ import annotations

import dis
import functools
import re
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from .modes import mode
from .notes import Notes, foreign
from .warning import PACKAGE

_READERS = {
    "the clock": "time.time time.time_ns time.perf_counter time.perf_counter_ns time.monotonic time.monotonic_ns "
                 "time.process_time time.thread_time time.localtime time.gmtime time.ctime time.asctime time.strftime "
                 "datetime.now datetime.utcnow datetime.today",
    "the state of the process": "gc.get_count gc.get_objects gc.get_referrers gc.get_threshold gc.isenabled "
                                "sys.getrefcount sys.getrecursionlimit sys.getswitchinterval",
    "a file or folder": "io.open builtins.input os.stat os.lstat os.fstat os.listdir os.scandir os.access os.readlink "
                        "os.read os.getcwd numpy.fromfile numpy.load numpy.loadtxt numpy.genfromtxt",
    "fresh random numbers": "os.urandom random.seed"}
_READS = {name: what for what, names in _READERS.items() for name in names.split()}
_NAMES = {name.partition(".")[2] for name in _READS}
_NO_PYTHON = {"builtins", "datetime", "gc", "io", "numpy", "sys", "time"}           # only what is named there can read
_SAME = {"_io": "io", "posix": "os", "nt": "os"}
# modules that ask for themselves, and what is called wherever Python writes or ends something
_ASIDE = {"_pickle", "copy", "importlib", "linecache", "logging", "tempfile", "tokenize", "traceback", "warnings",
          "weakref"}
_CALLED_BY_PYTHON = ("write", "flush", "__del__")
_DIRECTLY = ("the clock", "the state of the process")
_FOR_USERS = {*sys.stdlib_module_names, "numpy"}
_AGAIN = (PACKAGE + "devices", PACKAGE + "optim/lr_scheduler")         # each replay runs it, too


def _module(value: Any) -> str:
    """The module that a function or a class belongs to."""
    of = None if isinstance(value, type) else getattr(value, "__self__", None)
    name = getattr(value, "__module__", None) or (of if isinstance(of, type) else type(of)).__module__
    return _SAME.get(name, name)


@functools.lru_cache(512)
def _leads(module: str) -> bool:
    """Is it a module of the standard library that has such functions, or a module of them, among its names?"""
    return module.startswith("numpy.random") or module not in _NO_PYTHON \
        and module.partition(".")[0] in sys.stdlib_module_names and any([
            isinstance(v, ModuleType) and v.__name__ in ("datetime", "gc", "io", "os", "time")
            or isinstance(v, BuiltinFunctionType) and f"{_module(v)}.{v.__name__}" in _READS
            for v in [*vars(sys.modules.get(module, sys)).values()]])


def may_read(notes: Notes) -> bool:
    """May the code that was found read it?"""
    found = [v for v in notes.seen.values() if isinstance(v, (FunctionType, BuiltinFunctionType, type, ModuleType))]
    names = _NAMES & {*notes.names, *[v.__name__ for v in found]}
    modules = {v.__name__ if isinstance(v, ModuleType) else _module(v) for v in found}
    modules |= {"builtins", "io", *[kind.__module__ for kind in {*map(type, notes.seen.values())}]}
    return any(map(_leads, modules)) or any([f"{m}.{name}" in _READS for name in names for m in modules])


def _only_writes(frame: FrameType) -> bool:
    """Does the file that is opened there only get written?"""
    steps = [s for s in dis.get_instructions(frame.f_code) if s.offset <= frame.f_lasti]
    begin = max([i for i, s in enumerate(steps) if s.argval == "open"], default=0)
    modes = [frame.f_locals.get("mode"), *[s.argval for s in steps[begin:] if s.opname == "LOAD_CONST"]]
    return any([isinstance(m, str) and re.fullmatch("[wax][bt]?", m) for m in modes])


def _asked_by(frame: FrameType | None, what: str, begin: CodeType) -> FrameType | None:
    """The frame of the user's code that asks for it; None if it is nobody's, or if each replay asks again."""
    asks: FrameType | None = None
    while frame is not None and frame.f_code is not begin:
        code, names = frame.f_code, str(frame.f_globals.get("__name__")).split(".")
        if code.co_filename.startswith(_AGAIN) or not _ASIDE.isdisjoint(names) or code.co_name in _CALLED_BY_PYTHON:
            return None
        if asks is None and not foreign(code.co_filename):
            asks = frame
        if asks is None and (what in _DIRECTLY or names[0] not in _FOR_USERS):
            return None
        frame = frame.f_back
    return asks


def watching(recorder: Any, begin: CodeType) -> Callable[[FrameType, str, Any], None]:
    """A function for `sys.setprofile` that sets `recorder.notes.outside` at the first such call. The step is called
    by the code `begin`."""
    notes = recorder.notes

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        if mode.recorder is not recorder:               # an interrupt came before it was switched off
            sys.setprofile(None)
        elif function.__name__ in _NAMES and not notes.outside:
            name = f"{_module(function)}.{function.__name__}"
            if name not in _READS or name == "random.seed" and frame.f_locals.get("a", 0) is not None \
                    or name == "io.open" and _only_writes(frame):
                return
            asks = _asked_by(frame, _READS[name], begin)
            if asks is not None:
                notes.outside = (f"[capture] the step read {_READS[name]} ({name}) at "
                                 f"{asks.f_code.co_filename}:{asks.f_lineno}, which a replay would not; read it "
                                 "outside and pass it as an argument")
    return watch
