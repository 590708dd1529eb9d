"""PyTorch's names for training on several devices: in several processes (`DistributedDataParallel`). One process uses
one device: with `DataParallel` the module runs as it is."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from ..core.modes import is_grad_enabled, no_grad
from ..core.tape import Variable, edge_of, reachable
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices import open_device
from ..devices.cpu import PAGE, alignment
from ..distributed.group import broadcast_all, exchange, joined, sums_in
from ..ops.creation import zeros
from .module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


def _one_device(device_ids: Sequence[Any] | None) -> None:
    if device_ids is not None and len(device_ids) > 1:
        warn(f"DataParallel runs the whole batch on the device of the module, not on the devices {list(device_ids)}")


class DataParallel(Module):
    """Runs `module` (an attribute, so that names in a state dict begin with "module.") on the device it is on.

    `device_ids` with more than one device warns: the batch is not split. `output_device` and `dim` are without effect.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        _one_device(device_ids)
        self.module, self.dim, self.device_ids = module, dim, [] if device_ids is None else list(device_ids)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What `module` gives."""
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                  dim: int = 0, module_kwargs: dict[str, Any] | None = None) -> Any:
    """`module(*inputs, **module_kwargs)`; `inputs` is a tuple, or one input. Other arguments: see `DataParallel`."""
    _one_device(device_ids)
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))


# ---- several processes -----------------------------------------------------------------------------------------------

def _leaves_of(outputs: Any) -> set[int]:
    """The ids of the leaves that the tensors among `outputs` depend on."""
    if isinstance(outputs, Tensor):
        edge = edge_of(outputs) if outputs.requires_grad else None
        nodes = [] if edge is None else reachable([edge], frozenset())
        edges = [edge, *[e for node in nodes for e in node.inputs]]
        return {id(e) for e in edges if isinstance(e, Variable)}
    if is_dataclass(outputs) and not isinstance(outputs, type):
        outputs = vars(outputs)
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    return set().union(*map(_leaves_of, outputs)) if isinstance(outputs, (list, tuple)) else set()


def _rooms(parameters: list[Tensor]) -> list[int]:
    """The elements that gradients take in a bucket: each begins where an array of its own might, the next bucket at a
    page. Else loads of the optimiser wait for its stores to parameters, at addresses that end alike."""
    ends = [0]
    for p, following in zip(parameters, [*parameters[1:], None], strict=True):
        size = p.dtype.itemsize
        step = (PAGE if following is None else alignment(following.numel() * size)) // size
        ends.append(-(-(ends[-1] + p.numel()) // step) * step)
    return [end - begin for begin, end in pairwise(ends)]


class _Bucket:
    """Gradients of some parameters side by side in one piece of memory, which one all-reduce averages. They begin where
    other arrays may, so that a product in a captured step writes its result here (core/fusion.py)."""

    def __init__(self, numbers: list[int], parameters: list[Tensor], memory: Any) -> None:
        self.numbers, self.left = numbers, len(numbers)
        sizes = _rooms(parameters)
        self.flat = zeros(sum(sizes), dtype=parameters[0].dtype, device=joined().device)
        adds_in = sums_in(self.flat)
        self.shared: Any = None
        if memory is not None:
            from ..distributed.shared import Shared  # late, as below
            self.shared = Shared(memory.take(sum(sizes), adds_in), joined().rank)
        self.sums = self.shared.own if self.shared else self.flat.to(adds_in)
        if self.flat.dtype == adds_in:
            self.flat = self.sums
        self.views = [part[:p.numel()].view(p.shape)
                      for part, p in zip(self.flat.split(sizes), parameters, strict=True)]
        self.call = f"gradients {self.flat.dtype}[{self.flat.numel()}]"
        self.wait: Callable[[], None] | None = None         # for the all-reduce that was started

    def start(self) -> None:
        """Starts the all-reduce."""
        if self.sums is not self.flat:
            self.sums.copy_(self.flat)
        self.wait = (self.shared.exchange(self.call) if self.shared is not None else
                     exchange(self.call, lambda out: joined().all_reduce(out, "sum"), self.sums.array))

    def finish(self) -> None:
        """Returns when `flat` holds the mean."""
        assert self.wait is not None
        self.wait()
        self.wait = None
        if self.shared is None:
            self.sums.mul_(1 / joined().size)
        if self.sums is not self.flat:
            self.flat.copy_(self.sums)


class _Reducer:
    """Averages the gradients of `named` parameters over all processes, bucket by bucket, during backward."""

    def __init__(self, named: list[tuple[str, Tensor]], most: float, find_unused: bool, shared: bool) -> None:
        from ..distributed.memory import shared_memory  # late: `import minigrad` need not load it
        self.names, self.parameters = [name for name, _ in named], [p for _, p in named]
        self.buckets: list[_Bucket] = []
        self.places: dict[int, tuple[_Bucket, Tensor]] = {}
        self.find_unused = find_unused
        self.unused: set[int] = set()               # the parameters that no output depends on
        self.pending: set[int] = set()              # the parameters whose gradient is not complete
        self.started = 0                            # buckets
        self.on = True                              # False within `no_sync`
        shares = [(numbers, [self.parameters[i] for i in numbers]) for numbers in self._shares(most)]
        memory = shared_memory(joined(), sum([sum(_rooms(of)) * max(of[0].dtype.itemsize, 4) for _, of in shares])
                               ) if shared else None
        for numbers, parameters in shares:
            bucket = _Bucket(numbers, parameters, memory)
            self.buckets.append(bucket)
            for i, view in zip(numbers, bucket.views, strict=True):
                self.places[i] = bucket, view
                self.parameters[i].register_post_accumulate_grad_hook(partial(self._complete, i))

    def _shares(self, most: float) -> Iterator[list[int]]:
        """Parameters of one dtype, up to `most` bytes, about in the order in which backward completes them."""
        numbers: list[int] = []
        size = 0
        for i in reversed(range(len(self.parameters))):
            p = self.parameters[i]
            nbytes = p.numel() * p.dtype.itemsize
            if numbers and (size + nbytes > most or p.dtype != self.parameters[numbers[0]].dtype):
                yield numbers
                numbers, size = [], 0
            numbers.append(i)
            size += nbytes
        yield numbers

    def begin(self) -> None:
        """Before a forward pass. Several may come before one backward."""
        if 0 < len(self.pending) < len(self.parameters):
            missing = ", ".join([self.names[i] for i in sorted(self.pending)])
            raise RuntimeError(f"[DistributedDataParallel] in the last backward no gradient came for {missing}; use "
                               "all parameters in the loss, pass find_unused_parameters=True, or freeze them before "
                               "the module is wrapped")
        if not self.pending:
            self.unused = set(range(len(self.parameters))) if self.find_unused else set()
            self._expect()

    def _expect(self) -> None:
        """Waits for the gradients of all parameters, newly."""
        self.pending = set(range(len(self.parameters)))
        self.started = 0
        for bucket in self.buckets:
            bucket.left = len(bucket.numbers)

    def look(self, outputs: Any) -> None:
        """After a forward pass, with `find_unused`: where no output depends on a parameter, backward comes to none."""
        if self.unused:
            used = _leaves_of(outputs)
            self.unused -= {i for i in self.unused if id(self.parameters[i]) in used}
            if len(self.unused) == len(self.parameters):
                self._put(self.unused)

    def _complete(self, i: int, parameter: Tensor) -> None:
        """The gradient of a parameter is complete. A backward without a forward pass of its own counts as well."""
        if not self.on:
            return
        if not self.pending:
            self._expect()
        if len(self.pending) == len(self.parameters):
            self._put(self.unused)
        if i not in self.pending:
            raise RuntimeError(f"[DistributedDataParallel] a second gradient came for {self.names[i]} before all "
                               "others had come, or no output depends on it; let each backward pass come to all "
                               "parameters, or add gradients up within no_sync()")
        self._put([i])

    @no_grad()
    def _put(self, numbers: Iterable[int]) -> None:
        """Puts gradients into their buckets, starts the buckets that are full, and ends with the last."""
        for i in numbers:
            (bucket, view), grad = self.places[i], self.parameters[i].grad
            if grad is None:
                view.zero_()
            elif grad is not view:
                view.copy_(grad)
            self.parameters[i].grad = view      # frees the other: a captured step has the product write to the bucket
            self.pending.discard(i)
            bucket.left -= 1
        while self.started < len(self.buckets) and not self.buckets[self.started].left:     # one order in all processes
            self.buckets[self.started].start()
            self.started += 1
        if not self.pending:
            for bucket in self.buckets:
                bucket.finish()


class DistributedDataParallel(Module):
    """Trains `module` in all processes of `minigrad.distributed`, each on its share of the batch: `backward` leaves the
    mean of all processes' gradients in `.grad`. Names in a state dict begin with "module.".

    Parameters and buffers begin as those of process 0. Gradients are copied into buckets of `bucket_cap_mb` as soon as
    each is complete; a full bucket is reduced while backward goes on with the layers before (Li et al. 2020, "PyTorch
    Distributed", section 3.2), and `.grad` is then a view of it. With `broadcast_buffers` a forward pass in training
    begins with the buffers of process 0 (running statistics).

    Every parameter must get a gradient, or the next forward pass raises RuntimeError and names those that got none;
    with `find_unused_parameters` those that the output does not depend on count as zero. NotImplementedError for a
    module on another device than that of the process group.

    >>> model = nn.parallel.DistributedDataParallel(model)
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                 dim: int = 0, broadcast_buffers: bool = True, init_sync: bool = True, process_group: None = None,
                 bucket_cap_mb: float | None = None, find_unused_parameters: bool = False,
                 check_reduction: bool = False, gradient_as_bucket_view: bool = True,
                 static_graph: bool = False) -> None:
        super().__init__()
        if process_group is not None:
            raise NotImplementedError("[DistributedDataParallel] the group is that of all processes; "
                                      "leave process_group out")
        device = joined().device
        if ([open_device(i) for i in device_ids or ()] not in ([], [device])
                or any([t.device != device for t in (*module.parameters(), *module.buffers())])):
            raise NotImplementedError(f"[DistributedDataParallel] the module must be on {device}, the device of this "
                                      f"process with the backend {joined().name!r}")
        self.module, self.dim, self.broadcast_buffers = module, dim, broadcast_buffers
        self.find_unused_parameters, self.bucket_cap_mb = find_unused_parameters, bucket_cap_mb
        if not any([p.requires_grad for p in module.parameters()]):
            raise RuntimeError("DistributedDataParallel is not needed when a module doesn't have any parameter that "
                               "requires a gradient.")
        joined().agree("DistributedDataParallel of " + ", ".join(
            [f"{name} {p.dtype}{list(p.shape)}" for name, p in module.named_parameters()]))
        self._reducer: _Reducer | None = None       # not in one process
        if joined().size > 1:
            if init_sync:
                broadcast_all((*module.parameters(), *module.buffers()))
            self._reducer = self._reduces()

    def _reduces(self, shared: bool = True) -> _Reducer:
        most = (25 if self.bucket_cap_mb is None else self.bucket_cap_mb) * 2**20
        return _Reducer([(name, p) for name, p in self.module.named_parameters() if p.requires_grad], most,
                        self.find_unused_parameters, shared)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes: it has hooks and buckets of its own."""
        return {**self.__dict__, "_reducer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if joined().size > 1:
            self._reducer = self._reduces(shared=False)     # one process may make a copy without the others

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What `module` gives."""
        reducer = self._reducer
        if reducer is None or not reducer.on:
            return self.module(*inputs, **kwargs)
        if is_grad_enabled():
            reducer.begin()
        if self.broadcast_buffers and self.training:
            broadcast_all(self.module.buffers())
        outputs = self.module(*inputs, **kwargs)
        if self.find_unused_parameters and is_grad_enabled():
            reducer.look(outputs)
        return outputs

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it gradients are only added up in each process; the next backward outside averages the sums."""
        reducer = self._reducer
        if reducer is None:
            yield
            return
        before, reducer.on = reducer.on, False
        try:
            yield
        finally:
            reducer.on = before
