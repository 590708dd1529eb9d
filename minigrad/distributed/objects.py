"""Python objects between processes, as pickles in tensors of bytes. Reading a pickle can run code: the processes are
those of one program."""
from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.creation import tensor, zeros
from .group import all_gather_into_tensor, broadcast, joined


def _sent(obj: Any) -> Tensor:
    return tensor(np.frombuffer(pickle.dumps(obj), np.uint8).copy(), device=joined().device)


def _read(data: Tensor) -> Any:
    return pickle.loads(data.numpy(force=True).tobytes())                   # type: ignore[attr-defined]


def all_gather_object(object_list: list[Any], obj: Any, group: None = None) -> None:
    """object_list[i] = a copy of the object of process i, whatever can be pickled. ValueError if the list has not one
    place for each process.

    After `torch.distributed.all_gather_object`.

        >>> found = [None] * distributed.get_world_size()                   # doctest: +SKIP
        >>> distributed.all_gather_object(found, {"rank": distributed.get_rank()})
    """
    size, device = joined().size, joined().device
    if len(object_list) != size:
        raise ValueError(f"[all_gather_object] object_list needs a place for each of {size} processes; "
                         f"got {len(object_list)}")
    own = _sent(obj)
    lengths = zeros(size, dtype=np.int64, device=device)
    all_gather_into_tensor(lengths, tensor([own.numel()], device=device), group)
    ends: Any = lengths.tolist()
    padded = zeros(max(ends), dtype=np.uint8, device=device)
    padded[:own.numel()] = own
    rows = zeros(size, max(ends), dtype=np.uint8, device=device)
    all_gather_into_tensor(rows, padded, group)
    object_list[:] = [_read(row[:end]) for row, end in zip(rows, ends, strict=True)]


def broadcast_object_list(object_list: list[Any], src: int = 0, group: None = None, device: Any = None) -> None:
    """object_list[:] = copies of the objects in that of process `src`, which can be pickled; those in the lists of
    the others need not. ValueError if the lists have not one length. `device` is without effect.

    After `torch.distributed.broadcast_object_list`.
    """
    root, on = joined().rank == src, joined().device
    data = _sent(list(object_list)) if root else zeros(0, dtype=np.uint8, device=on)
    length = tensor([data.numel()], device=on)
    broadcast(length, src, group)
    data = data if root else zeros(int(length.item()), dtype=np.uint8, device=on)
    broadcast(data, src, group)
    found = _read(data)
    if len(found) != len(object_list):
        raise ValueError(f"[broadcast_object_list] all lists need the length of that of process {src}, {len(found)}; "
                         f"got {len(object_list)}")
    object_list[:] = found
