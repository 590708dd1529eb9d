"""`torch.utils.tensorboard`: the writer of the package tensorboardX, which writes the same files."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..core.warning import warn

__all__ = ["SummaryWriter"]


def _arrays(value: Any) -> Any:
    """The value with NumPy arrays in the place of its tensors."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {k: _arrays(v) for k, v in value.items()}
    return type(value)(map(_arrays, value)) if type(value) in (tuple, list) else value


class SummaryWriter:
    """`SummaryWriter(log_dir)`, with the methods of `tensorboardX.SummaryWriter`: `add_scalar(tag, value, step)` and so
    on. ModuleNotFoundError without that package."""

    def __init__(self, *args: Any, **named: Any) -> None:
        try:
            from tensorboardX import SummaryWriter as Writer
        except ImportError:
            raise ModuleNotFoundError("torch.utils.tensorboard needs the package tensorboardX: "
                                      "pip install tensorboardX", name="tensorboardX") from None
        self._writer = Writer(*args, **named)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._writer, "logdir" if name == "log_dir" else name)
        return (lambda *args, **named: value(*_arrays(args), **_arrays(named))) if callable(value) else value

    def add_graph(self, model: Any, *args: Any, **named: Any) -> None:
        """Warns that no graph is written: `minigrad.study.graph` draws them."""
        warn("[SummaryWriter.add_graph] writes nothing; minigrad.study.graph(loss) draws the graph")

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _writing(name: str) -> Any:
    def method(self: SummaryWriter, *args: Any, **named: Any) -> Any:
        return getattr(self._writer, name)(*_arrays(args), **_arrays(named))
    method.__name__ = name
    return method


for _name in ("audio custom_scalars embedding figure histogram hparams image images mesh pr_curve scalar scalars text"
              " video").split():                        # members of the class: of those that inherit, and of mocks
    setattr(SummaryWriter, f"add_{_name}", _writing(f"add_{_name}"))
SummaryWriter.close, SummaryWriter.flush = _writing("close"), _writing("flush")      # type: ignore[attr-defined]
