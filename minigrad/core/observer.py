"""What runs while a step is recorded, seen by `sys.setprofile`: what reading code (`notes.py`) cannot tell.

- Functions of the user that no name leads to (code in C called them): the next recording reads their code too.
- Functions of other packages: what they name of their objects is noted (`Notes.reads_of`), and what they return.
- The world outside: a clock, a file, the system, a generator of random numbers without a seed. A step that reads it is
  recorded anew at each call, with a warning.

While another profiler is at work (`cProfile`), none of this is seen.
"""
from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from operator import is_
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np

from .modes import mode
from .notes import ATOMS, foreign
from .tape import Variable
from .warning import PACKAGE

# functions in C that read what is outside, by the module that they or their objects belong to
_OUTSIDE = {
    "time": "time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time process_time_ns thread_time "
            "clock_gettime localtime gmtime ctime",
    "datetime": "now utcnow today",
    "posix": "urandom getrandom getcwd stat lstat listdir scandir access readlink getloadavg times",
    "io": "open",
    "_io": "read read1 readline readlines readinto",
    "builtins": "input",
    "random": "seed",
    "gc": "get_objects get_referrers get_count isenabled get_threshold",
    "sys": "getrefcount getrecursionlimit getswitchinterval",
    "numpy": "fromfile _get_extobj_dict",
    "decimal": "getcontext",
    "_posixsubprocess": "fork_exec"}
_ASKED = {name: module for module, names in _OUTSIDE.items() for name in names.split()}
# packages whose functions ask for the user's code that calls them: others do it for themselves (to write a log)
_ASKING = {"os", "posixpath", "ntpath", "genericpath", "pathlib", "glob", "shutil", "io", "codecs", "json", "pickle",
           "numpy", "random", "secrets", "uuid", "subprocess", "datetime"}
_ASIDE = ("namedtuple_", "re", "warnings", "linecache", "traceback")        # modules that keep nothing of a program
_DEVICES = "minigrad.devices."
_PLAIN: Any = (Variable, np.ndarray, ModuleType, FrameType, list, dict, tuple, set, *ATOMS)
# whose code it is: this package's, the user's, that of others, what a device runs for this package (CuPy)
_PACKAGE, _OWN, _OTHER, _DEVICE = range(4)


def _runs(function: FunctionType, frame: FrameType) -> bool:
    """Of the functions that share a code, is it one that may run there: does it close over what is found there?"""
    there = frame.f_locals
    return all(map(is_, [c.cell_contents for c in function.__closure__ or () if c != CellType()],
                   [there[n] for n in function.__code__.co_freevars if n in there]))


class Observer:
    """Inside a `with` block, notes for `recorder` what runs in this thread."""

    def __init__(self, recorder: Any) -> None:
        self.notes, self.recorder = recorder.notes, recorder
        self.kinds: dict[int, int] = {}             # by the id of a code
        self.met: set[tuple[int, int]] = set()      # (object, code that reads it)
        self.kept: list[Any] = []                   # what these ids belong to
        self.outside = ""                           # the first that was read of the world outside

    def __enter__(self) -> None:
        if sys.getprofile() is None:
            sys.setprofile(self)

    def __exit__(self, *_: object) -> None:
        if sys.getprofile() is self:
            sys.setprofile(None)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Called at each call and each return."""
        if mode.recorder is not self.recorder:      # an interrupt came before it was switched off
            sys.setprofile(None)
        elif self.recorder.aside:
            pass
        elif event == "c_call":
            if argument.__name__ in _ASKED:
                self._asks(frame, argument)
            elif type(argument.__self__) is ContextVar and self._for_user(frame):
                self._reads(frame, argument.__self__, ())
        elif event == "call":
            kind = self.kinds.get(id(frame.f_code))
            if kind is None:
                kind = self._met(frame)
            if kind == _OTHER and self._for_user(frame):
                self._other(frame)
        elif event == "return" and self.kinds.get(id(frame.f_code)) == _OTHER and self._by_user(frame) \
                and not isinstance(argument, _PLAIN):
            self._reads(frame, argument, ())

    def _for_user(self, frame: FrameType | None) -> bool:
        """Is it the user's code that runs there, or code of others that it called?"""
        while frame is not None and self.kinds.get(id(frame.f_code)) == _OTHER:
            frame = frame.f_back
        return frame is not None and self.kinds.get(id(frame.f_code)) == _OWN

    def _by_user(self, frame: FrameType) -> bool:
        return frame.f_back is not None and self.kinds.get(id(frame.f_back.f_code)) == _OWN

    def _met(self, frame: FrameType) -> int:
        """Whose code runs there? Keeps a function of the user that was not known."""
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        path = code.co_filename
        if path == "<string>":                      # made for a record, or for a tuple with names
            path = getattr(sys.modules.get(module), "__file__", None) or path
        kind = _OTHER if foreign(path) else _OWN
        if path.startswith((PACKAGE, "<frozen importlib")) or module.startswith(_ASIDE):
            kind = _OTHER if module.startswith("minigrad.data.") else _PACKAGE
        elif frame.f_back is not None and self._of_device(frame.f_back):
            kind = _DEVICE
        self.kinds[id(code)] = kind
        self.kept.append(code)
        if kind == _OWN and code not in self.notes.codes and (code.co_names or code.co_freevars):
            known: list[Any] = [f for f in gc.get_referrers(code) if isinstance(f, FunctionType) and _runs(f, frame)]
            if not (known or code.co_freevars):     # run by exec
                known = [FunctionType(code, frame.f_globals)]
            self.notes.late += known or [code]
        return kind

    def _of_device(self, frame: FrameType) -> bool:
        return self.kinds.get(id(frame.f_code)) == _DEVICE or frame.f_globals.get("__name__", "").startswith(_DEVICES)

    def _other(self, frame: FrameType) -> None:
        """Notes what a function of another package reads: of its first argument, and if the user calls it, globals."""
        code, there = frame.f_code, frame.f_globals
        of = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if not isinstance(of, _PLAIN):
            self._reads(frame, of, code.co_names)
        if self._by_user(frame):
            named = [n for n in code.co_names if n in there and type(there[n]) in _PLAIN]
            self.notes.add_soft(there, named, code.co_name)
        if "environ" in code.co_names:
            self._reads(frame, os.environ, ("_data",))

    def _reads(self, frame: FrameType, value: Any, names: Iterable[str]) -> None:
        key = id(value), id(frame.f_code)
        if key not in self.met:
            self.met.add(key)
            self.kept.append(value)
            self.notes.reads_of(value, names, frame.f_code.co_name)

    def _asks(self, frame: FrameType | None, function: Any) -> None:
        """Keeps where the world outside is asked by the user's code, or by a function that it calls for that."""
        of, name = function.__self__, function.__name__
        module = function.__module__ or (of if isinstance(of, type) else type(of)).__module__
        if module.partition(".")[0].replace("nt", "posix") != _ASKED[name]:
            return
        if frame is None or name == "seed" and frame.f_locals.get("a", 0) is not None:
            return
        while frame is not None and self.kinds.get(id(frame.f_code)) != _OWN:
            caller = frame.f_globals.get("__name__", "")
            if caller.partition(".")[0] not in _ASKING and caller != "minigrad.io":
                return
            frame = frame.f_back
        if frame is not None and not self.outside:
            self.outside = f"{name}() at {frame.f_code.co_filename}:{frame.f_lineno}"
