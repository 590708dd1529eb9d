"""Functions whose body runs in another state of a switch, whatever kind of function they are. `no_grad` and its
relatives (`modes.py`) and `autocast` (`amp.py`) are such decorators.
"""
from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import coroutine
from typing import Any, TypeAlias

Switch: TypeAlias = Callable[[Any], Any]            # sets the state, and returns what it was


class _Steps:
    """Runs a generator, coroutine or async generator step by step in a state of its own: between two steps the caller's
    holds again, and what the body itself switched (`with enable_grad(): yield`) is back in its next step."""

    def __init__(self, inside: Any, switch: Switch) -> None:
        self.inside, self.switch = inside, switch

    def step(self, advance: Callable[..., Any], value: Any) -> Any:
        """Runs the body to its next yield or await."""
        outside = self.switch(self.inside)
        try:
            return advance(value)
        finally:
            self.inside = self.switch(outside)

    def run(self, body: Any) -> Generator[Any, Any, Any]:
        """A generator that behaves as `body`, a generator or what is awaited: values, errors and `close` go through."""
        advance, value = body.send, None
        while True:
            try:
                out = self.step(advance, value)
            except StopIteration as end:
                return end.value
            try:
                advance, value = body.send, (yield out)
            except GeneratorExit:
                self.step(lambda _: body.close(), None)
                raise
            except BaseException as error:
                advance, value = body.throw, error

    @coroutine
    def awaited(self, body: Any) -> Generator[Any, Any, Any]:
        """An awaitable that does the same."""
        return (yield from self.run(body))


def decorated(function: Callable[..., Any], inside: Any, switch: Switch) -> Callable[..., Any]:
    """A function of the same kind (plain, generator, async, async generator) whose body runs in the state `inside`."""
    if iscoroutinefunction(function):
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _Steps(inside, switch).awaited(function(*args, **kwargs))
        return run_coroutine
    if isasyncgenfunction(function):
        async def run_stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            steps, body = _Steps(inside, switch), function(*args, **kwargs)
            advance, value = body.asend, None
            while True:
                try:
                    out = await steps.awaited(advance(value))
                except StopAsyncIteration:
                    return
                try:
                    advance, value = body.asend, (yield out)
                except GeneratorExit:
                    await steps.awaited(body.aclose())
                    raise
                except BaseException as error:
                    advance, value = body.athrow, error
        return run_stream
    if isgeneratorfunction(function):
        def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _Steps(inside, switch).run(function(*args, **kwargs)))
        return run_generator

    def run(*args: Any, **kwargs: Any) -> Any:
        before = switch(inside)
        try:
            return function(*args, **kwargs)
        finally:
            switch(before)
    return run
