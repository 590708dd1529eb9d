"""`torch.cuda` and `torch.accelerator` beside `minigrad.cuda`: old names of tensors, and what is not counted."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from ..core.shape import fail
from ..cuda import (
    current_device,
    device_count,
    is_available,
    memory_allocated,
    memory_reserved,
    set_device,
    synchronize,
)
from ..devices import device as device_of
from ..devices.usage import OutOfMemoryError as OutOfMemoryError
from ..ops.random import default_generator
from .types import tensor_type


def __getattr__(name: str) -> Any:
    """`FloatTensor` and the like, on a GPU; is there one."""
    if name == "_initialized":
        return is_available()
    return tensor_type(name, "cuda")


class Event:
    """A moment. `record` waits for the GPU, if there is one."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        """Takes the moment."""
        self.synchronize()
        self._at = perf_counter()

    def synchronize(self) -> None:
        """Waits for the GPU."""
        if is_available():
            synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this moment to another."""
        return 1e3 * (end_event._at - self._at)


class Stream:
    """An order of launches. minigrad has one for each GPU: streams need not wait for each other."""

    def __init__(self, device: Any = None, priority: int = 0, **options: Any) -> None:
        self.device = device

    def wait_stream(self, stream: Any) -> None:
        """Nothing: launches run in the order of the program."""

    wait_event = record_event = wait_stream

    def synchronize(self) -> None:
        """Waits for the GPU."""
        if is_available():
            synchronize()


@contextmanager
def stream(stream: Any) -> Iterator[None]:
    """A block that changes nothing."""
    yield


def current_stream(device: Any = None) -> Stream:
    """The order of launches of a GPU."""
    return Stream(device)


default_stream = current_stream


def get_rng_state(device: Any = "cuda") -> Any:
    """The state of a GPU's random numbers."""
    return default_generator(device_of(device)).get_state()


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Puts back what `get_rng_state` gave."""
    default_generator(device_of(device)).set_state(new_state)


def get_rng_state_all() -> list[Any]:
    """The states of all GPUs' random numbers."""
    return [get_rng_state(f"cuda:{gpu}") for gpu in range(device_count())]


def set_rng_state_all(new_states: Any) -> None:
    """Puts back what `get_rng_state_all` gave."""
    for gpu, state in enumerate(new_states):
        set_rng_state(state, f"cuda:{gpu}")


@contextmanager
def device(device: Any) -> Iterator[None]:
    """A block in which another GPU is the current one; without a GPU it changes nothing."""
    if not is_available():
        yield
        return
    before = current_device()
    set_device(device)
    try:
        yield
    finally:
        set_device(before)


def max_memory_allocated(device: Any = None) -> int:
    """0 where there is no GPU; NotImplementedError where there is one: the most that was in use is not counted."""
    if is_available():
        fail("cuda.max_memory_allocated", "the most memory that was in use is not counted", "",
             "torch.cuda.memory_allocated() tells what is in use", NotImplementedError)
    return 0


max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing: the most memory that was in use is not counted."""


reset_max_memory_allocated = reset_peak_memory_stats


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The bytes in use and those taken from the driver, in two lines."""
    return f"allocated: {memory_allocated(device)} bytes\nreserved: {memory_reserved(device)} bytes"


def init() -> None:
    """Nothing: a GPU is opened when it is first used."""


def is_initialized() -> bool:
    """True where there is a GPU."""
    return is_available()


def ipc_collect() -> None:
    """Nothing: minigrad shares no memory between processes."""


# ---- torch.accelerator ----

current_device_index, set_device_index = current_device, set_device


def current_accelerator(check_available: bool = False) -> Any:
    """The GPU as a device, None without one."""
    return device_of("cuda") if is_available() else None
