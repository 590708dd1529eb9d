"""`Module`: a tree of parameters, buffers and submodules, with a state dict. `Parameter`: a tensor that trains.

The names, orders and error types are PyTorch's (`torch.nn.Module`), so that a model and its checkpoint move between the
two. The hooks of modules are in `nn/hooks.py`.
"""
from __future__ import annotations

import gc
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..core.engine import drop_grads
from ..core.messages import Guarded, NoAttribute, explain_arguments, taken
from ..core.modes import changed, mode, no_grad
from ..core.notes import Notes
from ..core.place import calls
from ..core.shape import is_float, left_out
from ..core.tape import locators
from ..core.tensor import Tensor
from ..devices.base import Device
from ..ops.creation import as_tensor, empty, empty_like
from .arguments import DeviceLike
from .hooks import Hookable, registered
from .hooks import register_module_forward_hook as register_module_forward_hook
from .hooks import register_module_forward_pre_hook as register_module_forward_pre_hook
from .hooks import register_module_full_backward_hook as register_module_full_backward_hook
from .hooks import register_module_full_backward_pre_hook as register_module_full_backward_pre_hook

if TYPE_CHECKING:
    from typing_extensions import Self

_Ties: TypeAlias = "dict[int, tuple[Tensor, list[tuple[Module, str]]]]"     # id of a tensor: it, and the names of it
# what the call of a module reads in its `__dict__`, besides what `forward` reads
_TABLES = ("_parameters", "_buffers", "_modules", "_hooked", "_forward_pre_hooks", "_forward_hooks",
           "_backward_pre_hooks", "_backward_hooks")
_EXTRA_STATE = "_extra_state"                   # the key of `get_extra_state` in a state dict


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` returns."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if self.missing_keys or self.unexpected_keys else "<All keys matched successfully>"

    __str__ = __repr__


class Parameter(Tensor):
    """A tensor that a `Module` lists among its `parameters()` when it is assigned as an attribute.

    It shares memory with `data` and is a leaf of the graph, also inside `no_grad()`.
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        super().__init__(empty(0) if data is None else data)
        self.requires_grad_(requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Guarded, Tensor):
    """A tensor that a `Module` lists among its `buffers()` when it is assigned as an attribute.

    It shares memory with `data`, and requires a gradient only if `data` does. `persistent`: is it in the state dict?

        self.mean = nn.Buffer(minigrad.zeros(3))
    """

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        super().__init__(empty(0) if data is None else data)
        self.requires_grad_(getattr(data, "requires_grad", False))
        self.persistent = persistent

    def __reduce_ex__(self, protocol: Any) -> Any:
        data = self.detach().requires_grad_(self.requires_grad)
        return partial(type(self), persistent=self.persistent), (data,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        if id(self) not in memo:
            data = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = type(self)(data, persistent=self.persistent)
        return memo[id(self)]


def indent(text: str) -> str:
    """A text of several lines, all but the first indented by two spaces."""
    return text.replace("\n", "\n  ")


def _is_array(value: Any) -> bool:
    """Is it a Tensor, or a NumPy or CuPy array?"""
    return isinstance(value, Tensor) or hasattr(value, "__array__") or hasattr(value, "__cuda_array_interface__")


def _is_dtype(value: Any) -> bool:
    return isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic | float | int))


def target_of(*args: Any, **kwargs: Any) -> tuple[Any, np.dtype | None]:
    """The device and the dtype that the arguments of `Module.to` name, each None if it stays."""
    left_out("Module.to", "memory_format", kwargs.pop("memory_format", None))
    names: tuple[str, ...] = ("device", "dtype", "non_blocking")
    if args and (_is_dtype(args[0]) or isinstance(args[0], Tensor)):
        names = ("tensor" if isinstance(args[0], Tensor) else "dtype", "non_blocking")
    given = dict(zip(names, args, strict=False))
    if len(args) > len(names) or given.keys() & kwargs or kwargs.keys() - {*names, "tensor"}:
        raise TypeError(f"[Module.to] takes device, dtype and non_blocking, or dtype and non_blocking, or tensor and "
                        f"non_blocking; got {len(args)} arguments" + "".join(f", {name}=" for name in kwargs))
    given.update(kwargs)
    like, device, dtype = given.get("tensor"), given.get("device"), given.get("dtype")
    for name, value, good in (("tensor", like, like is None or isinstance(like, Tensor)),
                              ("device", device, device is None or isinstance(device, str | int | Device)),
                              ("non_blocking", given.get("non_blocking", False),
                               isinstance(given.get("non_blocking", False), bool))):
        if not good or (name == "device" and isinstance(value, bool)):
            raise TypeError(f"[Module.to] {name} cannot be {value!r}")
    if like is not None:
        device, dtype = like.device, like.dtype
    if dtype is not None:
        if not _is_dtype(dtype) and not isinstance(dtype, str):
            raise TypeError(f"[Module.to] dtype cannot be {dtype!r}")
        dtype = np.dtype(dtype)
        if not is_float(dtype):
            raise TypeError(f"[Module.to] dtype must be floating point; got {dtype}")
    return device, dtype


class Module(Hookable, Guarded):
    """Base class of layers and models: assign parameters, buffers and modules as attributes and write `forward`.

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden, self.out = nn.Linear(64, 32), nn.Linear(32, 10)

            def forward(self, x):
                return self.out(F.relu(self.hidden(x)))
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _version = 1                                # of the state dict's layout; kept in its _metadata

    call_super_init = False                     # does __init__ call that of classes behind Module, with its arguments?

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (args or kwargs) and not self.call_super_init:
            taken(type(self).__name__, kwargs, ())
            raise TypeError(f"[{type(self).__name__}] Module.__init__() takes no arguments; got {len(args)}")
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _non_persistent_buffers_set=set(), _modules={})
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # ---- calling ----

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes: each class defines its own. Call the module, not `forward`, so that hooks run."""
        raise NotImplementedError(f'[Module] {type(self).__name__} is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.recorder is not None:
            mode.recorder.used(self)           # its mode belongs to the recorded signature
        try:
            if self._hooked:
                return self._call_hooked(args, kwargs)
            return self.forward(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            explain_arguments(error, type(self).__name__, self.forward, args, kwargs)
            raise

    def _noted(self, notes: Notes, text: str) -> None:
        """Notes for a capture what a step may read of this module: members and attributes.

        Of layers that this package defines, that is every attribute; else those that the code of the step names.
        """
        own, classes = self.__dict__, type(self).__mro__
        notes.members(type(self))
        layer = any(c.__module__.startswith("minigrad.") and "forward" in vars(c) and c is not Module for c in classes)
        if layer or notes.reads_all_of(self):
            names = None
        else:
            names = [*_TABLES, *[n for n in own if n in notes.names and n not in _TABLES]]
            notes.missing(own, text, counted=True)
        notes.add(own, names, text, counted=True)
        for name in [n for n in own if names is None or n in names]:
            value = own[name]
            if name in _TABLES and isinstance(value, dict):
                # changes of members are told; a program may also write into these tables itself
                notes.add(value, None, text, counted=not value or name not in _TABLES[:3])
                for key, member in list(value.items()):
                    notes.visit(member, f"{text}.{key}")
            elif name != "_non_persistent_buffers_set":
                notes.visit(value, f"{text}.{name}")

    # ---- members ----

    def _check_name(self, kind: str, name: Any, own: Mapping[str, Any] | None) -> None:
        if own is None:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call; begin with super().__init__()")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in own and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; None keeps the name without a tensor, and out of the state dict."""
        self._check_name("parameter", name, self.__dict__.get("_parameters"))
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                                "(nn.Parameter or None required)")
            if param.grad_fn is not None:
                raise ValueError(f"[Module] parameter '{name}' must be a leaf; got the result of {param.grad_fn}; "
                                 f"compute '{name}' in forward() instead")
        self._parameters[name] = registered("parameter", self, name, param)
        changed()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but does not train; `persistent=False` keeps it out of the state dict."""
        self._check_name("buffer", name, self.__dict__.get("_buffers"))
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                            "(Tensor or None required)")
        self._buffers[name] = registered("buffer", self, name, tensor)
        changed()
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule under `name`."""
        if module is not None and not isinstance(module, Module):
            fix = ("; unpack it: Sequential(*layers)" if isinstance(module, (list, tuple)) else
                   "; make an instance of it" if isinstance(module, type) else
                   "; use a layer, such as nn.ReLU()" if callable(module) else "")
            raise TypeError(f"{type(module).__name__} is not a Module subclass{fix}")
        self._check_name("module", name, self.__dict__.get("_modules"))
        self._modules[name] = registered("module", self, name, module)
        changed()

    register_module = add_module

    def __getattr__(self, name: str) -> Any:
        # reached only when normal lookup failed
        own = self.__dict__
        if "_parameters" in own:
            members = own["_parameters"]
            if name in members:
                return members[name]
            members = own["_modules"]
            if name in members:
                return members[name]
            members = own["_buffers"]
            if name in members:
                return members[name]
        if hasattr(type(self), name):                   # a property whose function lacks something: that is what
            return object.__getattribute__(self, name)  # the error of a second run names
        raise NoAttribute(f"{type(self).__name__!r} object", name, self.__dir__)

    def _forget(self, name: str) -> None:
        """Removes whatever has this name."""
        self.__dict__.pop(name, None)
        for table in (self._parameters, self._buffers, self._modules):
            table.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        parameters = own.get("_parameters")
        kind = ("parameter" if isinstance(value, Parameter) else "module" if isinstance(value, Module) else
                "buffer" if isinstance(value, Buffer) else None)
        if parameters is None:
            if kind:
                raise AttributeError(f"cannot assign {kind}s before Module.__init__() call; "
                                     "begin with super().__init__()")
            object.__setattr__(self, name, value)
            return
        elif kind == "parameter":
            if name not in parameters:
                self._forget(name)
            self.register_parameter(name, value)
        elif name in parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' "
                                "(nn.Parameter or None expected)")
            parameters[name] = registered("parameter", self, name, None)
        elif kind == "module":
            if name not in self._modules:
                self._forget(name)
            self._modules[name] = registered("module", self, name, value)
        elif name in self._modules:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as child module '{name}' "
                                "(nn.Module or None expected)")
            self._modules[name] = registered("module", self, name, None)
        elif kind == "buffer" or name in self._buffers:
            persistent = value.persistent if kind else name not in self._non_persistent_buffers_set
            self.register_buffer(name, value, persistent)
        else:
            object.__setattr__(self, name, value)
        changed()

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                changed()
                return
        object.__delattr__(self, name)
        changed()

    def __dir__(self) -> list[str]:
        members = [*self._parameters, *self._buffers, *self._modules]
        return sorted({*super().__dir__(), *(name for name in members if name.isidentifier())})

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target`; the empty path is the module itself."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts `module` at the dotted path `target`; with `strict` there must be one already."""
        if target == "":
            raise ValueError("[set_submodule] target must name a submodule; got the empty path")
        if not isinstance(module, Module):
            raise ValueError(f"[set_submodule] module must be an nn.Module; got {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if hasattr(parent, name):
            if not isinstance(getattr(parent, name), Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        elif strict:
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        setattr(parent, name, module)

    def _get_member(self, target: str, kind: str) -> Any:
        """The parameter or buffer at a dotted path; `kind` is its name in the error message."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        value = getattr(module, name)
        if not (isinstance(value, Parameter) if kind == "an nn.Parameter" else name in module._buffers):
            raise AttributeError(f"`{name}` is not {kind}")
        return value

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path `target`."""
        return self._get_member(target, "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path `target`."""
        return self._get_member(target, "a buffer")

    # ---- walking the tree ----

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, parents first; a module that is used twice comes once.

        `memo` is the set of modules that are left out, `prefix` comes before all paths.
        """
        memo = set() if memo is None else memo
        if self not in memo:
            if remove_duplicate:
                memo.add(self)
            yield prefix, self
            for name, module in self._modules.items():
                if module is not None:
                    yield from module.named_modules(memo, prefix + ("." if prefix else "") + name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """The modules of `named_modules`."""
        seen, stack = set(), [self]
        while stack:
            module = stack.pop()
            if module not in seen:
                if remove_duplicate:
                    seen.add(module)
                yield module
                stack += [m for m in reversed(module._modules.values()) if m is not None]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules."""
        memo = set()
        for name, module in self._modules.items():
            if module is not None and module not in memo:
                memo.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules of `named_children`."""
        return (module for _, module in self.named_children())

    def _named_members(self, table: str, prefix: str, recurse: bool,
                       remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        """(path, value) of the table `table` of this module and, with `recurse`, of all below it."""
        memo = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in getattr(module, table).items():
                if value is not None and id(value) not in memo:
                    if remove_duplicate:
                        memo.add(id(value))
                    yield path + ("." if path else "") + name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), in the order of registration; a shared parameter comes once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def _members(self, table: str, recurse: bool) -> Iterator[Any]:
        """The values of `_named_members`, without the cost of their paths."""
        seen = set()
        for module in self.modules() if recurse else (self,):
            for value in module.__dict__[table].values():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of `named_parameters`."""
        return self._members("_parameters", recurse)

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), persistent or not."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of `named_buffers`."""
        return self._members("_buffers", recurse)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """`fn` on every module, children first: the usual way to initialise a model."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- modes, gradients, devices and types ----

    def train(self, mode: bool = True) -> Self:
        """Sets the training mode of this module and all below it, which Dropout and BatchNorm look at."""
        if not isinstance(mode, bool):
            raise ValueError(f"[train] mode must be boolean; got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Sets the evaluation mode: `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Makes all parameters train, or with False not."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Sets the gradients of all parameters to None, or with `set_to_none=False` to 0."""
        drop_grads(self.parameters(), set_to_none)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replaces the memory of every parameter, gradient and buffer; parameters stay the same objects."""
        for module in self.children() if recurse else ():
            module._apply(fn)
        with no_grad():
            for p in self._parameters.values():
                if p is not None:
                    grad = p.grad
                    p.data = fn(p)
                    if grad is not None:
                        p.grad = fn(grad)
            for name, b in self._buffers.items():
                if b is not None:
                    self._buffers[name] = fn(b)
        changed()
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """`to(device=, dtype=, non_blocking=)`, `to(dtype, non_blocking)` or `to(tensor, non_blocking)`, in place.

        Moves all parameters and buffers; casts those that are floating point. Another dtype raises TypeError.
        """
        device, dtype = target_of(*args, **kwargs)

        def moved(t: Tensor) -> Tensor:
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)
        return self._apply(moved)

    def to_empty(self, *, device: DeviceLike, recurse: bool = True) -> Self:
        """Moves to `device` without copying values."""
        return self._apply(lambda t: empty_like(t, device=device), recurse=recurse)

    def cpu(self) -> Self:
        """Moves all parameters and buffers to the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: DeviceLike = None) -> Self:
        """Moves all parameters and buffers to a GPU, the first one by default."""
        return self._apply(lambda t: t.cuda(device))

    def type(self, dst_type: Any) -> Self:
        """Casts all parameters and buffers to `dst_type`."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self) -> Self:
        """Casts all floating-point parameters and buffers to float32."""
        return self._apply(lambda t: t.float() if t.is_floating_point() else t)

    def double(self) -> Self:
        """Casts all floating-point parameters and buffers to float64."""
        return self._apply(lambda t: t.double() if t.is_floating_point() else t)

    def half(self) -> Self:
        """Casts all floating-point parameters and buffers to float16."""
        return self._apply(lambda t: t.half() if t.is_floating_point() else t)

    def bfloat16(self) -> Self:
        """Casts all floating-point parameters and buffers to bfloat16."""
        return self._apply(lambda t: t.bfloat16() if t.is_floating_point() else t)

    # ---- state dict ----

    def get_extra_state(self) -> Any:
        """Override together with `set_extra_state` to carry more than tensors in the state dict."""
        raise RuntimeError("[Module] get_extra_state() must be overridden where it is used")

    def set_extra_state(self, state: Any) -> None:
        """Takes from a state dict what `get_extra_state` gave."""
        raise RuntimeError("[Module] set_extra_state() must be overridden where it is used")

    def _local_state(self) -> dict[str, Tensor]:
        """The parameters and persistent buffers of this module itself, by name."""
        buffers = {k: b for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set}
        return {k: v for k, v in (self._parameters | buffers).items() if v is not None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds the state of this module itself to `destination`."""
        for name, value in self._local_state().items():
            destination[prefix + name] = value if keep_vars or hasattr(value, "waits") else value.detach()
        if type(self).get_extra_state is not Module.get_extra_state:
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """{path: tensor} of all parameters and persistent buffers.

        The tensors share memory with the model; they are detached unless `keep_vars`. `destination` is the dict to
        fill, `prefix` comes before all paths.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=prefix + name + ".", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            if hook(self, destination, prefix, metadata) is not None:
                raise RuntimeError("state_dict post-hook must return None")
        return destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        """Loads the state of this module itself, and adds what is wrong to the three lists."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = self._local_state()
        ties = local_metadata.get("ties") if local_metadata.get("assign_to_params_buffers", False) else None
        for name, value in own.items():
            key = prefix + name
            if key in state_dict:
                error = self._load_member(name, value, key, state_dict[key], ties)
                if error:
                    error_msgs.append(error)
            else:
                missing_keys.append(key)
        extra = prefix + _EXTRA_STATE
        if type(self).set_extra_state is not Module.set_extra_state:
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            else:
                missing_keys.append(extra)
        elif extra in state_dict:
            unexpected_keys.append(extra)
        for key in state_dict:
            if key.startswith(prefix) and key != extra:
                name, *below = key[len(prefix):].split(".", 1)
                if name not in (self._modules if below else own):
                    unexpected_keys.append(key)

    def _load_member(self, name: str, value: Tensor, key: str, given: Any, ties: _Ties | None) -> str:
        """Copies `given` into the parameter or buffer `value`, or with `ties` puts it in its place. Returns what is
        wrong, or "".

        `ties` holds the members that were replaced, and where: names that were one tensor stay one.
        """
        if hasattr(given, "waits"):             # of a lazy layer that was never called
            return "" if hasattr(value, "waits") else f'"{key}" has no shape yet in the checkpoint'
        if not _is_array(given):
            return f'"{key}" must be a Tensor or an array in the checkpoint; got {type(given)}'
        if len(value.shape) == 0 and tuple(given.shape) == (1,):
            given = given[0]
        if tuple(given.shape) != tuple(value.shape):
            return (f"size mismatch for {key}: copying a param with shape {tuple(given.shape)} from checkpoint, "
                    f"the shape in current model is {tuple(value.shape)}.")
        try:
            given = as_tensor(given)
            if ties is None:
                with no_grad():
                    value.copy_(given)
            else:
                if isinstance(given, Parameter):
                    given.requires_grad_(value.requires_grad)
                elif isinstance(value, Parameter):
                    given = Parameter(given, value.requires_grad)
                places = ties.setdefault(id(value), (value, []))[1]
                places.append((self, name))
                for module, own in places:
                    setattr(module, own, given)
        except Exception as e:
            return (f'copying "{key}" raised {e.args}; the shape in the model is {tuple(value.shape)}, '
                    f"in the checkpoint {tuple(given.shape)}")
        return ""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> _IncompatibleKeys:
        """Copies tensors (or NumPy and CuPy arrays) by path into this module and all below it.

        `strict`: missing and unexpected keys raise RuntimeError, as other sizes always do. `assign`: the given tensors
        themselves take the place of ours, with their dtype and device; only `requires_grad` stays, and names that were
        one tensor stay one (the last given). Returns the named tuple (missing_keys, unexpected_keys).
        """
        if not isinstance(state_dict, Mapping):
            fix = "; read the file first: load_state_dict(minigrad.load(path))" if isinstance(state_dict, str) else ""
            raise TypeError(f"[load_state_dict] state_dict must be dict-like; got {type(state_dict).__name__}{fix}")
        keys = _IncompatibleKeys([], [])
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None) or {}
        self._load_tree(OrderedDict(state_dict), "", metadata, {} if assign else None, keys, errors)
        if strict:
            for what, names in (("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys)):
                if names:
                    errors.insert(0, f"{what} key(s) in state_dict: " + ", ".join(f'"{k}"' for k in names) + ". ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        return keys

    def _load_tree(self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], ties: _Ties | None,
                   keys: _IncompatibleKeys, errors: list[str]) -> None:
        """Loads this module and all below it: `state` holds what begins with `prefix`."""
        local = dict(metadata.get(prefix[:-1], {}))
        if ties is not None:
            local.update(assign_to_params_buffers=True, ties=ties)
        self._load_from_state_dict(state, prefix, local, True, keys.missing_keys, keys.unexpected_keys, errors)
        for name, child in self._modules.items():
            if child is not None:
                below = prefix + name + "."
                child._load_tree({k: v for k, v in state.items() if k.startswith(below)}, below, metadata, ties, keys,
                                 errors)
        for hook in self._load_state_dict_post_hooks.values():
            if hook(self, keys) is not None:
                raise AssertionError("[load_state_dict] a post-hook must return None; change the lists of keys in "
                                     "place instead")

    # ---- text ----

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses, before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        if not children and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        lines = (extra.split("\n") if extra else []) + children
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"

    def _repr_html_(self) -> str:
        """For notebooks: the tree of modules with parameters and buffers."""
        from .notebook import module_html
        return module_html(self)


# ---- messages that name a module ----

def parameter_names() -> dict[int, str]:
    """The path of each parameter of each living model (Net.encoder.0.weight), by the parameter's `id`.

    It looks at every object of the process, so it is for errors and studies only.
    """
    models = [m for m in gc.get_objects() if issubclass(type(m), Module)]
    inside = {id(child) for m in models for child in m._modules.values()}
    names: dict[int, str] = {}
    for model in models:
        if id(model) not in inside:
            for name, p in model.named_parameters(prefix=type(model).__name__):
                names.setdefault(id(p), name)
    return names


def _located(edge: Any) -> str:
    """Where a node or leaf of the graph belongs, for the messages of the engine.

    " (Net.encoder.0)" for a parameter of a module of a living model and for a node computed from one, " (after ...)"
    for a node computed from such a node, else "".
    """
    names = parameter_names()
    if isinstance(edge, Tensor):
        return f" ({names[id(edge)]})" if id(edge) in names else ""
    generation, seen, word = [edge], set(), ""
    while generation:
        inputs = [e for node in generation if node is not None for e in node.inputs if e is not None]
        for e in inputs:
            if isinstance(e, Tensor) and id(e) in names:
                return f" ({word}{names[id(e)].rpartition('.')[0]})"
        generation = [e for e in dict.fromkeys(inputs) if not isinstance(e, Tensor) and e not in seen]
        seen.update(generation)
        word = "after "
    return ""


locators.append(_located)
calls.add(Module.__call__.__code__)
