"""Modules that hold modules: `Sequential` (a chain), `ModuleList` (a list), `ModuleDict` (a dict)."""
from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..core.modes import changed
from .module import Module, indent

if TYPE_CHECKING:
    from typing_extensions import Self


class _Listed(Module):
    """Modules in a fixed order, addressed by position. Slices and negative positions work as for lists."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def _name_at(self, index: Any) -> str:
        """The name of the module at a position."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {index} is out of range")
        return list(self._modules)[i]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)[index] if isinstance(index, slice) else [self._name_at(index)]
        for name in names:
            delattr(self, name)
        self._renumber(list(self._modules.values()))

    def _renumber(self, modules: list[Any]) -> None:
        """Makes these the modules, named "0", "1", ..."""
        self._modules.clear()
        self._modules.update((str(i), m) for i, m in enumerate(modules))

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def pop(self, key: int | slice) -> Any:
        """Removes and returns the module at `key`, or those of a slice."""
        found = self[key]
        del self[key]
        return found

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError


class Sequential(_Listed):
    """Modules called one after the other; made of modules, or of an `OrderedDict` of named ones.

        >>> nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))(minigrad.ones(5, 64)).shape
        Size([5, 10])
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = list(args[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(args)]
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        """The output of the last module; each gets the output of the one before."""
        for module in self._modules.values():
            input = module(input)               # type: ignore[misc]
        return input

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._name_at(index)]

    def insert(self, index: int, module: Module) -> Self:
        """Puts `module` before position `index`."""
        if not isinstance(module, Module):
            raise AssertionError(f"[Sequential.insert] module must be a Module; got {type(module).__name__}")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"[Sequential.insert] index {index} is out of range for {len(self)} modules")
        modules = list(self._modules.values())
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def extend(self, sequential: Iterable[Module]) -> Self:
        """Adds the modules of another iterable at the end."""
        for module in list(sequential):
            self.append(module)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        self._only_sequential(other)
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Self:
        self._only_sequential(other)
        return self.extend(other)

    @staticmethod
    def _only_sequential(other: Any) -> None:
        if not isinstance(other, Sequential):
            raise ValueError(f"[Sequential] only a Sequential can be added; got {type(other).__name__}")

    def __mul__(self, other: int) -> Sequential:
        self._only_positive(other)
        return Sequential(*(list(self) * other))

    __rmul__ = __mul__

    def __imul__(self, other: int) -> Self:
        self._only_positive(other)
        return self.extend(list(self) * (other - 1))

    def _only_positive(self, other: Any) -> None:
        if not isinstance(other, int):
            raise TypeError(f"[Sequential] the factor must be an int; got {type(other).__name__}")
        if other <= 0:
            raise ValueError(f"[Sequential] the factor must be positive; got {other}")


class ModuleList(_Listed):
    """A list whose modules are registered; it has no `forward` of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._name_at(index)]

    def insert(self, index: int, module: Module) -> None:
        """Puts `module` before position `index`."""
        modules = list(self._modules.values())
        modules.insert(index, module)
        self._renumber(modules)

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds the modules of an iterable at the end."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"[ModuleList.extend] modules must be an iterable; got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    __iadd__ = extend

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(chain(self, other))

    def __repr__(self) -> str:
        # a run of modules that look alike is shown once
        runs: list[tuple[int, int, str]] = []
        for i, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in runs]
        return self._get_name() + ("(\n  " + "\n  ".join(map(indent, lines)) + "\n)" if lines else "()")


class ModuleDict(Module):
    """A dict whose modules are registered, in the order of insertion; it has no `forward` of its own."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]
        changed()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Removes all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Removes and returns the module of `key`."""
        return self._modules.pop(key)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> ItemsView[str, Any]:
        """(name, module), in the order of insertion."""
        return self._modules.items()

    def values(self) -> ValuesView[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds the modules of a mapping, or of (name, module) pairs; an existing name is replaced."""
        if not isinstance(modules, Iterable):
            raise TypeError("[ModuleDict.update] modules must be an iterable of key/value pairs; "
                            f"got {type(modules).__name__}")
        pairs: Iterable = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        for i, pair in enumerate(pairs):
            if not isinstance(pair, Iterable):
                raise TypeError(f"[ModuleDict.update] element {i} must be a pair; got {type(pair).__name__}")
            pair = tuple(pair)
            if len(pair) != 2:
                raise ValueError(f"[ModuleDict.update] element {i} must be a pair; got {len(pair)} values")
            self[pair[0]] = pair[1]
