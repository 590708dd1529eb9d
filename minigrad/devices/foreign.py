"""Kernels from outside the tree: the C text that a user gives an op is compiled at its first use, and kept.

Read `base.py`, `native.py` and `declared.py` first. `library(source, suffix)` gives the kernels of a text for one
element type. The compiler is called directly, so that neither Python's headers nor setuptools are needed; cffi opens
the result. The text is compiled with native/foreign.h and the headers of the tree, for the SIMD level in use, with the
options of the tree (not with `-march=native`: machines may share a cache folder).

The result is kept in `$XDG_CACHE_HOME/minigrad` (`~/.cache/minigrad`). Its name begins with a digest of all that it
depends on: text, headers, options, compiler (path, size and time of change: to ask it for its version would be a call).
So what is kept is used only where its compiler is.
It ends with a digest of its own bytes, so that a damaged file is noticed before it is opened, and made again. It is
written beside, and moved when complete: two processes may do this at once.
"""
from __future__ import annotations

# what `import minigrad` does not need is imported where it is used
import errno
import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from .base import Device, Kernel, NoKernel
from .declared import Declared, kernels
from .native import HEADERS, LEVELS, ffi, launcher, lib, simd_level

_LINES = 40                     # of a compiler's messages that an error shows
_building = RLock()
_opened: dict[str, Any] = {}    # libraries by path; they stay open
_private: list[Any] = []        # a folder of this process, where the user has none


class Source(NamedTuple):
    """The text of an op's kernels: whose they are, the text, the kernels in it, and where it stands, for messages."""

    op: str
    text: str
    declared: list[Declared]
    file: str
    line: int

    @property
    def located(self) -> str:
        """The text, so that a compiler's messages name its file and its lines."""
        quoted = self.file.replace("\\", "\\\\").replace('"', '\\"')
        return f'#line {self.line} "{quoted}"\n{self.text}\n'

    def of_type(self, suffix: str) -> list[Declared]:
        """The kernels that there are for an element type."""
        return [kernel for kernel in self.declared if suffix in kernel.suffixes]


class NoCompiler(NoKernel):
    """There is no C compiler here, or it cannot do its work here."""


def read(op: str, text: str, file: str, line: int) -> Source:
    """A text with what it declares. ValueError if that is nothing, or wrong."""
    try:
        found = kernels(text)
    except ValueError as error:
        raise ValueError(f"[{op}.kernel] {error}") from None
    if not found:
        raise ValueError(f"[{op}.kernel] the text must define a kernel; got {len(text.splitlines())} lines without; "
                         f"begin a line with `KERNEL(REAL, {op}_forward, T *y, const T *x, int64_t n) {{`")
    return Source(op, text, found, file, line)


def compiler() -> list[str]:
    """The command of the C compiler: `$CC`, or the first of cc, gcc and clang. NoCompiler if there is none."""
    import shutil
    wish = _words("CC")
    for name in wish[:1] or ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            return [path, *wish[1:]]
    raise NoCompiler(f"CC is {wish[0]!r}, which is not there" if wish else
                     "there is no C compiler here: install gcc or clang (for example `apt install gcc`), or set CC")


def _words(variable: str) -> list[str]:
    """The words of an environment variable, as a shell splits them."""
    import shlex
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise NoCompiler(f"{variable} is {os.environ[variable]!r}, which no shell would take: {error}") from None


def library(source: Source, suffix: str, device: Device) -> list[Kernel]:
    """The kernels of a text for an element type, as `source.declared` lists them, compiled if need be. NoCompiler
    where that cannot be; RuntimeError with the compiler's messages for a wrong text."""
    with _building:
        path = _compiled(source, suffix)
        if path not in _opened:
            from cffi import FFI
            opener = FFI()
            opener.cdef("uintptr_t mg_open(uintptr_t services, int64_t i);")
            try:
                _opened[path] = opener.dlopen(path)
            except OSError as error:
                raise NoCompiler(f"what the compiler made cannot be opened: {error}") from None
        rows = [_opened[path].mg_open(lib.mg_services_address(), i) for i in range(len(source.of_type(suffix)))]
        return [Kernel(kernel.full(suffix), kernel.letters, kernel.names, row, launcher(row), device)
                for kernel, row in zip(source.of_type(suffix), rows, strict=True)]


def _unit(source: Source, suffix: str) -> tuple[str, str]:
    """What is compiled after the text: a thunk and a row (native/runtime.h) for each kernel, and `mg_open`."""
    thunks, rows = [], []
    for kernel in source.of_type(suffix):
        words = [f"({c})(uintptr_t)w[{i}].i" if "*" in c else f"w[{i}].{letter}"
                 for i, (c, letter) in enumerate(zip(kernel.c_types, kernel.letters, strict=True))]
        called = f"FN({kernel.name})" if suffix else kernel.name
        thunks.append(f"static void mg_thunk_{kernel.name}(const mg_word *w) {{ {called}({', '.join(words)}); }}")
        rows.append(f'  {{"{kernel.full(suffix)}", "{kernel.letters}", mg_thunk_{kernel.name}}},')
    return '#include "loops.h"\n', "\n".join([
        '#line 1 "the end of the text"', *thunks, "static const mg_kernel rows[] = {", *rows, "};",
        '__attribute__((visibility("default"))) uintptr_t mg_open(uintptr_t given, int64_t i) {',
        "  services = (const mg_services *)given;", "  return (uintptr_t)&rows[i];", "}", ""])


def _options(suffix: str) -> list[str]:
    level = simd_level()
    meaning = ffi.string(lib.mg_level_flags(LEVELS.index(level))).decode()
    typed = [f"-DMG_TYPE={suffix}"] if suffix else []
    return ["-std=gnu11", "-O3", *meaning.split(), *_words("CFLAGS"), *typed,
            f"-DMG_LEVEL={level}", f"-DMG_LEVEL_{level}=1", "-Werror=implicit-function-declaration", "-shared", "-fPIC",
            "-fvisibility=hidden"]


def _compiled(source: Source, suffix: str) -> str:
    """The path of the library of a text: out of the cache, or made."""
    command, options = compiler(), _options(suffix)
    before, after = _unit(source, suffix)
    file = os.stat(os.path.realpath(command[0]))
    parts = [*HEADERS.values(), before, source.text, after, *options, *command, os.path.realpath(command[0]),
             str(file.st_size), str(file.st_mtime_ns)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    for place in (_cache_folder, _own_folder):
        try:
            folder = place()
            return _kept(folder, f"{source.op}-{key}") or _made(folder, f"{source.op}-{key}", [*command, *options],
                                                               before + source.located + after, source, suffix)
        except OSError as error:                                # it cannot be written, or the disk is full
            reason = error
    raise NoCompiler(f"the compiler has no place to work in: {reason}")


def _kept(folder: Path, name: str) -> str:
    """The path of a whole library in a folder, or ""; damaged ones are removed."""
    for path in folder.glob(f"{name}-*.so"):
        if path.is_file() and _digest(path) == path.stem.rpartition("-")[2]:
            return str(path)
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)
    return ""


def _made(folder: Path, name: str, command: Sequence[str], text: str, source: Source, suffix: str) -> str:
    """The path of the library of a C text, compiled. OSError if the folder does not take it."""
    import tempfile
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for header, words in HEADERS.items():
            Path(work, "minigrad.h" if header == "foreign.h" else header).write_text(words)
        Path(work, "kernel.c").write_text(text)
        made = Path(work, "kernel.so")
        _run([*command, "-I.", "kernel.c", "-o", made.name, "-lm"], work, made, source, suffix)
        path = folder / f"{name}-{_digest(made)}.so"
        os.replace(made, path)
    return str(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _run(command: Sequence[str], folder: str, made: Path, source: Source, suffix: str) -> None:
    """Runs the compiler. RuntimeError with its messages, in which `#line` has put the user's file and lines, without
    those about the text of macros."""
    environment = {**os.environ, "LC_ALL": "C"}         # English, and quotes that every terminal has
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
    if ran.returncode and os.strerror(errno.ENOSPC) in ran.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
    if ran.returncode or not made.exists():
        said = re.sub(r"^.* note: (in (definition|expansion) of|expanded from) macro .*\n( .*\n)*", "",
                      ran.stderr or ran.stdout, flags=re.M)
        lines = said.splitlines() or [f"nothing; it ended with {ran.returncode} and made no library"]
        shown = "\n".join(lines[:_LINES] + (["..."] if len(lines) > _LINES else []))
        raise RuntimeError(f"[{source.op}.kernel] {command[0]} does not compile the C text of its kernels for "
                           f"{suffix or 'no element type'} at {simd_level()}; it says:\n{shown}")


def _cache_folder() -> Path:
    """Where compiled kernels are kept, for all processes of the user. PermissionError if others can write there: what
    lies in it is run."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"), "minigrad")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others can write there", str(folder))
    return folder


def _own_folder() -> Path:
    """A folder of this process, for a user who has no cache that takes them."""
    import tempfile
    if not _private:
        _private.append(tempfile.TemporaryDirectory(prefix="minigrad-"))
    return Path(_private[0].name)
