"""What a captured step reads besides its arguments: noted when it is recorded, compared before each replay.

`Notes.walk` starts from the captured function and finds the Python state that its code can reach: closed-over
variables, globals that the code names, attributes that it names of the objects found, members of modules, containers,
small NumPy arrays. Each is a `Piece`, with the values that it held before the step ran. Functions of this
package, of the standard library and of installed packages are not looked into; a layer of this package counts as read
in all its attributes, and so does an object of a library that has code to read them (`_reads_itself`).

After the recording, `Notes.settle` asks which of these values the step itself changed: such a step cannot be replayed.
Before a replay, `Compared.same` asks whether all values are what they were. That is one pass in C over all of them, by
identity; only where it fails are numbers, strings and the like compared by value. What tells of its changes (`changed`
in modes.py: modules, hooks, memory of tensors) is compared only if something changed since the last comparison.
"""
from __future__ import annotations

import dis
import functools
import gc
import inspect
import os
import random
import re
import sys
from collections import UserList, UserString, defaultdict, deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, getitem, is_, methodcaller
from pathlib import Path
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any
from weakref import WeakSet, ref

import numpy as np

from .. import devices
from .hooks import hooks, post_hooks
from .modes import mode, watched
from .shape import default_float
from .tape import Variable
from .warning import PACKAGE

_INSTALLED = (PACKAGE, str(Path(os.__file__).parent), "<frozen")
_MANY = 4096                    # of a container with more elements only the length is compared
_BYTES = 1 << 20                # a larger NumPy array is not compared
_SIMPLE = (int, float, complex, str, bytes, bool, type(None))
ATOMS = {*_SIMPLE, np.dtype, type(Ellipsis), type(NotImplemented)}
_MISSING: Any = type("_Missing", (), {"__repr__": lambda _: "nothing"})()
_END = (_MISSING,)
_CACHED = type(functools.lru_cache(abs))
_DRAWING = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, np.random.SeedSequence)
_STORED = (GetSetDescriptorType, MemberDescriptorType)
_APPENDING = ("append", "extend", "insert", "appendleft")
_BY_NAME = ("getattr", "hasattr", "setattr", "delattr")
_WIDE = ("vars", "dir", "__dict__", "__getattribute__", "eval", "exec")     # may read any attribute
# these read what the code that uses them names, or are not part of a step
_ASIDE = ("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__repr__", "__str__", "__dir__", "__del__",
          "__getstate__", "__setstate__", "__reduce__", "__copy__", "__deepcopy__")
_OWN_NAMES: Any = vars(ModuleType)["__dict__"]          # vars() of a module of as_torch loads all that it names
_IMPORTING = {"import_module", "__import__"}
_ASKING = {"hasattr", "getattr", "vars", "dir", "AttributeError", "NameError", "Exception", "suppress"}
_STATES = {"getstate", "get_state", "bit_generator", "state", "copy", "deepcopy", "spawn", "generate_state"}
_SPOKEN = {"__name__", "__qualname__", "__module__", "__doc__", "__annotations__"}
_LIBRARIES = {*sys.stdlib_module_names, "numpy", "minigrad"} - {"builtins", "logging", "queue"}
_READING = ("__call__", "__enter__", "__getitem__", "__len__")
_MAKERS = ("__init__", "__new__", "__dict__", "__weakref__", "__init_subclass__", "__class_getitem__")


def foreign(path: str | None) -> bool:
    """Is it a file of this package, of the standard library or of an installed package?"""
    return not path or path.startswith(_INSTALLED) or "site-packages" in path or "dist-packages" in path


def _own_module(table: Mapping[str, Any]) -> bool:
    """Are these the names of a module of the user's, or of one that a program makes itself?"""
    path, spec = table.get("__file__"), table.get("__spec__")
    return not foreign(path) if path else spec is None or spec.origin is None


def equal(a: Any, b: Any) -> bool:
    """Is it the same object, or a number, a string or a tuple of such of the same type and value (-0.0 is not 0.0)?"""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in (int, str, bytes):
        return bool(a == b)
    if isinstance(a, _SIMPLE + (np.generic, np.dtype, slice, range)):
        return repr(a) == repr(b)
    return isinstance(a, (tuple, frozenset)) and len(a) == len(b) and all(map(equal, a, b))


# ---- what code names -------------------------------------------------------------------------------------------------

def _computed(steps: list[dis.Instruction]) -> bool:
    """Is the second argument of a call (of getattr) not simply a string? `steps` come behind the one that loads what is
    called; `depth` is the number of arguments on the stack."""
    depth, constant = 0, False
    for step in steps:
        if step.opname == "PUSH_NULL":
            continue
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return True
        before = depth
        depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        if depth <= 0 and "CALL" in step.opname:
            return not constant
        if depth <= 2:
            constant = before == 1 and depth == 2 and step.opname == "LOAD_CONST" and isinstance(step.argval, str)
    return True


def _looked_at(steps: list[dis.Instruction]) -> str | None:
    """What the first argument of a call (of getattr) is called: "self" for itself, `.cfg` for a global, a closed-over
    variable or an attribute (`self.cfg`) of that name; None for all else. `steps` as for `_computed`."""
    steps = steps[steps[0].opname == "PUSH_NULL":]
    first, links = steps[0], 1
    if not first.opname.startswith("LOAD_") or first.opname == "LOAD_CONST":
        return None
    while steps[links].opname == "LOAD_ATTR" and not dis.stack_effect(steps[links].opcode, steps[links].arg):
        links += 1
    name = "self" if links == 1 and first.argval == "self" else f".{steps[links - 1].argval}"
    if name != "self" and links == 1 and first.opname.startswith("LOAD_FAST"):
        return None
    depth = dis.stack_effect(first.opcode, first.arg)
    for i, step in enumerate(steps[links:]):
        if i and depth == 1 or depth < 1 or step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return None                         # something is done with it before it is passed
        depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        if depth <= 0:
            return name if (step.opname, depth) in (("PRECALL", 0), ("CALL", -1)) else None
    return None


def _whose(reader: str, steps: list[dis.Instruction], i: int) -> str | None:
    """Of what `reader`, which stands before `steps[i]`, reads computed names; it is called as in `_looked_at`."""
    if reader in ("eval", "exec"):
        return None
    if reader != "__dict__":
        name = _looked_at(steps[i:])
        return None if reader == "__getattribute__" and name != "self" else name
    of = steps[i - 2]                           # what has the `__dict__`
    if of.argval == "self" and of.opname.startswith("LOAD_"):
        return "self"
    return f".{of.argval}" if of.opname.startswith("LOAD_") and not of.opname.startswith(("LOAD_FAST", "LOAD_CONST")) \
        else None


class _Code:
    """The names in the text of a function: globals that it reads, attributes, lines that assign, what it reads.

    wide    may it read attributes that it does not spell out?
    inward  may it read such ones of `self`?
    opened  names of what it reads such ones of: of other objects it does not
    """

    def __init__(self, code: CodeType) -> None:
        self.globals: dict[str, None] = {}
        self.imports: set[str] = set()
        self.attributes: set[str] = set()
        self.stores: dict[str, str] = {}
        self.reads: set[str] = set()
        self.constants = {c for c in code.co_consts if isinstance(c, (int, str))}
        line, constant, loaded = code.co_firstlineno, None, None
        steps = list(dis.get_instructions(code))
        self.wide = self.inward = False
        self.asks = not _ASKING.isdisjoint(code.co_names)
        self.opened: set[str] = set()
        for i, s in enumerate(steps, 1):
            if s.opname.startswith("LOAD_") and s.opname != "LOAD_CONST" and (
                    s.argval in _WIDE or s.argval in _BY_NAME and _computed(steps[i:])):
                name = _whose(s.argval, steps, i)
                self.inward |= name == "self"
                self.wide |= name is None
                self.opened |= {name[1:]} if name and name != "self" else set()
        for step in steps:
            entry = loaded is not None and step.opname in ("LOAD_CONST", "BINARY_SUBSCR")       # h["loss"].append(x)
            if loaded is not None and not entry and step.argval not in _APPENDING:
                self.reads.add(loaded)          # not only appended to
            if not entry:
                loaded = step.argval if step.opname.startswith("LOAD_") and isinstance(step.argval, str) else None
            line = step.starts_line or line         # type: ignore[assignment]
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                self.globals[step.argval] = None
            if step.opname == "IMPORT_NAME":
                self.imports.add(step.argval)
            if step.opname in ("STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL"):
                self.stores[step.argval] = f"{code.co_filename}:{line}"
            if step.opname == "STORE_SUBSCR":
                self.stores[constant if isinstance(constant, str) else "[]"] = f"{code.co_filename}:{line}"
            if step.argval in _APPENDING:
                self.stores["append"] = f"{code.co_filename}:{line}"
            if step.opname == "LOAD_CONST":
                constant = step.argval
        texts = [c for c in code.co_consts if isinstance(c, str)]
        self.texts = set(texts)
        self.attributes.update(code.co_names, texts, *[re.split(r"[.{}\[\]!:]", t) for t in texts])
        if not {"eval", "exec"}.isdisjoint(code.co_names):
            words = re.findall(r"[^\W\d]\w*", " ".join(texts))
            self.attributes.update(words)
            self.globals.update(dict.fromkeys(words))
        for inner in [c for c in code.co_consts if isinstance(c, CodeType)]:
            found = _code(inner)
            self.globals.update(found.globals)
            self.stores.update(found.stores)
            self.wide |= found.wide or not found.opened.isdisjoint(code.co_cellvars)      # of a call
            self.inward |= found.inward
            self.asks |= found.asks
            for name in ("imports", "attributes", "reads", "opened", "texts", "constants"):
                getattr(self, name).update(getattr(found, name))


@functools.lru_cache(4096)
def _code(code: CodeType) -> _Code:
    return _Code(code)


@functools.lru_cache(4096)
def own_class(cls: Any) -> bool:
    """Is it a class of the user's code?"""
    module: Any = sys.modules.get(cls.__module__)
    return not isinstance(module, ModuleType) or cls.__module__ == "__main__" or _own_module(_OWN_NAMES.__get__(module))


def _room(cls: Any) -> str:
    """The library that a class belongs to, or no name."""
    room = str(cls.__module__).partition(".")[0]
    return room if room in _LIBRARIES and not own_class(cls) else ""


@functools.lru_cache(4096)
def _called_by(cls: type) -> set[str]:
    """The methods that code of other libraries, which a class is based on, may call."""
    return {n for base in cls.__mro__ if _room(base) not in ("", "minigrad")
            for n, v in vars(base).items() if isinstance(v, FunctionType)}


@functools.lru_cache(4096)
def _reads_itself(cls: Any) -> bool:
    """Has a class of the standard library, of NumPy or of this package code that reads its objects? A logger does not
    count, nor does a queue: they change all the time, and what they keep is known to others."""
    return _room(cls) != "" and any([
        n[0] != "_" or n in _READING for base in cls.__mro__[:-1] for n, v in vars(base).items()
        if isinstance(v, (FunctionType, property))])


# ---- pieces ----------------------------------------------------------------------------------------------------------

class Piece:
    """A table that a step may read, and what was in it. The table is a dict, a list or the like, or a cell.

    names    the keys that count; None: all
    owner    for a message: what the table belongs to
    counted  do all changes of the table call `changed`?
    length   how many elements count, of a list that the step itself appends to; None: all
    """

    def __init__(self, table: Any, names: Iterable[Any] | None, owner: str, counted: bool = False) -> None:
        self.table, self.owner, self.counted = table, owner, counted
        self.names = names if names is None or isinstance(names, frozenset) else tuple(names)
        self.length: int | None = None
        self.inner = False                  # is it part of an object of a library, which may change it for itself?
        self.then = self.now()

    def key(self, name: Any) -> tuple[int, Any]:
        """An entry, as it is known in the next recording."""
        if isinstance(self.table, Still):           # the step runs each time: its own kernels may have written there
            return id(self.table), object()
        return id(self.table.of if isinstance(self.table, Attributes) else self.table), name

    def called(self, name: Any) -> tuple[str, Any]:
        """An entry, for a message, and the name that the code gives it."""
        if isinstance(self.table, CellType):
            return self.owner, self.owner.split()[2]
        if self.owner == "the global":
            return f"the global {name}", name
        return f"{self.owner}[{name!r}]" if self.names is None else f"{self.owner}.{name}", name

    def now(self) -> dict[Any, Any]:
        """The entries that count."""
        table = self.table
        if isinstance(table, CellType):
            try:
                return {"": table.cell_contents}
            except ValueError:          # not assigned yet
                return {"": _MISSING}
        if self.names is not None:
            return {n: table.get(n, _MISSING) for n in self.names}
        return dict(table) if isinstance(table, Mapping) else dict(enumerate(list(table)[:self.length]))

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        """Live views of the entries, and functions that fetch them: what the quick comparison goes through."""
        table, names = self.table, self.names
        if names is None and self.length is None and not isinstance(table, CellType):
            values = table.values() if isinstance(table, Mapping) else ()
            return ([table, values], []) if not isinstance(values, Iterator) else ([], [lambda: self.now().values()])
        if names and self.length is None:
            return [], [partial(map, table.get, names, repeat(_MISSING))]
        return [], [lambda: self.now().values()]

    def direct(self) -> Iterable[Any]:
        """The names, if all are in the table and looking there says all."""
        there = type(self) is Piece and isinstance(self.table, (dict, MappingProxyType)) and self.names or ()
        return there if all([n in self.table for n in there]) else ()

    def same(self) -> bool:
        """Are the entries what they were, by value where that decides? Then remembers the objects of now."""
        now = self.now()
        if len(now) != len(self.then) or not (all(map(is_, now, self.then)) or all(map(equal, now, self.then))) \
                or not all(map(equal, now.values(), self.then.values())):
            return False                    # entries, or their order
        self.then = now
        return True

    def changed(self, now: dict[Any, Any]) -> list[Any]:
        """Which entries are not what they were, by value where that decides."""
        then = self.then
        return [n for n in {**then, **now} if not equal(then.get(n, _MISSING), now.get(n, _MISSING))]

    def lost(self) -> bool:
        """Is some object in it (not a number, a string or the like) another one now?"""
        now = self.now()
        return any(type(v) not in ATOMS and not equal(v, now.get(n, _MISSING)) for n, v in self.then.items())


def _state(generator: Any) -> str:
    """The state of a generator of random numbers."""
    if isinstance(generator, random.Random):
        return "" if isinstance(generator, random.SystemRandom) else repr(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return repr(generator.get_state())
    return repr(getattr(getattr(generator, "bit_generator", generator), "state", None))


@functools.lru_cache(512)
def _method_names(cls: type) -> frozenset[str]:
    """The methods that a class has of this package."""
    return frozenset(n for base in cls.__mro__ if not own_class(base) for n, v in vars(base).items()
                     if isinstance(v, FunctionType))


def _only_read(value: Any) -> bool:
    """Is it a file that was opened to be read?"""
    return getattr(value, "mode", None) in ("r", "rt", "rb")


def _context(value: ContextVar) -> Any:
    try:
        return value.get()
    except LookupError:
        return _MISSING


def _owner(value: np.ndarray) -> Any:
    """The array whose memory it is."""
    while isinstance(value.base, np.ndarray):
        value = value.base
    return value


def _array(value: np.ndarray) -> tuple:
    return value.dtype, value.shape, value.tobytes()


def _picked(value: Any, constants: set) -> tuple:
    """The length of a container, and what it holds under constants of the code."""
    count = len(value)
    if isinstance(value, Mapping):
        return count, *[value.get(c, _MISSING) for c in constants]
    if isinstance(value, (list, tuple, deque)):
        return count, *[value[c] for c in constants if type(c) is int and -count <= c < count]
    return count, *[c in value for c in constants]


class Attributes:
    """Attributes of an object that are not in its `__dict__`, as a table."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def get(self, name: str, default: Any) -> Any:
        """The attribute `name`."""
        return getattr(self.of, name, default)


class Still:
    """A table that tells whether what a function says of an object is what it said at first."""

    def __init__(self, of: Any, say: Callable[[], Any]) -> None:
        self.of, self.say, self.then = of, say, say()

    def get(self, name: str, default: Any) -> Any:
        """True while it is."""
        return equal(self.say(), self.then)


class Missing(Piece):
    """Which of the names that code knows an object or a class has: it may get one that hides another, or that code only
    asks for. Special methods of a class (`__bool__`) count too."""

    def now(self) -> dict[Any, Any]:
        names: Any = self.names
        return {n: True for n in self.table if n in names or n[:2] == "__"}

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        names = tuple(self.names)           # type: ignore[arg-type]        # of a large table, only these
        return ([self.table], []) if len(self.table) < len(names) else ([], [
            lambda: map(self.table.__contains__, names)])


class Tensors(Piece):
    """A slot of tensors."""

    def __init__(self, tensors: list[Any], slot: str, then: list[Any], counted: bool) -> None:
        self.slot = attrgetter(slot)
        super().__init__(tensors, None, {"array": "data", "node": "graph"}.get(slot, slot[1:]), counted)
        self.then = dict(enumerate(then))

    def key(self, name: Any) -> tuple[int, Any]:
        return id(self.table[name]), self.owner

    def called(self, name: Any) -> tuple[str, Any]:
        return f"the {self.owner} of a tensor {self.table[name].array.layout}", self.owner

    def now(self) -> dict[Any, Any]:
        return dict(enumerate(map(self.slot, self.table)))

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        return [], [lambda: map(self.slot, self.table)]


class Methods(Piece):
    """Methods of classes of this package that code calls: a program may replace them."""

    def __init__(self, classes: list[type], names: Iterable[str], owner: str) -> None:
        pairs = [(c, n) for c in classes for n in names if n in _method_names(c)]
        pairs += [(c, "__call__") for c in {base for c in classes for base in c.__mro__} if "__call__" in vars(c)
                  and not own_class(c)]
        self.of, self.called_so = [c for c, _ in pairs], [n for _, n in pairs]
        super().__init__((), None, owner)

    def now(self) -> dict[Any, Any]:
        return dict(enumerate(map(getattr, self.of, self.called_so)))

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        return [], [partial(map, getattr, self.of, self.called_so)]


class Functions(Piece):
    """Functions of the user: they may get other code (of a file that was edited and loaded again), other defaults."""

    def now(self) -> dict[Any, Any]:
        return dict(enumerate(map(_text, self.table)))

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        return [], [lambda: chain.from_iterable(map(_text, self.table))]


class TensorHooks(Piece):
    """The hooks of tensors."""

    def now(self) -> dict[Any, Any]:
        if not (hooks.tables or post_hooks.tables):
            return {}
        return dict(enumerate([f for t in self.table for table in (hooks, post_hooks) for f in (t, *table.of(t))]))

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        return [], [lambda: self.now().values()]


class Defaults(Piece):
    """What belongs to the process: the default dtype, and which kernels are used."""

    def now(self) -> dict[Any, Any]:
        return {"default dtype": default_float(), "fused": mode.fused, "kernels": mode.kernels}

    def parts(self) -> tuple[list[Iterable[Any]], list[Callable[[], Iterable[Any]]]]:
        return [], [lambda: self.now().values()]


_text = attrgetter("__code__", "__defaults__", "__kwdefaults__")
_contents = attrgetter("cell_contents")
_call = methodcaller("__call__")


class Compared:
    """Pieces that are compared together."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        entries = [(p.table, n) for p in pieces for n in p.direct()]
        self.tables, self.names = [table for table, _ in entries], [n for _, n in entries]
        parts = [p.parts() for p in pieces if not isinstance(p.table, CellType) and not p.direct()]
        self.cells = [p.table for p in pieces if isinstance(p.table, CellType)]
        self.views = [view for views, _ in parts for view in views]
        self.fetches = [fetch for _, fetches in parts for fetch in fetches]
        self.then = list(self._now())

    def _now(self) -> Iterator[Any]:
        return chain(*self.views, map(_contents, self.cells), map(getitem, self.tables, self.names),
                     *map(_call, self.fetches), _END)

    def same(self) -> bool:
        """Is everything as it was?"""
        try:
            if all(map(is_, self._now(), self.then)):
                return True
        except (KeyError, ValueError, RuntimeError):    # an entry is missing, a cell is empty, a dict is being changed
            pass
        if not all([p.same() for p in self.pieces]):
            return False
        self.then = list(self._now())
        return True


    def lost(self) -> bool:
        """Is some object in them another one now?"""
        return any([p.lost() for p in self.pieces])


# ---- what a step can reach -------------------------------------------------------------------------------------------

class Notes:
    """The pieces that a step may read: found from its function and arguments, or told by layers and optimisers."""

    def __init__(self) -> None:
        self.roots: list[tuple[Any, str]] = []
        self.inner = False                          # is what is visited now part of an object of a library?
        # the attributes that the code found so far names; the methods of a `Function` are called unnamed
        self.names = {"training", "forward", "backward", "vjp", "setup_context"}
        self.wide = False                           # may it read others, too?
        self.inward: set[type] = set()              # classes whose methods may read others of `self`
        self.methods: set[CodeType] = set()         # these methods
        self.opened: set[str] = set()               # names of objects of which code may read others
        self.bare: dict[int, Any] = {}              # these objects and their classes
        self.texts: set[str] = set()                # that may be in the names that are computed
        self.asks = False                           # may it ask whether there is a name?
        self.outside = ""                           # the error about what it reads of the world outside
        self.anew = False                           # does the step read what only running it again would give?
        self.constants: set[Any] = set()            # whole numbers and texts that it has
        self.stores: dict[str, str] = {}            # the lines that assign, by the name assigned to
        self.reads: set[str] = set()                # the names that are read, and not only appended to
        self._clear()

    def _clear(self) -> None:
        self.seen: dict[int, Any] = {}              # what was visited, kept alive
        self.drawing: list[tuple[Any, str, str]] = []       # generators of Python and NumPy, and their state at first
        self.pieces: list[Piece] = []
        # a tensor, and at first its array, requires_grad, node and version
        self.tensors: dict[int, tuple[Any, Any, bool, Any, int]] = {}
        self.classes: dict[type, tuple] = {}        # of the user's, and their bases
        self.large: set[int] = set()                # containers and arrays that are not compared whole
        self.functions: list[FunctionType] = []     # of the user's
        self.objects: list[Any] = []                # of classes of the user's
        self.later: list[tuple[Any, str]] = []      # objects of libraries: last, what code names has been found then
        for table in watched:
            self.add(table, None, "the hooks of all modules", counted=True)
            for hook in table.values():
                self.visit(hook, "a hook of all modules")

    def walk(self, roots: list[tuple[Any, str]]) -> None:
        """Finds everything from the roots: (object, what it is called)."""
        self.roots = roots
        count: Any = None
        while count != (now := self.extent()):      # code found late may name what was found early
            count = now
            self._clear()
            for value, text in roots:
                self.visit(value, text)
            self.inner = True
            while self.later:
                self._all_of(*self.later.pop())
            self.inner = False

    def extent(self) -> tuple:
        """How much the code found so far names."""
        return (len(self.names), len(self.inward), len(self.opened), len(self.bare), len(self.texts),
                len(self.constants), self.wide, self.asks)

    def add(self, table: Any, names: Iterable[Any] | None, owner: str, counted: bool = False) -> Piece:
        """Notes a table."""
        piece = Piece(table, names, owner, counted)
        piece.inner = self.inner
        self.pieces.append(piece)
        return piece

    def carries(self, value: Any, method: str, sets: Iterable[str]) -> None:
        """Forgets the attributes of an object that a replay brings forward, because it calls `method` again. If code
        that is not of its class reads one that changed, or all that it `sets` elsewhere, no replay is right."""
        own = {f.__code__ for base in type(value).__mro__ for f in vars(base).values() if isinstance(f, FunctionType)}
        codes = [_code(f.__code__) for f in self.functions if f.__code__ not in own]
        read = {n for found in codes for n in found.attributes}
        asked = [getattr(type(value), n, None) for n in read if n != method]
        through = [_code(f.__code__) for f in asked if isinstance(f, FunctionType)]
        read |= {n for found in through for n in found.attributes}
        for p in [p for p in self.pieces if p.table is vars(value)]:
            changed = p.changed(p.now())
            self.anew |= not read.isdisjoint(changed) or bool(changed) and any([found.wide for found in through])
            self.pieces.remove(p)
        self.anew |= read.issuperset(sets)

    def missing(self, table: Any, text: str, counted: bool = False) -> None:
        """Notes which of the names that the code knows a `__dict__` has."""
        self.pieces.append(Missing(table, frozenset(self.names), text, counted))

    def tensor(self, t: Any) -> None:
        """Notes a tensor: its memory, whether it requires gradients, its hooks."""
        if id(t) not in self.tensors:
            try:
                array = t.array
            except ValueError:          # it has no shape yet: the step that asks for one refuses itself
                return
            self.tensors[id(t)] = t, array, t._requires_grad, t.node, array.version
            for hook in (*hooks.of(t), *post_hooks.of(t)):
                self.visit(hook, "a hook of a tensor")
            if "_version" in self.names:
                self.add(Attributes(t), ("_version",), "a tensor")

    def visit(self, value: Any, text: str) -> None:
        """Notes what the code found so far can reach from a value."""
        kind: Any = type(value)
        if kind in ATOMS:
            if kind is str and len(value) > 1 and (self.wide or self.inward or self.opened):
                self.texts.add(value)               # getattr(self, self.mode)
            return
        if self.opened:
            self._opens(value, text)
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, Variable):
            self.tensor(value)
            if own_class(kind):
                self.object(value, text)
            elif hasattr(value, "__dict__") and (self.asks or value.__dict__):
                self._attributes(value.__dict__, text, self.reads_all_of(value))
        elif hasattr(kind, "_noted"):
            self.objects.append(value)
            value._noted(self, text)
        elif isinstance(value, (dict, list, tuple, set, frozenset, deque)):
            self._container(value, text)
            if isinstance(value, defaultdict):
                self._told_by(value, ("default_factory",), text)
            if own_class(kind):
                self.object(value, text)
        elif isinstance(value, _DRAWING):
            self.drawing.append((value, text, _state(value)))
            if not self.names.isdisjoint(_STATES):
                self.add(Still(value, partial(_state, value)), ("state",), text)
        elif isinstance(value, ModuleType):
            self._module(value, value.__name__)
            if own_class(kind):
                self.object(value, text)
        elif isinstance(value, type):
            self.members(value)
            if _reads_itself(value):
                held = [n for n in self.names if not hasattr(getattr(value, n, equal), "__get__")]      # no methods
                self._told_by(value, held, text)
            self._makers(value)
        elif isinstance(value, Iterator) and not (
                self.inner or own_class(kind) or hasattr(kind, "write") and not _only_read(value)):
            raise RuntimeError(f"[capture] {text} is an iterator, which a replay would not advance; call next() "
                               "outside the captured function, and pass what it gives as an argument")
        elif not (self._called(value, text) or self._told(value, text)):
            self._others(value, text)

    def _called(self, value: Any, text: str) -> bool:
        """Notes what is called: functions, methods and what wraps them. False for all else."""
        kind: Any = type(value)
        if kind is FunctionType:
            self._function(value)
        elif kind is CodeType:
            self._reads(value, {})
        elif kind is MethodType:
            self.visit(value.__func__, text)
            self.visit(value.__self__, text)
        elif kind in (BuiltinMethodType, MethodWrapperType):
            self.visit(value.__self__, text)
        elif isinstance(value, (partial, functools.partialmethod)):
            self._told_by(value, ("func", "args", "keywords"), text)
            self._attributes(value.__dict__, text)
        elif isinstance(value, property):
            self.visit(value.fget, text)
        elif isinstance(value, (staticmethod, classmethod)):
            self.visit(value.__func__, text)
        elif kind in (attrgetter, methodcaller):
            made = value.__reduce__()
            self.names.update(*[n.split(".") for n in (*made[1], *getattr(made[0], "args", ())) if isinstance(n, str)])
        else:
            return False
        return True

    def _opens(self, value: Any, text: str) -> None:
        """Keeps an object that has one of the names of which code computes names; is it one that may give such objects
        without holding them under these names, all are read."""
        kind: Any = type(value)
        if text.rpartition(".")[2] in self.opened:
            self.bare.update({id(value): value, id(kind): kind})
        if hasattr(kind, "__getattr__") and not hasattr(kind, "_noted") and not isinstance(value, ModuleType) \
                or any(isinstance(getattr(kind, n, None), property) for n in self.opened):
            self.wide = True

    def _told(self, value: Any, text: str) -> bool:
        """Notes what says itself what is in it, at a replay again. False for all else."""
        kind: Any = type(value)
        say: Callable[[], Any] | None = None
        if isinstance(value, ref):                  # a piece keeps what it compares: only whether the object is there
            say, count = lambda: value() is None, len(self.objects)
            self.visit(value(), text)
            del self.objects[count:]
        elif kind is ContextVar:
            say = partial(_context, value)
            self.visit(say(), text)
        elif kind.__module__ in ("queue", "_queue", "threading", "_thread"):
            say = getattr(value, next((n for n in ("qsize", "is_set", "locked") if hasattr(kind, n)), ""), None)
            self.object(value, text)
        elif hasattr(kind, "getvalue"):
            say = value.getvalue if "getvalue" in self.names else None
        elif isinstance(value, np.ndarray):
            if value.nbytes <= _BYTES:
                say = partial(_array, value)
                for item in value.flat if value.dtype.hasobject else ():
                    self.visit(item, text)
            else:
                self.large.add(id(_owner(value)))
            if own_class(kind):
                self.object(value, text)
        else:
            try:
                say = partial(bytes, value) if memoryview(value).nbytes <= _BYTES else None
            except TypeError:
                return False
            self._inside(value, text)
        if say is not None:
            self.add(Still(value, say), ("content",), text)
        return True

    def _others(self, value: Any, text: str) -> None:
        """Notes an object of another kind."""
        kind: Any = type(value)
        if "__wrapped__" in getattr(value, "__dict__", ()):
            self.visit(value.__wrapped__, text)
            if kind is _CACHED:
                self._inside(value, text)
        elif isinstance(value, (UserList, UserString)):
            self._container(vars(value), text)
            self.object(value, text)
        elif isinstance(value, (Mapping, WeakSet)) and not own_class(kind):
            self._container(value, text)
        elif kind.__module__.startswith(("minigrad.core", "minigrad.devices", "minigrad.ops")):
            pass
        elif own_class(kind) or hasattr(value, "__dict__") or _reads_itself(kind) \
                or any(map(inspect.isfunction, vars(kind).values())):
            self.object(value, text)
        elif kind.__module__ != "builtins" or isinstance(value, (KeysView, ValuesView, ItemsView)):
            self._inside(value, text)

    def _inside(self, value: Any, text: str) -> None:
        """Notes what an object that is written in C refers to (a view of a dict: the dict)."""
        self.add(Still(value, lambda: tuple(gc.get_referents(value))), ("content",), text)
        for inner in gc.get_referents(value):
            if not isinstance(inner, (type, ModuleType)):
                self.visit(inner, text)

    def copied(self, value: Any) -> None:
        """Notes that the step copies a list or an array: then all of it is compared, however large it is."""
        if isinstance(value, np.ndarray) and id(_owner(value)) in self.large:
            self.add(Still(value, partial(_array, value)), ("content",), "an array")
        elif isinstance(value, (list, deque)) and id(value) in self.large:
            self.add(value, None, "a list")

    def _told_by(self, value: Any, names: Iterable[str], text: str) -> None:
        """Notes attributes that are not in a `__dict__`; those that are made when they are read are not compared."""
        table = Attributes(value)
        found = [n for n in names if equal(table.get(n, _MISSING), table.get(n, _MISSING))]
        if found:
            self.add(table, found, text)
        for n in names:
            self.visit(table.get(n, None), f"{text}.{n}")

    def _module(self, value: Any, name: str) -> None:
        table = _OWN_NAMES.__get__(value)
        if name == "random":
            self.visit(value._inst, name)
        elif name == "numpy.random":
            self.visit(value.mtrand._rand, name)
        elif name == "os" and not self.names.isdisjoint(("environ", "getenv", "expandvars")):
            self.visit(value.environ._data, "os.environ")
        if _own_module(table):
            self._attributes(table, name, id(value) in self.bare)
            self.visit(table.get("__getattr__"), name)
            return
        if self.asks:
            self.missing(table, name)
        named = [n for n in table if n in self.names and n != "modules"]
        inner = [n for n in named if isinstance(table[n], ModuleType)]
        entries = [n for n in named if n not in inner]                  # functions may be replaced
        if entries:
            self.add(table, entries, name)
        for n in named if not name.startswith("minigrad") else inner:
            if n in inner or type(table[n]) in (list, dict, type):
                self.visit(table[n], f"{name}.{n}")

    def _function(self, function: FunctionType) -> None:
        code, cells = function.__code__, function.__closure__ or ()
        own = not foreign(code.co_filename)
        for name, cell in zip(code.co_freevars, cells, strict=True):
            if own:
                self.add(cell, None, f"the variable {name} of {function.__qualname__}")
            try:
                inner = cell.cell_contents
            except ValueError:
                continue                # not assigned yet
            if name == "__class__":     # of super(), which makes no object
                self.members(inner)
            else:
                self.visit(inner, name)
        self.visit(getattr(function, "__wrapped__", None), function.__name__)
        if not own:
            if function is os.getenv:
                self.names.add("getenv")
                self._module(os, "os")
            return
        self.functions.append(function)
        self._attributes(function.__dict__, function.__qualname__)
        self._spoken_of(function, function.__qualname__)
        self._reads(code, function.__globals__)
        defaults = function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults):code.co_argcount]
        self.visit(function.__kwdefaults__, code.co_name)
        for n, default in zip(names, defaults, strict=True):
            self.visit(default, n)

    def _reads(self, code: CodeType, there: dict[str, Any]) -> None:
        """Notes what a code names, and its globals; they are in `there`."""
        found = _code(code)
        self.names |= found.attributes
        self.stores.update(found.stores)
        self.reads |= found.reads
        self.constants |= found.constants
        self.asks |= found.asks
        if code.co_name not in _ASIDE:
            self.wide |= found.wide or found.inward and code not in self.methods
            self.opened |= found.opened
            self.texts |= {t for t in found.texts if len(t) > 1}
        elif code.co_name.startswith("__getattr"):          # what it gives is found by no name
            self.wide |= bool(self.opened)
        known: Iterable[str] = found.globals
        if "globals" in found.globals:
            known = {*self.names}
        for table, named in ((vars(sys.modules["builtins"]), [n for n in known if n not in there]), (there, [*known])):
            if named:                       # globals that are not there yet, too: one may hide a builtin
                self.add(table, named, "the global" if table is there else "the builtin")
        modules = [n for name in found.imports for n in (name, f"{there.get('__package__')}.{name}")]
        if not _IMPORTING.isdisjoint(found.attributes) or {"sys", "modules"} <= found.attributes:
            modules += [*found.texts, *[n for n in self.names if n in sys.modules], there.get("__name__", "")]
        if modules:
            self.add(sys.modules, modules, "the module")
        for n, value in [*[(n, there.get(n)) for n in known], *[(n, sys.modules.get(n)) for n in modules]]:
            self.visit(value, n)

    def _spoken_of(self, value: Any, text: str) -> None:
        """Notes the name, the text and the like of a function or a class, where code names them."""
        named = self.names.intersection(_SPOKEN)
        if named:
            self._told_by(value, named, text)

    def _container(self, value: Any, text: str) -> None:
        if len(value) > _MANY:
            self.large.add(id(value))
            self.add(Still(value, partial(_picked, value, self.constants)), ("length",), text)
            for item in _picked(value, self.constants):
                self.visit(item, text)
            return
        if not isinstance(value, (tuple, frozenset)):
            self.add(value, None, text)
        for item in list(chain(value, value.values()) if isinstance(value, Mapping) else value):
            self.visit(item, text)

    def reads_all_of(self, value: Any) -> bool:
        """May code read attributes of an object or a class that it does not spell out?"""
        cls = value if isinstance(value, type) else type(value)
        return self.wide or id(value) in self.bare or not self.inward.isdisjoint(cls.__mro__)

    def _made(self, name: str) -> bool:
        """Does the name begin or end with a text that the code has?"""
        return any(name.startswith(t) or name.endswith(t) for t in self.texts)

    def _attributes(self, table: Any, text: str, wide: bool = False) -> None:
        """Notes the entries of a `__dict__` that code names, those too that it may get; all, if it computes names."""
        named = [n for n in table if n in self.names]
        if wide or self.wide:
            self.add(table, None, text)
            named += [n for n, v in table.items() if n not in self.names and not isinstance(v, Iterator)
                      and ("__spec__" not in table or self._made(n))]               # of a module not all
        else:
            if named:
                self.add(table, named, text)
            self.missing(table, text)
        for n in named:
            self.visit(table[n], f"{text}.{n}")

    def members(self, cls: type) -> None:
        """Notes the attributes of a class and its bases that code names, and looks into its methods."""
        whole, called = self.reads_all_of(cls), _called_by(cls)
        for base in cls.__mro__:
            if not own_class(base):
                continue
            methods = [n for n, v in vars(base).items() if n not in _MAKERS and hasattr(v, "__get__")
                       and (n in self.names or n in called or n == "forward" or n.startswith("__") or whole and (
                           not isinstance(v, (FunctionType, staticmethod, classmethod)) or self._made(n)))]
            named = [n for n, v in vars(base).items() if (n in self.names or whole and not n.startswith("__"))
                     and not hasattr(v, "__get__")]
            if named or methods:
                self.add(vars(base), [*named, *methods], base.__name__)
            self.missing(vars(base), base.__name__)
            self.classes[base] = base.__bases__
            self._spoken_of(base, base.__name__)
            for n in (*named, *methods):
                value = vars(base)[n]
                method: Any = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
                self.wide |= n in self.opened and not isinstance(value, FunctionType)       # it may be found by no name
                if isinstance(method, FunctionType) and _code(method.__code__).inward \
                        and not isinstance(value, staticmethod):
                    self.methods.add(method.__code__)
                    if n not in _ASIDE:
                        self.inward.add(base)
                self.visit(value, f"{base.__name__}.{n}")
        kind: Any = type(cls)
        if own_class(kind):
            self.members(kind)
        if "__subclasses__" in self.names and own_class(cls):
            self.add(Still(cls, lambda: len(type.__subclasses__(cls))), ("content",), cls.__name__)
            below: list[type] = type.__subclasses__(cls)
            for found in below:
                self.members(found)

    def _makers(self, cls: type) -> None:
        """Looks into what runs when code calls a class that it names."""
        for base in filter(own_class, cls.__mro__):
            found = [n for n in ("__new__", "__init__", "__class_getitem__") if n in vars(base)]
            if found:
                self.add(vars(base), found, base.__name__)
            for n in found:
                self.visit(vars(base)[n], f"{base.__name__}.{n}")

    def object(self, value: Any, text: str) -> None:
        """Notes the attributes of an object that code names, and looks into the methods of its class."""
        kind: Any = type(value)
        self.members(kind)
        table, whole = getattr(value, "__dict__", None), self.reads_all_of(value)
        if own_class(kind) or isinstance(table, dict):
            self.objects.append(value)
        if isinstance(table, dict):
            self._attributes(table, text, whole)
        told = [n for base in kind.__mro__ for n, v in vars(base).items()
                if isinstance(v, _STORED) and n[:2] != "__" and (n in self.names or whole and own_class(base))]
        if told:
            self._told_by(value, told, text)
        if _reads_itself(kind):
            self.later.append((value, text))

    def _all_of(self, value: Any, text: str) -> None:
        """Notes all attributes of an object of a library; of this package's, all that have public names."""
        public = _room(type(value)) == "minigrad"
        held = {n: v for n, v in getattr(value, "__dict__", {}).items() if not (public and n[0] == "_")}
        if held:
            self.add(vars(value), [*held], text)
        for n, v in held.items():
            self.visit(v, f"{text}.{n}")
        self._told_by(value, [n for base in type(value).__mro__ for n, v in vars(base).items()
                              if isinstance(v, MemberDescriptorType) and n[:2] != "__"], text)

    # ---- after the recording ----

    def settle(self, used: Callable[[Any], bool], before: set[tuple]) -> tuple[list[tuple], set[tuple]]:
        """What the step itself changed of what it may read: (entries that a replay sets again, other entries).

        An entry that held a tensor is set again if no launch read that tensor (`used`): it only keeps a result. A list
        that the step only appends to counts up to its first length. RuntimeError if a replay cannot repeat the change:
        the step replaced a tensor that it computed with, or changed an entry that the recording before (`before`)
        changed too.
        """
        if self.outside:
            raise RuntimeError(self.outside)
        for generator, text, state in self.drawing:
            if _state(generator) != state:
                raise RuntimeError(f"[capture] {text} drew numbers while recording, which a replay would not; draw "
                                   "them outside and pass them, or use the random functions of minigrad")
        carried: list[tuple] = []
        held = (dict, CellType)
        moved: set[tuple[int, Any]] = set()
        noted = list(self.tensors.values())
        tensors = [n[0] for n in noted]
        self.pieces = [p for p in self.pieces if not (isinstance(p.table, Still) and used(p.table.of))]
        self.pieces += [Tensors(tensors, slot, [n[i] for n in noted], counted=True)
                        for i, slot in enumerate(("array", "_requires_grad", "node"), 1)]
        for p in list(self.pieces):
            now, then = p.now(), p.then
            entries = p.changed(now)
            if entries and type(p) is Piece and isinstance(p.table, list) and entries[0] == len(then) and not p.inner:
                if any(used(v) for v in then.values()):
                    self._refuse(p, entries[0])
                p.length = len(then)
                if p.owner.rpartition(".")[2] in self.reads:
                    moved.add(p.key("append"))
                continue
            for n in entries if not p.inner else ():
                old = then.get(n, _MISSING)
                if used(old):
                    self._refuse(p, n)
                if isinstance(old, Variable) and isinstance(now.get(n), Variable) and isinstance(p.table, held):
                    carried.append((p.table, n, now[n]))
                elif p.key(n) in before:
                    self._refuse(p, n)
                else:
                    moved.add(p.key(n))
            if entries:
                self.pieces.remove(p)
                if isinstance(p.table, dict):
                    changed = set(entries)                  # a list would compare keys by ==, and keys may be tensors
                    self.add(p.table, [n for n in then if n not in changed], p.owner, p.counted)
        return carried, moved

    def _refuse(self, p: Piece, name: Any) -> None:
        what, key = p.called(name)
        key = key if key in self.stores else "append" if isinstance(p.table, list) and name not in p.then else "[]"
        raise RuntimeError(f"[capture] {what} was changed while recording, which a replay would not repeat; "
                           f"at {self.stores.get(key, 'a line that is not known')}; change its values in place (copy_, "
                           "add_), or pass it as an argument and return the new one")

    def rewritten(self) -> list[Any]:
        """The arrays under noted tensors that the step wrote to: a replay counts that as a change in place too."""
        return list({id(s): s for t, a, _, _, version in self.tensors.values() if a.version != version
                     for s in [t.array.storage]}.values())

    def compared(self) -> tuple[Compared, Compared]:
        """What is compared before each replay, and what is compared after a change only."""
        tensors = [n[0] for n in self.tensors.values()]
        self.pieces += [TensorHooks(tensors, None, "hooks", counted=True), Defaults((), None, "default", counted=True)]
        if self.functions:
            self.pieces.append(Functions(self.functions, None, "functions"))
        if self.classes:
            self.pieces.append(Tensors([*self.classes], "__bases__", [*self.classes.values()], False))
        for counted in (False, True):
            objects = [v for v in self.objects if hasattr(type(v), "_noted") is counted]
            held = [v for v in objects if type(getattr(v, "__dict__", None)) is dict]
            self.pieces += [Tensors(found, slot, list(map(then, found)), counted) for found, slot, then in (
                (objects, "__class__", type), (held, "__dict__", vars)) if found]
        tensors = Variable.__subclasses__()
        kinds: Any = {type(v) for v in self.objects if hasattr(type(v), "_noted")}
        self.pieces += [p for p in [Methods([*kinds, *tensors], self.names, "methods")] if p.then]
        self.add(vars(devices), ("default_name",), "minigrad.devices")
        return Compared([p for p in self.pieces if not p.counted]), Compared([p for p in self.pieces if p.counted])


# ---- the world outside: the clock, files, fresh random numbers, the process ------------------------------------------

# Only functions in C read it, and only code that can reach one (`may_read`) is recorded under `sys.setprofile`, which
# says what is called. A call counts if the user's code makes it. Of files and random numbers one counts too that the
# standard library or NumPy makes for that code (`np.load`), not one that they make for themselves: an import, a log.
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
_ITSELF = {"_pickle", "copy", "importlib", "linecache", "logging", "tempfile", "weakref"}
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
            or isinstance(v, type) and v.__module__ == "random"
            or isinstance(v, BuiltinFunctionType) and f"{_module(v)}.{v.__name__}" in _READS
            for v in [*vars(sys.modules.get(module, sys)).values()]])


def may_read(notes: Notes) -> bool:
    """May the code that was found read it?"""
    found = [v for v in notes.seen.values() if isinstance(v, (FunctionType, BuiltinFunctionType, type, ModuleType))]
    names = _NAMES & notes.names | _NAMES & {v.__name__ for v in found}
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
        if not _ITSELF.isdisjoint(names) or code.co_name in _CALLED_BY_PYTHON or code.co_filename.startswith(_AGAIN):
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
