"""`Optimizer`: parameter groups, state of each parameter, state dict, and the step: one launch for all parameters.

A subclass defines four things:
    _read    what it reads from a group
    _begin   which state a parameter has
    _define  the update of one parameter, in Tensor ops
    _kernel  the name of the fused kernel in native/optim.c that does the same update for a table of parameters; without
             one, a kernel or a program is made of the definition (together.py), or the definition runs

Numbers that change during training (learning rate, momentum, betas) reach the update through a small array, `hyper`.
The update reads this array when it runs, not when it is recorded, so that a captured step follows the schedule.
"""
from __future__ import annotations

import copy
import functools
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..core.engine import drop_grads
from ..core.half import is_constant, unrounded
from ..core.hooks import RemovableHandle
from ..core.messages import Guarded
from ..core.modes import changed, enable_grad, mode, no_grad
from ..core.notes import Notes, Piece
from ..core.saved import pack
from ..core.shape import fail
from ..core.tape import Node, observers
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..devices.base import Device, Kernel
from ..devices.launch import ceil_div
from ..ops.creation import as_tensor, clone
from .master import NAME as MASTER
from .master import gradients, master_of, round_to
from .table import SIZE

Params: TypeAlias = Iterable[Tensor | tuple[str, Tensor] | dict[str, Any]]       # all of one kind
Numbers: TypeAlias = tuple[float, ...]                  # of a group: (lr, weight_decay, eps, first, second, ...)
Flags: TypeAlias = tuple[int, ...]                      # of a group: they choose the form of the update
State: TypeAlias = tuple[Tensor | None, ...]            # of a parameter: tensors, up to three and in a kernel's order

StepPreHook: TypeAlias = Callable[["Optimizer", tuple[Any, ...], dict[str, Any]],
                                  tuple[tuple[Any, ...], dict[str, Any]] | None]
StepPostHook: TypeAlias = Callable[["Optimizer", tuple[Any, ...], dict[str, Any]], None]
StateDictPreHook: TypeAlias = Callable[["Optimizer"], None]
StateDictPostHook: TypeAlias = Callable[["Optimizer", dict[str, Any]], dict[str, Any] | None]

# parameter (or its master weights), state, step, other numbers of the state
_Row: TypeAlias = tuple[Any, State, Tensor, tuple[Tensor, ...]]
# the kernel that updates a table of parameters, if there is one, and its last arguments
_Update: TypeAlias = tuple[Kernel | None, tuple[int, ...]]
_Loss = TypeVar("_Loss")
_HOOKS = ("_step_pre_hooks", "_step_post_hooks", "_state_dict_pre_hooks", "_state_dict_post_hooks",
          "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def at_least(name: str, value: Any, low: float = 0.0, below: float | None = None) -> None:
    """ValueError "Invalid {name}: {value}" unless low <= value, and value < below where `below` is given."""
    if not (low <= value and (below is None or value < below)):
        raise ValueError(f"Invalid {name}: {value}")


def check_rate(lr: float | Tensor) -> None:
    """ValueError unless the learning rate is a number from 0 on, or a tensor with one such element."""
    one_element(lr)
    at_least("learning rate", lr)


def check_betas(betas: Sequence[Any]) -> None:
    """ValueError unless both decays of Adam's averages are in [0, 1)."""
    for i in (0, 1):
        at_least(f"beta parameter at index {i}", betas[i], below=1.0)


def only_default(*, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, **options: Any) -> None:
    """Checks the options by which PyTorch chooses between implementations.

    minigrad has one implementation, which `minigrad.capture` records. So `foreach=True`, `fused=True` and
    `capturable=True` are accepted without effect; `fused` beside `foreach` or `differentiable` raises RuntimeError, as
    in PyTorch. Any other option must be None or False, else NotImplementedError.
    """
    if fused and (foreach or differentiable):
        raise RuntimeError(f"`fused` and `{'foreach' if foreach else 'differentiable'}` cannot be `True` together.")
    for name, value in options.items():
        if value:
            raise NotImplementedError(f"{name}={value!r} is not supported: leave {name} at its default")


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the step hooks around a `step` method, and sets `_opt_called`: it tells schedulers that `step` ran."""
    @functools.wraps(step)
    def wrapper(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if "_batches" not in self.__dict__:                 # a class around an optimizer, without Optimizer.__init__
            self._reset()
        args = self, *args                                  # for hooks they begin with the optimizer, as PyTorch's do
        for hook in self._step_pre_hooks.values():
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(f"{step} must return None or a tuple of (new_args, new_kwargs), "
                                       f"but got {changed}.")
                args, kwargs = changed
        result = step(*args, **kwargs)
        for hook in self._step_post_hooks.values():
            hook(self, args, kwargs)
        return result
    return wrapper


def _keep_copies(node: Node) -> None:
    pack(node, clone, lambda kept: kept, is_constant)


class _Hyper:
    """The numbers of a group in memory, float64 (count,), where the update reads them."""

    def __init__(self, device: Device, count: int) -> None:
        self.tensor = begun(np.zeros(count), device)
        self.values: tuple[float, ...] | None = None

    def write(self, values: Numbers) -> None:
        if values != self.values:
            self.tensor.device.write(self.tensor.array, values)
            self.values = values


def _telling(cls: type) -> type:
    """Makes a class of dicts call `changed` after each change, so that a replay need not compare its entries."""
    def wrapped(plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = plain(self, *args, **kwargs)
            changed()
            return result
        return method
    for name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
        setattr(cls, name, wrapped(getattr(cls, name)))
    return cls


@_telling
class _Entries(dict):
    """The state of a parameter, by name."""


@_telling
class _States(defaultdict):
    """The states of all parameters."""


class _Options(Piece):
    """The options of a group that made a captured step: as they were while they lead to the same launch."""

    def __init__(self, group: dict[str, Any], form: Callable[[dict[str, Any]], tuple]) -> None:
        super().__init__(group, None, "the options of an optimizer")
        self.form, self.was = form, form(group)

    def same(self) -> bool:
        """Do they lead to the same launch?"""
        return self.form(self.table) == self.was

    def parts(self) -> tuple[list[Any], list[Any]]:
        """The options, without their names."""
        return [self.table.values()], []

    def lost(self) -> bool:
        """No: the options may become what they were."""
        return False


class _Batch:
    """The parameters of a group that share a device and a dtype. Each has a row of `_Row`'s kind. For `halves`, which
    are of half precision, the rows have their master weights; `fused`: the kernel reads and writes both.

    Each step may have other gradient tensors. The batch does not keep them: it writes their addresses into its table.
    """

    def __init__(self, rows: list[_Row], update: _Update, hyper: _Hyper, halves: list[Tensor], fused: bool) -> None:
        self.rows, self.hyper, self.halves, self.fused = rows, hyper, halves, fused
        self.kernel, self.options = update
        self.params = [row[0] for row in rows]
        written = [*self.params, *halves] if fused else self.params
        self.storages = [p.array.storage for p in written]
        # the table holds the addresses of these arrays, so the batch keeps the arrays alive
        self.keep = [s.array for _, state, step, numbers in rows for s in (*state, *numbers, step) if s is not None]
        self.grads: list[int] = []
        if self.kernel is not None:
            self.columns = np.array([[p.array.ptr, 0, *(s.array.ptr if s is not None else 0 for s in held),
                                      *[0] * (SIZE - 3 - len(held)), step.array.ptr, p.numel()]
                                     for p, state, step, numbers in rows for held in [(*state, *numbers)]], np.int64)
            if fused and halves:                # after the rows: optim.cu tells
                more = np.zeros((ceil_div(len(rows), SIZE + 1), SIZE + 1), np.int64)
                self.columns = np.vstack([self.columns, more])
                self.columns[len(rows):].flat[:len(rows)] = [p.array.ptr for p in halves]
            self.table = rows[0][0].device.constant(self.columns)


class _Batches:
    """The batches of one group, and what they were made for: they are made anew if key, flags or state change."""

    def __init__(self, key: list[Any], flags: Flags, state: Any, batches: list[_Batch]) -> None:
        self.key, self.flags, self.state, self.count, self.batches = key, flags, state, len(state), batches


class Optimizer(Guarded):
    """Base class of the optimisers.

    params    an iterable of parameters, of (name, parameter) pairs, or of dicts: groups with options of their own.
              Parameters are tensors that are leaves; each may be in one group only.
    defaults  the options of groups that do not give them

    Parameters of half precision are updated in float32: their state has such a copy, `master_param`, and its other
    tensors are float32, too. Each step rounds the copy to the parameter. A new value of the parameter changes the copy.

    `param_groups` is the list of groups, dicts with "params" and the options; `state` maps a parameter to its state.
    A learning rate that is changed in a group is used by the next step, also by a step that `minigrad.capture` replays.

    With `differentiable=True` the step is recorded: parameters, which need not be leaves, and their state are then
    functions of what they were, of the gradients and (but in ASGD and Rprop) of a learning rate that is a tensor.

        optimizer = optim.SGD([{"params": model[0].parameters()},
                               {"params": model[1].parameters(), "lr": 1e-2}], lr=1e-1, momentum=0.9)
    """

    _kernel = ""
    _elementwise = False                # is `_define` so? Then one launch is made of it (together.py)
    _numbers: tuple[str, ...] = ()      # names of a parameter's state, besides `step`, that are one float64 number
    _step_pre_hooks: OrderedDict[int, StepPreHook]
    _step_post_hooks: OrderedDict[int, StepPostHook]
    _state_dict_pre_hooks: OrderedDict[int, StateDictPreHook]
    _state_dict_post_hooks: OrderedDict[int, StateDictPostHook]
    _load_state_dict_pre_hooks: OrderedDict[int, StateDictPostHook]
    _load_state_dict_post_hooks: OrderedDict[int, StateDictPreHook]
    _opt_called = False
    _scheduled_step: Any = None         # what stood in place of `step` on this object when a schedule was made

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])        # type: ignore[method-assign]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, "
                            "but got Tensor")
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = _States(_Entries)
        self.param_groups: list[dict[str, Any]] = []
        self._reset()
        if not isinstance(params, Iterable):
            fix = "pass model.parameters()" if hasattr(params, "parameters") else "call it" if callable(params) else ""
            fail(type(self).__name__, "params must be an iterable of Tensors or dicts", type(params).__name__, fix,
                 TypeError)
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list; a generator such as model.parameters() can be "
                             "read once: call it anew for each optimiser")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def _reset(self) -> None:
        for name in _HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        self._batches: dict[int, _Batches] = {}
        self._hypers: dict[tuple[int, str], _Hyper] = {}
        self._hidden_steps: dict[Any, Tensor] = {}
        self._owners: dict[Tensor, Tensor] = {}     # the parameters of master weights

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()
        for group in self.param_groups:             # it may have been pickled before an option existed
            self._completed(group, {})

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append("\n" * (i > 0) + f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group: {"params": parameters, and options of its own}. Options that are missing get the defaults.

        TypeError for a set of parameters (its order is not fixed) or for what is not a Tensor; ValueError for a tensor
        that is not a leaf, for a parameter that another group has, or if only some of the parameters have names.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of "
                            "tensors in sets will change between runs. Please use a list instead.")
        params = [params] if isinstance(params, Tensor) else list(params)
        names = [p[0] for p in params if isinstance(p, tuple)]
        if names and len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf and not param_group.get("differentiable", self.defaults.get("differentiable")):
                raise ValueError("can't optimize a non-leaf Tensor")
        param_group["params"] = params
        if names:
            param_group["param_names"] = names
        for name, default in self.defaults.items():
            param_group.setdefault(name, default)
        own = {id(p) for p in params}
        if len(own) != len(params):
            warn("optimizer contains a parameter group with duplicate parameters; in future, "
                 "this will cause an error")
        for group in self.param_groups:
            if ("param_names" in group) != ("param_names" in param_group):
                raise ValueError("all optimizer param groups should be with/without names. cannot add param group "
                                 f"{'with' if 'param_names' in param_group else 'without'} names to the optimizer")
            if not own.isdisjoint(id(p) for p in group["params"]):
                raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Sets the gradients to None, or with `set_to_none=False` fills them with 0."""
        for group in self.param_groups:
            drop_grads(group["params"], set_to_none)

    # ---- the step ----

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        """The group's numbers (lr, weight_decay, eps, first, second, ...) and flags (the form of the update)."""
        raise NotImplementedError

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        """Makes what is missing in the parameter's state. Returns its tensors of the parameter's shape (or None): three
        if there is a kernel."""
        raise NotImplementedError

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        """The update of one parameter, in place, in Tensor ops. `step` is the number of this step: 1 in the first."""
        raise NotImplementedError

    def _update_for(self, group: dict[str, Any], flags: Flags, device: Device) -> Callable[[np.dtype], _Update]:
        """What gives the update of parameters of a dtype."""
        if not self._elementwise:
            family = getattr(device.kernels, self._kernel)
            return lambda dtype: (family.get(dtype), flags)
        count = len(self._read(group)[0])
        if device.generated is None:
            from .together import update
            return functools.partial(update, self, group, flags, count, device)
        from .together import kernel
        return lambda dtype: (kernel(self, group, flags, count, device, dtype), flags)

    def _numbers_of(self, p: Tensor) -> tuple[Tensor, ...]:
        """What a parameter's state has besides tensors of its shape and `step`: numbers that the update changes."""
        return tuple([self._state_of(p)[name] for name in self._numbers])

    def _step_of(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        """The parameter's step count, a float64 scalar on its device."""
        return scalar(p, state, "step", 0.0)

    def step(self, closure: Callable[[], _Loss] | None = None) -> _Loss | None:
        """Updates all parameters that have a gradient.

        `closure`, if given, is called first: it clears the gradients, computes the loss, calls `backward`, and returns
        the loss, which `step` returns. RuntimeError if a gradient or a state does not have its parameter's shape.
        """
        loss: _Loss | None = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for i, group in enumerate(self.param_groups):
                if group.get("differentiable"):
                    self._record_group(group)
                else:
                    self._step_group(i, group)
        return loss

    @enable_grad()
    def _record_group(self, group: dict[str, Any]) -> None:
        """The definition for each parameter, in the graph, which keeps copies of what is then changed in place."""
        if mode.recorder is not None:
            fail("capture", "a captured step cannot be differentiable", "", "pass differentiable=False")
        values, flags = self._read(group)
        observers.append(_keep_copies)
        try:
            for p in group["params"]:
                if p._grad is not None:
                    state, step = self._begin(group, p, self.state[p]), self._step_of(p, self.state[p])
                    step.add_(1)
                    numbers = [as_tensor(v, np.float64, p.device) for v in values]
                    begun_with_lr = {"eta", "step_size"} & {*self.state[p]}
                    if isinstance(group["lr"], Tensor) and not begun_with_lr:
                        numbers[0] = group["lr"].reshape(())
                    self._define(flags, tuple(numbers), p, p._grad, state, step)
        finally:
            observers.remove(_keep_copies)

    def _step_group(self, index: int, group: dict[str, Any]) -> None:
        recorder = mode.recorder
        if recorder is not None:
            if id(self) not in recorder.optimizers:
                recorder.optimizers[id(self)] = self
                forms = [self._form(g) for g in self.param_groups] if recorder.before_replay else None
                recorder.before_replay.append(functools.partial(self.sync_hyper, forms))
            for p in group["params"]:
                recorder.reads_grad(p)
        values, flags = self._read(group)
        key: list[Any] = [values[3] == 0, values[4] == 0]       # a momentum of 0 needs no buffer
        for p in group["params"]:
            g = p._grad
            if g is not None:
                key += (p.array.ptr, p.array.layout, g.array.layout)
                for s in self.state.get(p, {}).values():
                    if isinstance(s, Tensor):
                        key.append(s.array)
        made = self._batches.get(index)
        if made is None or made.key != key or made.flags != flags or made.state is not self.state \
                or made.count != len(self.state) or recorder is not None:
            made = self._prepare(index, group, key, flags)
            if recorder is None:                # a captured program has a table that no eager step writes to
                self._batches[index] = made
        for batch in made.batches:
            batch.hyper.write(values)
            self._launch(batch, flags)

    def _prepare(self, index: int, group: dict[str, Any], key: list[Any], flags: Flags) -> _Batches:
        """Starts missing states and sorts the parameters into batches."""
        batches: dict[tuple[Any, ...], list[_Row]] = {}
        self._owners = {own: p for own, p in self._owners.items() if self.state.get(p, {}).get(MASTER) is own}
        for p in group["params"]:
            if p._grad is not None:
                state = self.state[p]
                own = self._updated(p)
                row: _Row = own, self._begin(group, own, state), self._step_of(own, state), self._numbers_of(own)
                if not state:
                    del self.state[p]
                _fitting(p, row)
                dense = p.is_contiguous() and p._grad.is_contiguous() and p._grad.dtype == p.dtype
                batches.setdefault((p.device.name, p.dtype, dense), []).append(row)
        made = []
        for (name, dtype, dense), rows in batches.items():
            device = rows[0][0].device
            if (index, name) not in self._hypers:
                self._hypers[index, name] = _Hyper(device, len(self._read(group)[0]))
            update_for = self._update_for(group, flags, device)
            halves = [self._owners[row[0]] for row in rows] if rows[0][0].dtype != dtype else []
            direct = update_for(dtype) if dense else (None, ())
            fused = direct[0] is not None
            update = update_for(rows[0][0].dtype) if halves and not fused else direct
            made.append(_Batch(rows, update, self._hypers[index, name], halves, fused))
        return _Batches(key, flags, self.state, made)

    def _launch(self, batch: _Batch, flags: Flags) -> None:
        """One launch for the whole batch; without a kernel, the definition for each parameter."""
        recorder = mode.recorder
        hyper = batch.hyper.tensor
        apart = [] if batch.fused else batch.halves             # what this rounds, in launches of their own
        given = gradients(batch.params, apart) if apart else [p._grad for p in batch.halves or batch.params]
        if batch.kernel is None:
            numbers = tuple(hyper[i] for i in range(hyper.numel()))
            for (p, state, step, _), g in zip(batch.rows, given, strict=True):
                step.add_(1)
                self._define(flags, numbers, p, g, state, step)
            return round_to(apart, batch.params[:len(apart)])
        grads = [g.array.ptr for g in given]
        if grads != batch.grads:
            batch.columns[:len(grads), 1] = batch.grads = grads
            batch.params[0].device.write(batch.table, batch.columns, moved=True)
        if recorder is not None:                # the launch names only the table: the recorder needs its addresses too
            for address in [*batch.columns[:len(grads), :SIZE].flat, *[p.array.ptr for p in batch.halves]]:
                if address:
                    recorder.hold(int(address))
        batch.kernel.call(batch.table.ptr, hyper.array.ptr, len(batch.rows), *batch.options)
        for storage in batch.storages:
            storage.version += 1
        round_to(apart, batch.params[:len(apart)])

    def _updated(self, p: Tensor) -> Tensor:
        """What the update of `p` changes: `p`, or its master weights."""
        own = master_of(p, self.state[p])
        if own is not p:
            self._owners[own] = p
        return own

    def _state_of(self, p: Tensor) -> dict[str, Any]:
        """The state that belongs to a parameter, or to its master weights."""
        return self.state[self._owners.get(p, p)]

    def sync_hyper(self, forms: list[tuple] | None) -> None:
        """Writes each group's learning rate and other numbers to where the update reads them. Runs before a replay.

        `forms`: those of the recording, if a schedule runs before; RuntimeError if it changed them.
        """
        for (index, _), hyper in self._hypers.items():
            values, flags = self._read(self.param_groups[index])
            if forms and (flags, values[3] == 0, values[4] == 0) != forms[index]:
                raise RuntimeError("[step] a schedule in a captured function cannot switch an option on or off; got "
                                   f"momentum or betas {values[3:]}; call its step() outside the captured function")
            hyper.write(values)

    # ---- what a captured step reads ----

    def _noted(self, notes: Notes, text: str) -> None:
        """Notes for a capture which parameters there are; if the code names the groups, also options and state."""
        if not type(self).__module__.startswith("minigrad."):
            notes.object(self, text)
        notes.add(self.__dict__, ("param_groups", "state"), text)
        if "defaults" in notes.names:
            notes.add(self.defaults, None, text)
        if "state" in notes.names:
            self._noted_state(notes)
        for table in (self.param_groups, *[g["params"] for g in self.param_groups]):
            notes.add(table, None, f"{text}.param_groups")
        if "param_groups" in notes.names:
            for group in self.param_groups:
                notes.add(group, None, f"{text}.param_groups")
            self._noted_state(notes)
        for p in chain.from_iterable(g["params"] for g in self.param_groups):
            notes.visit(p, text)
        for hook in (*self._step_pre_hooks.values(), *self._step_post_hooks.values()):
            notes.visit(hook, "a hook of step")

    def _noted_state(self, notes: Notes) -> None:
        for table in (self.state, *self.state.values()):
            notes.add(table, None, "the state of an optimizer", counted=isinstance(table, (_States, _Entries)))
        for t in chain.from_iterable(s.values() for s in self.state.values()):
            notes.visit(t, "the state of an optimizer")

    def _noted_step(self, notes: Notes) -> None:
        """Notes what `step` read. Numbers may change: a replay reads them, unless they change the update's form."""
        notes.visit(self, "an optimizer")
        self._noted_state(notes)
        for hooks in (self._step_pre_hooks, self._step_post_hooks):
            notes.add(hooks, None, "the hooks of step", counted=True)
        notes.pieces += [_Options(group, self._form) for group in self.param_groups]

    def _form(self, group: dict[str, Any]) -> tuple:
        """What of the options decides which launch is made, and with which state."""
        values, flags = self._read(group)
        return flags, values[3] == 0, values[4] == 0            # a momentum of 0 needs no buffer

    # ---- state dict ----

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimiser, for `minigrad.save`: a dict with two entries.

            "state"         {number of a parameter: its state}; the tensors are shared, not copied
            "param_groups"  a list of dicts: the options, and in "params" the numbers of the parameters
        """
        for hook in self._state_dict_pre_hooks.values():
            hook(self)
        number: dict[int, int] = {}
        for p in chain.from_iterable(g["params"] for g in self.param_groups):
            number.setdefault(id(p), len(number))
        groups = [{**{k: v for k, v in g.items() if k != "params"}, "params": [number[id(p)] for p in g["params"]]}
                  for g in self.param_groups]
        state = {number[id(k)] if isinstance(k, Tensor) else k: v for k, v in self.state.items()}
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for post_hook in self._state_dict_post_hooks.values():
            changed = post_hook(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads options and state from `state_dict`. Parameters are matched by their order.

        Tensors (or arrays) are copied. Where the optimiser has a state tensor of the same shape, the values go into
        that tensor, so that a captured step continues from what was loaded. An option that `state_dict` lacks, because
        it was saved before the option existed, is off if it is off by default; else it stays as it is here. ValueError
        if the groups have other sizes.
        """
        state_dict = dict(state_dict)
        for hook in self._load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(s["params"]) != len(g["params"]) for s, g in zip(saved, self.param_groups, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of "
                             "optimizer's group")
        by_number = {n: p for s, g in zip(saved, self.param_groups, strict=True)
                     for n, p in zip(s["params"], g["params"], strict=True)}

        state: defaultdict[Any, dict[str, Any]] = _States(_Entries)
        with no_grad():
            for number, values in state_dict["state"].items():
                p = by_number.get(number)
                own = values if p is None else self._copied(p, values, None, self.state.get(p))
                state[number if p is None else p] = own
        groups = []
        for s, g in zip(saved, self.param_groups, strict=True):
            new = {k: tuple(v) if isinstance(g.get(k), tuple) and isinstance(v, list) else copy.deepcopy(v)
                   for k, v in s.items() if k != "params"}
            if "param_names" in g:
                new.setdefault("param_names", g["param_names"])
            groups.append(self._completed({**new, "params": g["params"]}, g))
        self.state, self.param_groups = state, groups
        self._batches.clear()
        self._hidden_steps.clear()
        self._owners.clear()
        self._loaded()
        for post_hook in self._load_state_dict_post_hooks.values():
            post_hook(self)

    def _completed(self, group: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
        """The group with the options that it lacks: those that are off by default are off, others are as `present`."""
        usual = inspect.signature(type(self).__init__).parameters
        for name in self.defaults:
            if name not in group:
                default = usual[name].default if name in usual else None
                off = name in usual and not default
                group[name] = default if off else present.get(name, self.defaults[name])
        return group

    def _copied(self, p: Tensor, value: Any, key: Any, present: Any) -> Any:
        """A copy of what a state dict holds for `p` under `key`; a tensor goes into the `present` one of its shape."""
        if isinstance(value, Tensor) or hasattr(value, "__array__"):
            value = as_tensor(value)
            if isinstance(present, Tensor) and present.shape == value.shape:
                return present.copy_(value)
            keeps = key == "step" or key in self._numbers or not p.is_floating_point()
            return value.to(device=p.device, dtype=None if keeps else unrounded(p.layout, ()).dtype, copy=True)
        if isinstance(value, dict):
            there = present if isinstance(present, dict) else {}
            return _Entries((k, self._copied(p, v, k, there.get(k))) for k, v in value.items())
        if isinstance(value, list | tuple | set):
            return type(value)(self._copied(p, v, None, None) for v in value)
        return value

    def _loaded(self) -> None:
        """A subclass may correct the loaded groups here."""

    # ---- hooks ----

    def _add_hook(self, name: str, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        table = self.__dict__[name]
        handle = RemovableHandle(table)
        table[handle.id] = hook
        if prepend:
            table.move_to_end(handle.id, last=False)
        changed()
        return handle

    def register_step_pre_hook(self, hook: StepPreHook) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` before each step. The hook returns None or new (args, kwargs); `args`
        begins with the optimizer.

        The handle's `remove()` takes the hook away; so it is for all hooks.
        """
        return self._add_hook("_step_pre_hooks", hook)

    def register_step_post_hook(self, hook: StepPostHook) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return self._add_hook("_step_post_hooks", hook)

    def register_state_dict_pre_hook(self, hook: StateDictPreHook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` at the beginning of `state_dict`; with `prepend`, before the other hooks."""
        return self._add_hook("_state_dict_pre_hooks", hook, prepend)

    def register_state_dict_post_hook(self, hook: StateDictPostHook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` at the end of `state_dict`. The hook returns None or another dict."""
        return self._add_hook("_state_dict_post_hooks", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: StateDictPostHook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` before loading. The hook returns None or another dict."""
        return self._add_hook("_load_state_dict_pre_hooks", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: StateDictPreHook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` after loading."""
        return self._add_hook("_load_state_dict_post_hooks", hook, prepend)


Optimizer.step = _hooked(Optimizer.step)        # type: ignore[method-assign]


def begun(values: np.ndarray, device: Device) -> Tensor:
    """A state tensor with its first values. It is uploaded, not launched, so that a replay does not reset it."""
    return new_tensor(device.upload(values), None)


def _fitting(p: Tensor, row: _Row) -> None:
    """Checks gradient and state, which may come from outside: the kernel reads both with the parameter's size."""
    g, dtype = p._grad, row[0].dtype
    assert g is not None
    if g.shape != p.shape or g.device is not p.device:
        raise RuntimeError(f"[step] a gradient must have its parameter's shape and device; "
                           f"got {g.layout} for {p.layout}")
    for s in row[1]:
        if s is not None and (not isinstance(s, Tensor) or s.shape != p.shape or s.dtype != dtype
                              or not s.is_contiguous() or s.device is not p.device):
            raise RuntimeError(f"[step] the optimizer's state must have its parameter's shape and dtype; got "
                               f"{s.layout if isinstance(s, Tensor) else repr(s)} for {p.layout}")
    if row[2].numel() != 1:
        raise RuntimeError(f"[step] a parameter's step count must be one number; got {row[2].layout}")


def state_like(p: Tensor, state: dict[str, Any], name: str, value: float = 0.0) -> Tensor:
    """The tensor `state[name]`, of the shape and dtype of `p`. If it is missing, it is made and filled with `value`."""
    if state.get(name) is None:
        state[name] = begun(np.full(p.shape, value, p.dtype), p.device)
    found: Tensor = state[name]
    return found


def scalar(p: Tensor, state: dict[str, Any], name: str, value: float) -> Tensor:
    """The number `state[name]`, a float64 scalar on the device of `p`; `value` if it is missing."""
    found = state.get(name, value)
    if not isinstance(found, Tensor) or found.dtype != np.float64 or found.ndim or found.device is not p.device:
        found = state[name] = begun(np.array(float(found)), p.device)
    return found


def one_element(lr: float | Tensor) -> None:
    """ValueError if the learning rate is a tensor with more or less than one element."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
