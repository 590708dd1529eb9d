"""`torch.device`: minigrad's devices, and names of devices that are not here, which programs make to compare with."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..devices import device as _device
from ..devices import open_device
from ..devices.base import Device

_KINDS = ("cuda", "hip", "hpu", "meta", "mps", "npu", "xla", "xpu")


class Unavailable(str):
    """The name of a device that is not here. It can be shown and compared; what is made on it or moved to it raises
    RuntimeError with the reason, as for any such name."""

    @property
    def type(self) -> str:
        """The name without the number."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:      # type: ignore[override]
        """The number, None without one."""
        number = self.partition(":")[2]
        return int(number) if number else None

    def __repr__(self) -> str:
        return f"device(type='{self.type}'{'' if self.index is None else f', index={self.index}'})"


class _AnyDevice(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (Device, Unavailable))

    def __call__(cls, type: Any = "cpu", index: int | None = None) -> Any:
        if isinstance(type, Unavailable):
            return type
        try:
            return open_device(type) if index is None else _device(type, index)
        except RuntimeError:
            name = f"cuda:{type}" if isinstance(type, int) else type if index is None else f"{type}:{index}"
            kind, _, number = str(name).partition(":")
            if kind in _KINDS and (not number or number.isdigit()):
                return Unavailable(name)
            raise


if TYPE_CHECKING:
    device = Device
else:
    class device(metaclass=_AnyDevice):
        """`torch.device("cpu")`, `torch.device("cuda", 0)`: a device; where there is none, `Unavailable`."""
