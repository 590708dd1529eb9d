"""What minigrad does not have and does not imitate: importing it works, using it says why."""
from __future__ import annotations

from typing import Any, NoReturn


class _Refusing(type):
    """The class of names that are refused. They are classes, so that `isinstance(x, DistributedDataParallel)` is False
    and annotations work."""

    reason: str

    def __call__(cls, *args: Any, **named: Any) -> NoReturn:
        raise NotImplementedError(f"[as_torch] {cls.__name__} is not supported; {cls.reason}")

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return refused(f"{cls.__name__}.{name}", cls.reason)

    def __getitem__(cls, kinds: Any) -> Any:            # Future[Tensor]
        return cls

    def __instancecheck__(cls, value: object) -> bool:
        return False

    def __repr__(cls) -> str:
        return f"<{cls.__name__}, which is not supported; {cls.reason}>"


def refused(name: str, reason: str) -> Any:
    """An object in place of `name` that raises NotImplementedError with the reason when it is called."""
    return _Refusing(name, (), {"reason": reason})
