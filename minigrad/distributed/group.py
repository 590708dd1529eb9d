"""The process group: who takes part, and collectives of tensors with PyTorch's names (`torch.distributed`).

Start the processes with the MPI's launcher; each runs the whole program:

    mpiexec -n 4 python train.py

    distributed.init_process_group("mpi")
    model = nn.parallel.DistributedDataParallel(model)

Collectives change their tensor in place, as PyTorch's do, and are no part of the graph. They work inside
`minigrad.capture`: with MPI a replay calls them between its native segments, with NCCL they are in its CUDA graph.
"""
from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.modes import no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..devices.memory import Array

if TYPE_CHECKING:
    from .mpi import Mpi
    from .nccl import Nccl

_WAIT = timedelta(minutes=30)
_group: Mpi | Nccl | None = None


class ReduceOp:
    """What a reduction computes: SUM, AVG, PRODUCT, MIN, MAX."""

    SUM, AVG, PRODUCT, MIN, MAX = "sum", "avg", "product", "min", "max"


_OPERATIONS = ("sum", "avg", "product", "min", "max")


class Work:
    """A collective that was started with `async_op=True`."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish: Callable[[], None] | None = finish

    def wait(self) -> bool:
        """Returns when the tensor has its result."""
        if self._finish is not None:
            self._finish()
            self._finish = None
        return True

    def is_completed(self) -> bool:
        """Was it waited for?"""
        return self._finish is None


# ---- the group -------------------------------------------------------------------------------------------------------

def init_process_group(backend: str = "mpi", init_method: str | None = None, timeout: timedelta = _WAIT,
                       world_size: int = -1, rank: int = -1, device_id: Any = None) -> None:
    """Joins the processes that a launcher started. Collectives raise after `timeout`; when a process ends by an error,
    all do.

    backend      "mpi" for tensors on the CPU; "nccl" for GPUs, one in each process: `device_id`, by default the
                 number of the process on its host
    init_method  how processes find each other. None: by the MPI's launcher. With "nccl" also "tcp://HOST:PORT" and
                 "file:///PATH", with `world_size` and `rank`, and "env://", where the environment has MASTER_ADDR,
                 MASTER_PORT, WORLD_SIZE and RANK (`store.py`), which is the default there

    With MPI `world_size` and `rank` are the launcher's; if they are given they must agree. RuntimeError without mpi4py,
    NCCL or a GPU, and the second time; NotImplementedError for another backend or `init_method`; ValueError for a
    place, rank or `device_id` that does not fit.
    """
    global _group
    if _group is not None:
        raise RuntimeError("[init_process_group] the process group exists already; call destroy_process_group() first")
    if backend not in ("mpi", "nccl"):
        raise NotImplementedError(f"[init_process_group] the backend is 'mpi' or 'nccl'; got {backend!r}; take "
                                  "'mpi' on the CPU")
    if device_id is not None and (backend == "mpi") != (str(device_id) == "cpu"):
        raise ValueError("[init_process_group] the backend 'mpi' is for the CPU, 'nccl' for GPUs; got "
                         f"{backend!r} with device_id={str(device_id)!r}; leave device_id out, or take the other")
    seconds = timeout.total_seconds()
    if backend == "nccl" and init_method is None and "MASTER_ADDR" in os.environ:
        init_method = "env://"
    if backend == "nccl" and init_method is not None:
        from .store import Store, method_of
        group: Any = Store(*method_of(init_method, world_size, rank), seconds)
    elif init_method not in (None, "env://"):
        raise NotImplementedError(f"[init_process_group] the launcher connects the processes; got init_method="
                                  f"{init_method!r}; leave it out, and start with mpiexec -n 4 python train.py")
    else:
        from .mpi import Mpi
        group = Mpi(seconds)
        for name, given, have in (("world_size", world_size, group.size), ("rank", rank, group.rank)):
            if given not in (-1, have):
                raise ValueError(f"[init_process_group] the launcher gave this process {name}={have}; got {given}; "
                                 "leave it out")
    if backend == "nccl":
        from .nccl import Nccl
        group = Nccl(group, device_id)
    _group = group
    atexit.register(_leave)
    sys.excepthook = _end_all(sys.excepthook)


def _end_all(shown: Callable) -> Callable:
    """An exception hook: shows an error as before, then ends all processes, which would wait for this one."""
    def hook(*error: Any) -> None:
        shown(*error)
        if _group is not None and _group.size > 1 and _group.process == os.getpid():
            print(f"[distributed] rank {_group.rank} ended by {error[0].__name__}; all processes end", file=sys.stderr)
            _group.abort()
    return hook


def _leave() -> None:
    """At the end of the program: the other processes must be at their end, too; else all end."""
    group = _group
    if group is None or group.process != os.getpid():       # a fork has no part in it
        return
    try:
        destroy_process_group()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        group.abort()


def destroy_process_group() -> None:
    """Leaves the group; all processes must."""
    global _group
    group, _group = joined(), None
    atexit.unregister(_leave)
    group.agree("the end: destroy_process_group, or the end of the program")
    group.close()


def joined() -> Mpi | Nccl:
    """The process group. RuntimeError before `init_process_group`."""
    if _group is None:
        raise RuntimeError("[distributed] there is no process group; call distributed.init_process_group()")
    if _group.process != os.getpid():
        raise RuntimeError(f"[distributed] this process was forked from rank {_group.rank} and is not in the group; "
                           "call collectives in the processes that the launcher started")
    return _group


def is_available() -> bool:
    """True: whether an MPI is there, `init_process_group` finds out."""
    return True


def is_initialized() -> bool:
    """Is there a process group?"""
    return _group is not None


def get_rank() -> int:
    """The number of this process, from 0."""
    return joined().rank


def get_world_size() -> int:
    """The number of processes."""
    return joined().size


def get_backend() -> str:
    """The name of the backend."""
    return joined().name


# ---- collectives -----------------------------------------------------------------------------------------------------

def described(call: str, tensor: Tensor, *rest: Any) -> str:
    """A call, as processes compare and show it."""
    have = tensor.array.layout
    return " ".join([call, f"{have.dtype}{list(have.shape)}", *map(str, rest)])


def _only_all(call: str, group: Any) -> None:
    if group is not None:
        raise NotImplementedError(f"[{call}] the group is that of all processes; got group={group!r}; leave it out")


def _check(call: str, tensor: Any, group: Any) -> None:
    _only_all(call, group)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"[{call}] the tensor must be a Tensor; got {type(tensor).__name__}")
    engine = joined()
    if tensor.array.layout.device is not engine.device:
        fail(call, f"the backend {engine.name!r} moves tensors of {engine.device}", tensor.array.layout,
             f"call .to({str(engine.device)!r})")


def _reducible(call: str, tensor: Tensor, op: str) -> str:
    """The operation; TypeError for an element type that it does not reduce."""
    if op not in _OPERATIONS:
        raise ValueError(f"[{call}] op must be one of ReduceOp's; got {op!r}")
    dtype = tensor.array.layout.dtype
    if dtype.kind not in "fiu" and dtype.name != "bfloat16" or op == "avg" and dtype.kind in "iu":
        raise TypeError(f"[{call}] {op} is not defined for {dtype}; convert it first")
    return op


def _ran(work: Work, async_op: bool) -> Work | None:
    if async_op:
        return work
    work.wait()
    return None


def exchange(call: str, begin: Callable[..., Any], out: Array, given: Array | None = None) -> Callable[[], None]:
    """Starts a collective that writes `out`, through the door so that capture replays it; returns what waits for it."""
    host, pending = out.layout.device.host, list[Any]()
    arrays = [out.np] if given is None else [out.np, given.np]
    if joined().name == "nccl":                 # it launches: what comes later on the stream waits
        joined().agree(call)
        begin(*arrays)
        return lambda: None

    def start(*arrays: Any, out: Any) -> None:
        joined().agree(call)
        pending.append(begin(out, *arrays))

    def finish(out: Any) -> None:
        joined().wait(pending.pop(), call)
    host.call(start, *arrays)
    return lambda: host.call(finish, out.np)


def broadcast_all(tensors: Iterable[Tensor]) -> None:
    """Each tensor = that of process 0; with NCCL by one launch."""
    with joined().grouped():
        works = [broadcast(t, async_op=True) for t in tensors]
    for work in works:
        work.wait()                                                             # type: ignore[union-attr]


def sums_in(tensor: Tensor) -> np.dtype:
    """The type that a reduction adds in: half precision in float32."""
    dtype = tensor.array.layout.dtype
    return np.dtype("float32") if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype


@no_grad()
def all_reduce(tensor: Tensor, op: str = ReduceOp.SUM, group: None = None, async_op: bool = False) -> Work | None:
    """tensor = sum (or AVG, PRODUCT, MIN, MAX) of all processes' tensors, element by element. Any shape, one in all.

    RuntimeError in all processes if shapes, types or calls differ.

    >>> distributed.all_reduce(loss, distributed.ReduceOp.AVG)
    """
    _check("all_reduce", tensor, group)
    _reducible("all_reduce", tensor, op)
    engine, work = joined(), tensor.detach().to(sums_in(tensor), copy=True).contiguous()
    finish = exchange(described("all_reduce", tensor, op), lambda out: engine.all_reduce(out, op), work.array)

    @no_grad()
    def end() -> None:
        finish()
        tensor.detach().copy_(work / engine.size if op == "avg" else work)
    return _ran(Work(end), async_op)


@no_grad()
def broadcast(tensor: Tensor, src: int = 0, group: None = None, async_op: bool = False) -> Work | None:
    """tensor = that of the process `src`. Any shape and type, the same in all processes."""
    _check("broadcast", tensor, group)
    engine, work = joined(), tensor.detach().clone().contiguous()
    if not 0 <= src < engine.size:
        raise ValueError(f"[broadcast] src must be a rank from 0 to {engine.size - 1}; got {src}")
    finish = exchange(described("broadcast", tensor, f"from rank {src}"), lambda out: engine.broadcast(out, src),
                      work.array)

    @no_grad()
    def end() -> None:
        finish()
        if engine.rank != src:
            tensor.detach().copy_(work)
    return _ran(Work(end), async_op)


@no_grad()
def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: None = None,
                           async_op: bool = False) -> Work | None:
    """output = the processes' tensors one after the other, or stacked: (n, *) -> (world_size * n, *) or
    (world_size, n, *)."""
    _check("all_gather", input_tensor, group)
    _check("all_gather", output_tensor, group)
    engine, have, to = joined(), input_tensor.array.layout, output_tensor.array.layout
    if to.size != engine.size * have.size or to.dtype != have.dtype:
        fail("all_gather", f"the output holds the inputs of all {engine.size} processes, in their dtype", (to, have))
    out, work = output_tensor.detach().clone().contiguous(), input_tensor.detach().contiguous()
    finish = exchange(described("all_gather", input_tensor), engine.all_gather, out.array, work.array)

    @no_grad()
    def end() -> None:
        finish()
        output_tensor.detach().copy_(out)
    return _ran(Work(end), async_op)


@no_grad()
def all_gather(tensor_list: Sequence[Tensor], tensor: Tensor, group: None = None,
               async_op: bool = False) -> Work | None:
    """tensor_list[i] = the tensor of process i; all have one shape and type."""
    from ..ops.join import stack
    engine = joined()
    if len(tensor_list) != engine.size:
        raise ValueError(f"[all_gather] tensor_list needs a tensor for each of {engine.size} processes; "
                         f"got {len(tensor_list)}")
    out = stack([tensor.detach()] * engine.size)
    work = all_gather_into_tensor(out, tensor, group, async_op=True)

    @no_grad()
    def end() -> None:
        work.wait()                                                             # type: ignore[union-attr]
        for into, values in zip(tensor_list, out.unbind(0), strict=True):
            into.detach().copy_(values)
    return _ran(Work(end), async_op)


@no_grad()
def reduce_scatter_tensor(output: Tensor, input: Tensor, op: str = ReduceOp.SUM, group: None = None,
                          async_op: bool = False) -> Work | None:
    """output = this process's part of the sum (or another operation) of all inputs: (world_size * n, *) or
    (world_size, n, *) -> (n, *)."""
    _check("reduce_scatter", input, group)
    _check("reduce_scatter", output, group)
    _reducible("reduce_scatter", input, op)
    engine, have, to = joined(), input.array.layout, output.array.layout
    if have.size != engine.size * to.size or to.dtype != have.dtype:
        fail("reduce_scatter", f"the input holds the outputs of all {engine.size} processes, in their dtype",
             (have, to))
    given = input.detach().to(sums_in(input)).contiguous()
    out = output.detach().to(sums_in(input), copy=True).contiguous()
    finish = exchange(described("reduce_scatter", input, op),
                      lambda out, array: engine.reduce_scatter(out, array, op),          # type: ignore[misc]
                      out.array, given.array)

    @no_grad()
    def end() -> None:
        finish()
        output.detach().copy_(out / engine.size if op == "avg" else out)
    return _ran(Work(end), async_op)


@no_grad()
def reduce_scatter(output: Tensor, input_list: Sequence[Tensor], op: str = ReduceOp.SUM, group: None = None,
                   async_op: bool = False) -> Work | None:
    """output = the sum (or another operation) over all processes of input_list[rank]."""
    from ..ops.join import stack
    if len(input_list) != joined().size:
        raise ValueError(f"[reduce_scatter] input_list needs a tensor for each of {joined().size} processes; "
                         f"got {len(input_list)}")
    return reduce_scatter_tensor(output, stack([t.detach() for t in input_list]), op, group, async_op)


def barrier(group: None = None, async_op: bool = False, device_ids: Sequence[int] | None = None) -> Work | None:
    """Returns when all processes have called it, also with `async_op`. `device_ids` is without effect."""
    _only_all("barrier", group)
    joined().agree("barrier")
    return _ran(Work(lambda: None), async_op)
