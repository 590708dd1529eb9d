"""`import torch` answered by minigrad: a finder in `sys.meta_path`, and the modules that it makes."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..core.messages import NoAttribute
from . import methods
from .names import BEHIND, EMPTY, MODULES, REFUSED, REFUSED_NAMES
from .refused import refused

_ROOT = __package__.partition(".")[0]
_NOTHING = object()
_OWN_NAMES: Any = vars(ModuleType)["__dict__"]       # what a module object holds


class Door(ModuleType):
    """A module of PyTorch's name. Its names are looked up when they are first asked for: a module of its own, then in
    `sources`, the modules that have them, in order ("module name other": these names only). `reason` says why a module
    has none: each name is then an object that refuses to be called."""

    def __init__(self, name: str, sources: Sequence[str], reason: str) -> None:
        super().__init__(name, f"PyTorch's `{name}`, answered by {', '.join(sources) or 'minigrad'}.")
        self.__path__: list[str] = []                   # so that it may have modules
        self.__sources, self.__reason = sources, reason

    def __getattr__(self, name: str) -> Any:
        value = self.__find(name)
        if value is _NOTHING:
            raise NoAttribute(f"module {self.__name__!r}", name, self.__dir__)
        setattr(self, name, value)
        return value

    def __find(self, name: str) -> Any:
        if name == "__all__":                           # for `from torch.nn import *`
            return [n for n in self.__dir__() if not n.startswith("_")]
        if (full := f"{self.__name__}.{name}") in MODULES and full not in BEHIND:
            return import_module(full)
        if name.startswith("__") and name != "__version__":
            return _NOTHING
        for source in self.__sources:
            module, *only = source.split()
            value: Any = _NOTHING if only and name not in only else getattr(import_module(module), name, _NOTHING)
            if value is not _NOTHING:
                own = isinstance(value, ModuleType) and value.__name__.startswith(_ROOT + ".")
                return import_module("torch" + value.__name__.removeprefix(_ROOT)) if own else value
        if name == "is_available" and self.__reason:
            return bool                                 # bool() is False: `import torch.distributed.rpc as rpc`
        reason = self.__reason or REFUSED_NAMES.get(full)
        return refused(full, reason) if reason else _NOTHING

    def __setattr__(self, name: str, value: Any) -> None:
        """What the import system sets after it has loaded a module; a function in front of it stays."""
        if not (isinstance(value, Door) and value.__name__ in BEHIND):
            super().__setattr__(name, value)

    @property
    def __dict__(self) -> dict[str, Any]:               # type: ignore[override]
        """All names with their values, for `torch.optim.__dict__["SGD"]`."""
        found: dict[str, Any] = _OWN_NAMES.__get__(self)
        if "__path__" in found and not found.setdefault("_complete", False):
            found["_complete"] = True                   # before the loop: what is imported in it may look here
            for name in {*self.__dir__()} - found.keys():
                with suppress(AttributeError, ImportError):
                    getattr(self, name)
        return found

    def __dir__(self) -> list[str]:
        """All names, those too that were not asked for yet."""
        found = {n.rpartition(".")[2] for n in MODULES if n.rpartition(".")[0] == self.__name__}
        for source in self.__sources:
            name, *only = source.split()
            module = import_module(name)
            found.update(only or getattr(module, "__all__", None) or dir(module))
        return sorted(found | _OWN_NAMES.__get__(self).keys())


class Finder:
    """Finds `torch`, `functorch` and their modules, and loads them: both sides of the import system in one."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a module of `torch`, None for other modules."""
        if name in EMPTY:
            return ModuleSpec(name, self)                           # type: ignore[arg-type]
        if name.partition(".")[0] not in ("functorch", "torch"):
            return None
        if _entry(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}: minigrad has nothing in its place", name=name)
        return ModuleSpec(name, self, is_package=True)              # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module; its names come when they are asked for."""
        sources, reason = _entry(spec.name) or ((), "")
        return Door(spec.name, sources, reason)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: see `Door`."""


def _entry(name: str) -> tuple[tuple[str, ...], str] | None:
    """(where the names of a module of `torch` come from, why it has none); None where there is no such module."""
    if name in MODULES:
        return tuple(f"{_ROOT}{source}" for source in MODULES[name]), REFUSED.get(name, "")
    parent, _, last = name.rpartition(".")
    while parent:
        if parent in REFUSED:
            return (), REFUSED[parent]
        if f"{parent}.*" in MODULES and parent == name.rpartition(".")[0]:      # torch.nn.modules.conv and the like
            return tuple(f"{_ROOT}{source}" for source in MODULES[f"{parent}.*"]), ""
        parent = parent.rpartition(".")[0]
    own = f"{_ROOT}{name.removeprefix('torch')}"        # a module that has the same name in minigrad
    try:
        return ((own,), "") if find_spec(own) is not None else None
    except ModuleNotFoundError:                         # its package is a module
        return None


_FINDER = Finder()


def installed() -> bool:
    """Does `import torch` mean minigrad?"""
    return _FINDER in sys.meta_path


def install() -> None:
    """From now on `import torch` means minigrad, in the whole process. RuntimeError if PyTorch itself was imported
    before. A second call does nothing."""
    if installed():
        return
    if "torch" in sys.modules:
        raise RuntimeError("[as_torch] PyTorch itself is imported already; call install() before the first "
                           "`import torch`")
    sys.meta_path.insert(0, _FINDER)                    # type: ignore[arg-type]
    methods.put_on()


def uninstall() -> None:
    """From now on `import torch` means PyTorch again, if it is installed. What was imported from minigrad under
    PyTorch's names stays what it is."""
    if installed():
        sys.meta_path.remove(_FINDER)                   # type: ignore[arg-type]
        methods.take_off()
        for name in [n for n, module in sys.modules.items() if isinstance(module, Door)]:
            del sys.modules[name]
