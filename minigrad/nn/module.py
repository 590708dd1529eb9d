"""``Module``: a tree of parameters, buffers and submodules, with hooks, modes and a state dict. ``Parameter``: a tensor that trains.

The names, orders and error types are PyTorch's (`torch.nn.Module`), so that a model and its checkpoint move between the two.
A call without hooks costs one attribute test: hook tables are made by the first registration, and ``_hooked`` (on the instance, or
on the class once a hook for all modules exists) is what ``__call__`` looks at.
"""
from __future__ import annotations

import gc
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.ops.creation import as_tensor, empty, empty_like, zeros

from ..core.engine import drop_grads
from ..core.tape import Node, RemovableHandle, Slot, edge_of, locators, mode, no_grad, recorded
from ..core.tensor import Tensor, new_tensor

if TYPE_CHECKING:
    from typing_extensions import Self

_EXTRA_STATE = "_extra_state"
_NONE: Mapping[int, Any] = MappingProxyType({})     # stands for every hook table that was never written to


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` returns."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if self.missing_keys or self.unexpected_keys else "<All keys matched successfully>"

    __str__ = __repr__


def _register(table: dict[int, Any], entry: Any, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = entry
    if prepend:
        table.move_to_end(handle.id, last=False)        # type: ignore[attr-defined]
    return handle


def _rebound() -> None:
    """Tells captured programs that some module holds other members than before."""
    type(mode).bindings += 1


class Parameter(Tensor):
    """A tensor that a ``Module`` lists among its ``parameters()`` when it is assigned as an attribute.

    It shares memory with ``data`` and is a leaf of the graph, also inside ``no_grad()``.
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


class _Gate:
    """The identity on several tensors; backward sends all their gradients through ``seen`` at once."""

    name = "module_hook"

    def __init__(self, seen: Callable[[tuple], tuple]) -> None:
        self.seen = seen

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        layouts: Any = tuple(t.layout for t in tensors)
        node = recorded(self, tuple(edge_of(t) for t in tensors), layouts)
        return [new_tensor(t.array, Slot(node, i, t.layout)) for i, t in enumerate(tensors)]

    def backward(self, node: Node, grads: list[Tensor | None], needs: list[bool]) -> tuple:
        return self.seen(tuple(grads))


class _BackwardHooks:
    """Full backward hooks of one call: a gate behind the outputs learns ``grad_output``, one before the inputs ``grad_input``."""

    def __init__(self, module: Module, pre_hooks: list[Callable], hooks: list[Callable]) -> None:
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks
        self.grad_output: tuple | None = None
        self.count = 0                          # of the positional inputs
        self.gated = False                      # some input requires a gradient

    def _through_gate(self, values: tuple, on_grads: Callable[[tuple], tuple]) -> tuple[tuple, bool]:
        where = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad] if mode.grad else []
        if not where:
            return values, False

        still = [(i, v.layout) for i, v in enumerate(values) if isinstance(v, Tensor) and not v.requires_grad and v.is_floating_point()]

        def seen(grads: tuple) -> tuple:
            full: list[Any] = [None] * len(values)
            for i, x in still:                  # as in PyTorch: zeros for a tensor that takes no gradient, None for what is no tensor
                full[i] = zeros(x.shape, dtype=x.dtype, device=x.device)
            for i, g in zip(where, grads, strict=True):
                full[i] = g
            changed = on_grads(tuple(full))
            return tuple(changed[i] for i in where)

        out = list(values)
        for i, t in zip(where, _Gate(seen)([values[i] for i in where]), strict=True):
            out[i] = t
        return (type(values)(*out) if hasattr(values, "_fields") else tuple(out)), True

    def inputs(self, args: tuple) -> tuple:
        self.count = len(args)
        args, self.gated = self._through_gate(args, self._on_grad_input)
        return args

    def outputs(self, result: Any) -> Any:
        if not isinstance(result, Tensor | tuple):
            warnings.warn("backward hooks need a module that returns a Tensor or a tuple of Tensors, "
                          f"but {type(self.module).__name__} returned {type(result)}", stacklevel=4)
            return result
        values, _ = self._through_gate(result if isinstance(result, tuple) else (result,), self._on_grad_output)
        return values if isinstance(result, tuple) else values[0]

    def _on_grad_output(self, grads: tuple) -> tuple:
        for hook in self.pre_hooks:
            changed = hook(self.module, grads)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                if len(changed) != len(grads):
                    raise RuntimeError(f"Backward pre hook returned an invalid number of grad_output, got {len(changed)}, "
                                       f"but expected {len(grads)}")
                grads = changed
        if self.gated:
            self.grad_output = grads
        elif self.hooks:
            warnings.warn("Full backward hook is firing when gradients are computed with respect to module outputs, "
                          "since no inputs require gradients", stacklevel=2)
            for hook in self.hooks:
                changed = hook(self.module, (None,) * self.count, grads)
                if changed is not None and not (isinstance(changed, tuple) and all(g is None for g in changed)):
                    raise RuntimeError("Backward hook for Modules where no input requires gradient should always return None "
                                       "or None for all gradients.")
        return grads

    def _on_grad_input(self, grads: tuple) -> tuple:
        if self.grad_output is None:            # the gradient came to the inputs past the outputs
            return grads
        for hook in self.hooks:
            changed = hook(self.module, grads, self.grad_output)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                if len(changed) != len(grads):
                    raise RuntimeError(f"Backward hook returned an invalid number of grad_input, got {len(changed)}, "
                                       f"but expected {len(grads)}")
                grads = changed
        self.grad_output = None
        return grads


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__") or hasattr(value, "__cuda_array_interface__")


class Module:
    """Base class of layers and models: assign parameters, buffers and modules as attributes and write ``forward``.

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
    _version = 1                                # of the state dict's layout; travels in its _metadata

    _hooked = False
    _forward_pre_hooks = _forward_hooks = _backward_pre_hooks = _backward_hooks = _NONE
    _state_dict_pre_hooks = _state_dict_hooks = _load_state_dict_pre_hooks = _load_state_dict_post_hooks = _NONE

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _non_persistent_buffers_set=set(), _modules={})

    # ---- calling ----

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.recorder is not None:
            mode.recorder.used(self)           # its mode belongs to the recorded signature
        if self._hooked:
            return self._call_hooked(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_hooked(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        result, ran = None, set()
        forward_hooks = [*_global_forward_hooks.items(), *self._forward_hooks.items()]
        try:
            for hook, with_kwargs in [*_global_forward_pre_hooks.values(), *self._forward_pre_hooks.values()]:
                if with_kwargs:
                    changed = hook(self, args, kwargs)
                    if changed is not None:
                        if not (isinstance(changed, tuple) and len(changed) == 2):
                            raise RuntimeError("forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                                               f"but got {changed}.")
                        args, kwargs = changed
                else:
                    changed = hook(self, args)
                    if changed is not None:
                        args = changed if isinstance(changed, tuple) else (changed,)
            pre = [*_global_backward_pre_hooks.values(), *self._backward_pre_hooks.values()]
            full = [*_global_backward_hooks.values(), *self._backward_hooks.values()]
            backward = _BackwardHooks(self, pre, full) if pre or full else None
            if backward:
                args = backward.inputs(args)
            result = self.forward(*args, **kwargs)
            for key, (hook, with_kwargs, _) in forward_hooks:
                ran.add(key)
                changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
                if changed is not None:
                    result = changed
            return backward.outputs(result) if backward else result
        except Exception:
            for key, (hook, with_kwargs, always) in forward_hooks:
                if always and key not in ran:
                    try:
                        changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
                        result = result if changed is None else changed
                    except Exception as e:
                        warnings.warn("module forward hook with ``always_call=True`` raised an exception that was silenced as "
                                      f"another error was raised in forward: {e}", stacklevel=3)
            raise

    # ---- hooks ----

    def _hook_table(self, name: str) -> dict[int, Any]:
        if name not in self.__dict__:
            self.__dict__[name] = OrderedDict()
        return self.__dict__[name]

    def _add_call_hook(self, name: str, entry: Any, prepend: bool) -> RemovableHandle:
        self.__dict__["_hooked"] = True
        return _register(self._hook_table(name), entry, prepend)

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """``hook(module, args[, kwargs])`` before ``forward``; returns None, new args, or with ``with_kwargs`` (args, kwargs)."""
        return self._add_call_hook("_forward_pre_hooks", (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """``hook(module, args[, kwargs], output)`` after ``forward``; returns None or another output.
        ``always_call`` runs it also when the call raises."""
        return self._add_call_hook("_forward_hooks", (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_output)`` before the module's backward; returns None or another grad_output."""
        return self._add_call_hook("_backward_pre_hooks", hook, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_input, grad_output)`` after the module's backward; returns None or another grad_input."""
        return self._add_call_hook("_backward_hooks", hook, prepend)

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(module, prefix, keep_vars)`` before ``state_dict`` collects this module."""
        return _register(self._hook_table("_state_dict_pre_hooks"), hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata)`` after it; changes ``state_dict`` in place and returns None."""
        return _register(self._hook_table("_state_dict_hooks"), hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`` before loading."""
        return _register(self._hook_table("_load_state_dict_pre_hooks"), hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(module, incompatible_keys)`` after loading; may change the two lists of keys in place, returns None."""
        return _register(self._hook_table("_load_state_dict_post_hooks"), hook)

    # ---- members ----

    def _check_name(self, kind: str, name: Any, own: Mapping[str, Any] | None) -> None:
        if own is None:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
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
                raise TypeError(f"cannot assign '{type(param).__name__}' object to parameter '{name}' (nn.Parameter or None required)")
            if param.grad_fn is not None:
                raise ValueError(f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly; "
                                 f"to compute '{name}' from another Tensor, do so in forward().")
        self._parameters[name] = param
        _rebound()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but does not train; ``persistent=False`` keeps it out of the state dict."""
        self._check_name("buffer", name, self.__dict__.get("_buffers"))
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)")
        self._buffers[name] = tensor
        _rebound()
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self.__dict__.get("_modules"))
        self._modules[name] = module
        _rebound()

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
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _forget(self, name: str) -> None:
        self.__dict__.pop(name, None)
        for table in (self._parameters, self._buffers, self._modules):
            table.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        parameters = own.get("_parameters")
        kind = "parameter" if isinstance(value, Parameter) else "module" if isinstance(value, Module) else None
        if parameters is None:
            if kind:
                raise AttributeError(f"cannot assign {kind}s before Module.__init__() call")
            object.__setattr__(self, name, value)
            return
        elif kind == "parameter":
            if name not in parameters:
                self._forget(name)
            self.register_parameter(name, value)
        elif name in parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None expected)")
            parameters[name] = None
        elif kind == "module":
            if name not in self._modules:
                self._forget(name)
            self._modules[name] = value
        elif name in self._modules:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as child module '{name}' (nn.Module or None expected)")
            self._modules[name] = None
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{type(value).__name__}' as buffer '{name}' (Tensor or None expected)")
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, value)
            return
        _rebound()

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                _rebound()
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(k for t in (self._parameters, self._buffers, self._modules) for k in t if k.isidentifier())})

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path ``target``; the empty path is the module itself."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts ``module`` at the dotted path ``target``; ``strict`` asks that one is there already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if hasattr(parent, name):
            if not isinstance(getattr(parent, name), Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        elif strict:
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        setattr(parent, name, module)

    def _get_member(self, target: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        value = getattr(module, name)
        if not (isinstance(value, Parameter) if kind == "an nn.Parameter" else name in module._buffers):
            raise AttributeError(f"`{name}` is not {kind}")
        return value

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path ``target``."""
        return self._get_member(target, "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path ``target``."""
        return self._get_member(target, "a buffer")

    # ---- walking the tree ----

    def named_modules(self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, parents first; a module met twice comes once."""
        memo = set() if memo is None else memo
        if self not in memo:
            if remove_duplicate:
                memo.add(self)
            yield prefix, self
            for name, module in self._modules.items():
                if module is not None:
                    yield from module.named_modules(memo, prefix + ("." if prefix else "") + name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """The modules of ``named_modules``."""
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
        return (module for _, module in self.named_children())

    def _named_members(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        memo = set()
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in getattr(module, table).items():
                if value is not None and id(value) not in memo:
                    if remove_duplicate:
                        memo.add(id(value))
                    yield path + ("." if path else "") + name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), in the order of registration; a shared parameter comes once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def _members(self, table: str, recurse: bool) -> Iterator[Any]:
        seen = set()
        for module in self.modules() if recurse else (self,):
            for value in module.__dict__[table].values():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of ``named_parameters``."""
        return self._members("_parameters", recurse)

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), persistent or not."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return self._members("_buffers", recurse)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """``fn`` on every module, children first: the usual way to initialise a model."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- modes, gradients, devices and types ----

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all below it (Dropout and BatchNorm care)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes (False) or unfreezes all parameters."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or with ``set_to_none=False`` fills them with 0."""
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
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``to(device=, dtype=, non_blocking=)``, ``to(dtype)``, ``to(tensor)``: moves all, casts what is floating point; in place."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        like, non_blocking = kwargs.pop("tensor", None), kwargs.pop("non_blocking", False)
        if kwargs.pop("memory_format", None) is not None:
            raise NotImplementedError("Module.to: memory_format is not supported")
        if kwargs:
            raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
        for a in args:
            if isinstance(a, Tensor):
                like = a
            elif isinstance(a, bool):
                non_blocking = a
            elif isinstance(a, np.dtype) or a in (float, int) or (isinstance(a, type) and issubclass(a, np.generic)):
                dtype = a
            elif a is not None:
                device = a
        if like is not None:
            device, dtype = like.device, like.dtype
        if dtype is not None:
            dtype = np.dtype(dtype)
            if not empty(0, dtype=dtype).is_floating_point():
                raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}")
        return self._apply(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None, non_blocking=non_blocking))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Moves to ``device`` without copying values."""
        return self._apply(lambda t: empty_like(t, device=device), recurse=recurse)

    def cpu(self) -> Self:
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Self:
        return self._apply(lambda t: t.cuda(device))

    def type(self, dst_type: Any) -> Self:
        return self._apply(lambda t: t.type(dst_type))

    def float(self) -> Self:
        return self._apply(lambda t: t.float() if t.is_floating_point() else t)

    def double(self) -> Self:
        return self._apply(lambda t: t.double() if t.is_floating_point() else t)

    def half(self) -> Self:
        return self._apply(lambda t: t.half() if t.is_floating_point() else t)

    def bfloat16(self) -> Self:
        return self._apply(lambda t: t.bfloat16() if t.is_floating_point() else t)

    # ---- state dict ----

    def get_extra_state(self) -> Any:
        """Override together with ``set_extra_state`` to carry more than tensors in the state dict."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be called.")

    def set_extra_state(self, state: Any) -> None:
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be called.")

    def _local_state(self) -> dict[str, Tensor]:
        buffers = {k: b for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set}
        return {k: v for k, v in (self._parameters | buffers).items() if v is not None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, value in self._local_state().items():
            destination[prefix + name] = value if keep_vars else value.detach()
        if type(self).get_extra_state is not Module.get_extra_state:
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """{path: tensor} of all parameters and persistent buffers, sharing their memory; detached unless ``keep_vars``."""
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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = self._local_state()
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, value in own.items():
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            given = state_dict[key]
            if not _is_array(given):
                error_msgs.append(f'While copying the parameter named "{key}", expected a Tensor or an array from checkpoint '
                                  f"but received {type(given)}")
                continue
            if len(value.shape) == 0 and tuple(given.shape) == (1,):
                given = given[0]
            if tuple(given.shape) != tuple(value.shape):
                error_msgs.append(f"size mismatch for {key}: copying a param with shape {tuple(given.shape)} from checkpoint, "
                                  f"the shape in current model is {tuple(value.shape)}.")
                continue
            try:
                given = as_tensor(given)
                if not assign:
                    with no_grad():
                        value.copy_(given)
                elif isinstance(value, Parameter):
                    setattr(self, name, given.requires_grad_(value.requires_grad) if isinstance(given, Parameter)
                            else Parameter(given, value.requires_grad))
                else:
                    setattr(self, name, given)
            except Exception as e:
                error_msgs.append(f'While copying the parameter named "{key}", whose dimensions in the model are {tuple(value.shape)} '
                                  f"and whose dimensions in the checkpoint are {tuple(given.shape)}, an exception occurred : {e.args}.")
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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> _IncompatibleKeys:
        """Copies tensors (or NumPy and CuPy arrays) by path into this module.

        strict: missing and unexpected keys raise. assign: take the given tensors themselves, with their dtype and device, instead
        of copying into ours; only ``requires_grad`` stays. Returns (missing_keys, unexpected_keys).
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None) or {}

        def load(module: Module, state: dict[str, Any], prefix: str) -> None:
            local = dict(metadata.get(prefix[:-1], {}))
            if assign:
                local["assign_to_params_buffers"] = True
            module._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
            for name, child in module._modules.items():
                if child is not None:
                    below = prefix + name + "."
                    load(child, {k: v for k, v in state.items() if k.startswith(below)}, below)
            keys = _IncompatibleKeys(missing, unexpected)
            for hook in module._load_state_dict_post_hooks.values():
                if hook(module, keys) is not None:
                    raise AssertionError("Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                                         "values, if incompatible_keys need to be modified, it should be done inplace.")

        load(self, OrderedDict(state_dict), "")
        if strict:
            for what, keys in (("Unexpected", unexpected), ("Missing", missing)):
                if keys:
                    errors.insert(0, f"{what} key(s) in state_dict: " + ", ".join(f'"{k}"' for k in keys) + ". ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        return _IncompatibleKeys(missing, unexpected)

    # ---- text ----

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses, before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indent(repr(module))}" for name, module in self._modules.items()]
        if not children and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        lines = (extra.split("\n") if extra else []) + children
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


# ---- hooks for all modules; with one of these, every call takes the hooked path ----

_global_forward_pre_hooks: dict[int, Any] = OrderedDict()
_global_forward_hooks: dict[int, Any] = OrderedDict()
_global_backward_pre_hooks: dict[int, Any] = OrderedDict()
_global_backward_hooks: dict[int, Any] = OrderedDict()


class _GlobalHandle(RemovableHandle):
    def remove(self) -> None:
        super().remove()
        Module._hooked = bool(_global_forward_pre_hooks or _global_forward_hooks or _global_backward_pre_hooks or _global_backward_hooks)


def _register_global(table: dict[int, Any], entry: Any) -> RemovableHandle:
    handle = _GlobalHandle(table)
    table[handle.id] = entry
    Module._hooked = True
    return handle


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """``hook(module, args)`` before the forward of every module."""
    return _register_global(_global_forward_pre_hooks, (hook, False))


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False, always_call: bool = False) -> RemovableHandle:
    """``hook(module, args[, kwargs], output)`` after the forward of every module."""
    return _register_global(_global_forward_hooks, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """``hook(module, grad_output)`` before the backward of every module."""
    return _register_global(_global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """``hook(module, grad_input, grad_output)`` after the backward of every module."""
    return _register_global(_global_backward_hooks, hook)


# ---- messages that name a module ----

def _located(edge: Any) -> str:
    """" (Net.encoder.0)" for a node or a leaf that belongs to a module of a living model, " (after ...)" for a node that is computed from
    one; else nothing. Asked only when something fails: it looks at every object there is."""
    models = [m for m in gc.get_objects() if issubclass(type(m), Module)]
    inside = {id(child) for m in models for child in m._modules.values()}
    owners: dict[int, str] = {}
    for model in models:
        if id(model) not in inside:
            for path, module in model.named_modules(prefix=type(model).__name__):
                for name, p in module._parameters.items():
                    owners.setdefault(id(p), f"{path}.{name}" if isinstance(edge, Tensor) else path)
    if isinstance(edge, Tensor):
        return f" ({owners[id(edge)]})" if id(edge) in owners else ""
    generation, seen, word = [edge], set(), ""
    while generation:
        behind = [e for node in generation if node is not None for e in node.inputs if e is not None]
        for e in behind:
            if isinstance(e, Tensor) and id(e) in owners:
                return f" ({word}{owners[id(e)]})"
        generation = [e for e in dict.fromkeys(behind) if not isinstance(e, Tensor) and e not in seen]
        seen.update(generation)
        word = "after "
    return ""


locators.append(_located)
