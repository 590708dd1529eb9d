"""Lazy layers: the number of inputs is read off the first input.

Until then a layer's parameters are `UninitializedParameter`s: they have a device and a dtype, but no shape, and what
reads one raises. The first call, or a loaded state dict, gives them shape and values in place, and the layer becomes
the ordinary one (`LazyLinear` a `Linear`): an optimiser made before keeps its parameters.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from ..core.modes import mode, no_grad
from ..core.shape import fail
from ..core.tape import Variable
from ..core.tensor import Tensor
from ..devices.memory import Layout
from ..ops.creation import empty
from .arguments import DeviceLike, DtypeLike, Size
from .conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from .linear import Linear
from .module import Module, Parameter
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d

if TYPE_CHECKING:
    from typing_extensions import Self


def _refused(self: Any) -> NoReturn:
    fail(type(self).__name__, "has no shape yet", fix="call the module once with an input, or load a state dict",
         kind=ValueError)


def _placeholder(t: Tensor) -> Layout:
    """The layout of what holds the device and the dtype until there is a shape."""
    return Variable.array.__get__(t).layout                         # type: ignore[attr-defined,misc]


def _parts(self: Any, protocol: Any = None) -> tuple[type, tuple]:
    """What makes another one: for pickle, and for copies."""
    like = _placeholder(self)
    return type(self), (self._requires_grad, like.device, like.dtype)


def _copied(self: Any, memo: dict[int, Any]) -> Any:
    if id(self) not in memo:
        cls, options = _parts(self)
        memo[id(self)] = cls(*options)
    return memo[id(self)]


def _materialize(self: Any, shape: Size | tuple[int, ...], device: DeviceLike = None, dtype: DtypeLike = None) -> None:
    """Gives the tensor itself a shape (another device, dtype), and makes it an ordinary one. The values are not set."""
    if mode.recorder is not None:
        fail(type(self).__name__, "cannot get its shape in a captured function, where a replay would draw it anew",
             fix="call the module once before it is captured")
    like = _placeholder(self)
    new = empty(shape, dtype=dtype or like.dtype, device=device or like.device)
    self.__class__ = _WAITING[type(self)]
    with no_grad():
        self.data = new


class UninitializedParameter(Parameter):
    """A parameter without a shape: `materialize` gives it one. ValueError for whatever reads it before."""

    def __new__(cls, requires_grad: bool = True, device: DeviceLike = None, dtype: DtypeLike = None) -> Any:
        made = Parameter.__new__(Parameter)
        Parameter.__init__(made, empty(0, device=device, dtype=dtype), requires_grad)
        made.__class__ = cls
        return made

    def __init__(self, requires_grad: bool = True, device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        pass

    array, materialize = property(_refused), _materialize

    def __repr__(self) -> str:
        return "<UninitializedParameter>"

    waits = True                # `Module` keeps it in a state dict as it is
    __deepcopy__, __reduce_ex__ = _copied, _parts


class UninitializedBuffer(Tensor):
    """A buffer without a shape: `materialize` gives it one. ValueError for whatever reads it before."""

    __slots__ = ()

    def __new__(cls, requires_grad: bool = False, device: DeviceLike = None, dtype: DtypeLike = None) -> Any:
        made = empty(0, device=device, dtype=dtype, requires_grad=requires_grad)
        made.__class__ = cls
        return made

    def __init__(self, requires_grad: bool = False, device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        pass

    array, materialize = property(_refused), _materialize

    def __repr__(self) -> str:
        return "<UninitializedBuffer>"

    waits = True
    __deepcopy__, __reduce_ex__ = _copied, _parts


_WAITING: dict[type, type] = {UninitializedParameter: Parameter, UninitializedBuffer: Tensor}


class LazyModule(Module):
    """What lazy layers share. A class says of which size it is for an input (`initialize_parameters`), and which one it
    becomes at the first call (`cls_to_become`), if another one."""

    cls_to_become: ClassVar[type[Module] | None] = None
    _waiting = True

    def _members_waiting(self) -> dict[str, Any]:
        """The parameters and buffers without a shape, by name."""
        return {n: t for n, t in (self._parameters | self._buffers).items() if type(t) in _WAITING}

    def has_uninitialized_params(self) -> bool:
        """Is there a parameter or buffer without a shape?"""
        return bool(self._members_waiting())

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gives all parameters and buffers the shapes that fit the first input."""
        raise NotImplementedError

    def _wait(self, name: str, parameter: bool = True) -> None:
        """Takes the shape away from a parameter or buffer."""
        have = self._parameters[name] if parameter else self._buffers[name]
        if have is not None:
            like = have.layout
            if parameter:
                self._parameters[name] = UninitializedParameter(have.requires_grad, like.device, like.dtype)
            else:
                have.__class__ = UninitializedBuffer

    def _materialize(self, **shapes: tuple[int, ...]) -> None:
        """Gives members their shapes; the values are not set."""
        for name, t in self._members_waiting().items():
            t.materialize(shapes[name])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        waiting = self._members_waiting()
        kinds = {name: type(t) for name, t in waiting.items()}
        for t in waiting.values():
            t.__class__ = _WAITING[type(t)]
        try:
            super()._apply(fn, recurse)
        finally:
            for name, kind in kinds.items():
                members: Any = self._parameters if kind is UninitializedParameter else self._buffers
                members[name].__class__ = kind
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        waiting = self._members_waiting()
        if waiting and all(type(state_dict.get(prefix + name, waiting[name])) not in _WAITING for name in waiting):
            self._materialize(**{name: tuple(state_dict[prefix + name].shape) for name in waiting})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._waiting:
            return super().__call__(*args, **kwargs)
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            fail(type(self).__name__, "initialize_parameters must give each parameter and buffer a shape",
                 list(self._members_waiting()), "call their materialize(shape)")
        if self.cls_to_become is None:
            self._waiting = False
        else:
            self.__class__ = self.cls_to_become                     # type: ignore[assignment]
        return self(*args, **kwargs)


class LazyLinear(LazyModule, Linear):
    """`Linear` whose `in_features` is the last size of its first input.

        >>> layer = nn.LazyLinear(2)
        >>> layer(minigrad.ones(4, 3)).shape, layer
        (Size([4, 2]), Linear(in_features=3, out_features=2, bias=True))
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__(0, out_features, bias, device, dtype)
        self._wait("weight")
        self._wait("bias")

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, once they have a shape."""
        if self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """The weight becomes (out_features, last size of `input`)."""
        self.in_features = input.shape[-1] if self.has_uninitialized_params() else self.weight.shape[1]
        if self.has_uninitialized_params():
            self._materialize(weight=(self.out_features, self.in_features), bias=(self.out_features,))
            self.reset_parameters()


class _LazyConv(LazyModule):
    """A convolution whose `in_channels` is read off its first input."""

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, once they have a shape."""
        if self.in_channels:
            super().reset_parameters()                              # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """The weight becomes that of a layer for the channels of `input`: (N, C, *space) or (C, *space)."""
        into = 1 if self.transposed else 0                          # the dimension of the weight with all in_channels
        if not self.has_uninitialized_params():
            self.in_channels = self.weight.shape[1 - into] * (1 if self.transposed else self.groups)
            return
        if input.ndim not in (self.dims + 1, self.dims + 2):
            fail(type(self).__name__, f"input must have {self.dims + 1} or {self.dims + 2} dimensions", input.layout)
        channels = input.shape[input.ndim - self.dims - 1]
        if channels % self.groups:
            fail(type(self).__name__, "in_channels must be divisible by groups",
                 [f"in_channels {channels}", f"groups {self.groups}"], kind=ValueError)
        self.in_channels = channels
        shape = (channels, self.out_channels // self.groups) if self.transposed else \
            (self.out_channels, channels // self.groups)
        self._materialize(weight=(*shape, *self.kernel_size), bias=(self.out_channels,))
        self.reset_parameters()


class _LazyConvolution(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size | str = 0,
                 dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__(0, out_channels, kernel_size, stride, padding, dilation, groups,   # type: ignore[call-arg]
                         bias, padding_mode, device, dtype)
        self._wait("weight")
        self._wait("bias")


class LazyConv1d(_LazyConvolution, Conv1d):
    """`Conv1d` whose `in_channels` is read off its first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConvolution, Conv2d):
    """`Conv2d` whose `in_channels` is read off its first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyConvolution, Conv3d):
    """`Conv3d` whose `in_channels` is read off its first input."""

    cls_to_become = Conv3d


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
                 output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1,
                 padding_mode: str = "zeros", device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__(0, out_channels, kernel_size, stride, padding, output_padding,     # type: ignore[call-arg]
                         groups, bias, dilation, padding_mode, device, dtype)
        self._wait("weight")
        self._wait("bias")


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """`ConvTranspose1d` whose `in_channels` is read off its first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """`ConvTranspose2d` whose `in_channels` is read off its first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """`ConvTranspose3d` whose `in_channels` is read off its first input."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModule):
    """A norm whose `num_features` is dimension 1 of its first input."""

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: DeviceLike = None, dtype: DtypeLike = None, *,
                 bias: bool = True) -> None:
        super().__init__(0, eps, momentum, affine, track_running_stats, device, dtype,      # type: ignore[call-arg]
                         bias=bias)
        for name in ("weight", "bias"):
            self._wait(name)
        for name in ("running_mean", "running_var"):
            self._wait(name, parameter=False)

    def reset_parameters(self) -> None:
        """Resets statistics, weight and bias, once they have a shape."""
        if self.num_features:
            super().reset_parameters()                              # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """All become (C) for an input (N, C, *)."""
        if self.has_uninitialized_params():
            self._check_input_dim(input)
            self.num_features = input.shape[1]
            one = (self.num_features,)
            self._materialize(weight=one, bias=one, running_mean=one, running_var=one)
            self.reset_parameters()
        elif not self.num_features:
            found = self.weight if self.weight is not None else self.running_mean
            self.num_features = 0 if found is None else found.numel()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """`BatchNorm1d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """`BatchNorm2d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """`BatchNorm3d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """`InstanceNorm1d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """`InstanceNorm2d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """`InstanceNorm3d` whose `num_features` is dimension 1 of its first input."""

    cls_to_become = InstanceNorm3d
