"""Modules that hold modules: `Sequential` (a chain), `ModuleList` (a list), `ModuleDict` (a dict); and those that hold
parameters: `ParameterList`, `ParameterDict`."""
from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..core.modes import changed
from ..core.tensor import Tensor
from .module import Module, Parameter, indent

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
        changed()

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
        changed()

    def pop(self, key: str) -> Any:
        """Removes and returns the module of `key`."""
        found = self._modules.pop(key)
        changed()
        return found

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


def _held(value: Any) -> Any:
    """A tensor becomes a parameter; anything else stays as it is."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _described(name: str, value: Any) -> str:
    """The line of a value in `repr`."""
    if not isinstance(value, Tensor):
        return f"({name}): Object of type: {type(value).__name__}"
    sizes, where = "x".join(map(str, value.shape)), f" ({value.device})" if value.is_cuda else ""
    return f"({name}): {type(value).__name__} containing: [{value.dtype} of size {sizes}{where}]"


class ParameterList(Module):
    """A list whose parameters are registered; a tensor becomes a parameter, other values are kept beside them.

        >>> weights = nn.ParameterList([minigrad.zeros(2, 3), minigrad.zeros(3)])
        >>> [name for name, _ in weights.named_parameters()]
        ['0', '1']
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def _position(self, index: Any) -> str:
        """The name of the value at a position."""
        i = operator.index(index)
        if not -self._size <= i < self._size:
            raise IndexError(f"index {i} is out of range")
        return str(i % self._size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, str(i)) for i in range(self._size)])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, self._position(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._position(index), _held(value))

    def append(self, value: Any) -> Self:
        """Adds a value at the end."""
        setattr(self, str(self._size), _held(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Adds the values of an iterable at the end; TypeError for what is none, and for a tensor: it is one value."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(f"[ParameterList.extend] values must be an iterable; got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    __iadd__ = extend

    def pop(self, index: int = -1) -> Any:
        """Removes and returns the value at a position; those behind it move up."""
        found = self[index]
        rest = [value for i, value in enumerate(self) if str(i) != self._position(index)]
        for i in range(self._size):
            delattr(self, str(i))
        self._size = 0
        self.extend(rest)
        return found

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def extra_repr(self) -> str:
        return "\n".join([_described(str(i), value) for i, value in enumerate(self)])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ParameterList should not be called; use its parameters")


class ParameterDict(Module):
    """A dict whose parameters are registered, in the order of insertion; a tensor becomes a parameter, other values are
    kept beside them."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"[ParameterDict] a key must be a string; got {type(key).__name__}")
        if key not in self._keys and hasattr(self, key):
            raise KeyError(f"attribute '{key}' already exists")
        setattr(self, key, _held(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._keys.keys()

    def values(self) -> list[Any]:
        """The values."""
        return [getattr(self, key) for key in self._keys]

    def items(self) -> list[tuple[str, Any]]:
        """(name, value), in the order of insertion."""
        return [(key, getattr(self, key)) for key in self._keys]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        return self[key] if key in self else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of `key`, which is set to `default` if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Removes and returns the value of `key`."""
        found = self[key]
        del self[key]
        return found

    def popitem(self) -> tuple[str, Any]:
        """Removes and returns the last (name, value)."""
        if not self._keys:
            raise KeyError("popitem(): ParameterDict is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def clear(self) -> None:
        """Removes all values."""
        for key in list(self._keys):
            del self[key]

    def copy(self) -> ParameterDict:
        """A dict with the same values."""
        return ParameterDict(self)

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict with one value for all keys."""
        return ParameterDict([(key, default) for key in keys])

    def update(self, parameters: Any) -> None:
        """Adds the values of a mapping, or of (name, value) pairs; an existing name is replaced. A plain dict is read
        in the order of its names, as in PyTorch."""
        if not isinstance(parameters, Iterable):
            raise TypeError("[ParameterDict.update] parameters must be an iterable of key/value pairs; "
                            f"got {type(parameters).__name__}")
        ordered = isinstance(parameters, OrderedDict | ParameterDict) or not isinstance(parameters, Mapping)
        pairs = dict(parameters.items() if isinstance(parameters, Mapping | ParameterDict) else parameters)
        for key in pairs if ordered else sorted(pairs):
            self[key] = pairs[key]

    def __or__(self, other: ParameterDict) -> ParameterDict:
        made = self.copy()
        made.update(other)
        return made

    def __ror__(self, other: dict[str, Any]) -> dict[str, Any]:
        return {**other, **dict(self.items())}

    def __ior__(self, other: ParameterDict) -> Self:
        self.update(other)
        return self

    def extra_repr(self) -> str:
        return "\n".join([_described(key, value) for key, value in self.items()])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ParameterDict should not be called; use its parameters")
