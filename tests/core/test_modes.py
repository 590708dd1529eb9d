"""The switches of a thread: recording as a `with` block and as a decorator of every kind of function."""
from __future__ import annotations

import asyncio
import dis
import inspect
import itertools
import sys

import pytest

import minigrad as mg
from minigrad.core import modes

on = mg.is_grad_enabled
SWITCHES = [(mg.no_grad, False), (mg.no_grad(), False), (mg.inference_mode, False), (mg.inference_mode(), False),
            (mg.inference_mode(mode=True), False), (mg.enable_grad, True), (mg.enable_grad(), True), (mg.inference_mode(False), True)]


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("switch, inside", SWITCHES)
def test_a_decorated_generator_runs_with_its_own_recording(switch, inside, outside):
    log = []

    @switch
    def numbers(n):
        """Counts."""
        try:
            for i in range(n):
                try:
                    log.append((yield i, on()))
                except ValueError as error:
                    log.append(str(error))
                log.append(on())
        finally:
            log.append(("end", on()))
        return "done"

    def delegating():
        log.append((yield from numbers(1)))
    assert inspect.isgeneratorfunction(numbers) and numbers.__doc__ == "Counts." and numbers.__name__ == "numbers"
    with mg.set_grad_enabled(outside):
        for _, seen in numbers(2):
            assert seen is inside and on() is outside
        assert log == [None, inside, None, inside, ("end", inside)]
        log.clear()
        g = numbers(3)
        assert next(g) == (0, inside) and g.send("hello") == (1, inside) and g.throw(ValueError("no")) == (2, inside) and on() is outside
        g.close()
        assert log == ["hello", inside, "no", inside, ("end", inside)] and on() is outside
        with pytest.raises(StopIteration):
            next(g)
        g = numbers(1)
        next(g)
        with pytest.raises(KeyError):
            g.throw(KeyError)
        assert on() is outside
        log.clear()
        assert list(delegating()) == [(0, inside)] and log[-1] == "done"


def test_set_grad_enabled_as_a_decorator_of_a_generator():
    @mg.set_grad_enabled(False)
    def steps():
        yield on()
        with mg.enable_grad():
            yield on()
            yield on()                          # what the body switched is back in its next step
        yield on()
    assert on()
    seen = []
    for step in steps():
        seen.append(step)
        assert on()
    assert seen == [False, True, True, False]


@pytest.mark.parametrize("switch, inside", [*SWITCHES, (mg.set_grad_enabled(mode=True), True)])
def test_decorated_coroutines_and_async_generators(switch, inside):
    log = []

    async def pause():
        await asyncio.sleep(0)

    @switch
    async def work(n):
        for _ in range(2):
            log.append(on())
            await pause()
        log.append(on())
        return n

    @switch
    async def stream():
        try:
            for i in range(3):
                got = yield i, on()
                await pause()
                if got:
                    log.append((got, on()))
        finally:
            log.append(("end", on()))

    async def main():
        async def beside():
            for _ in range(4):
                assert on() is outside
                await pause()
        outside = on()
        results = await asyncio.gather(work(1), beside(), work(2))
        assert results == [1, None, 2] and log == [inside] * 6
        log.clear()
        async for _, seen in stream():
            assert seen is inside and on() is outside
        s = stream()
        assert await s.asend(None) == (0, inside) and await s.asend("hi") == (1, inside)
        with pytest.raises(ValueError, match="no"):
            await s.athrow(ValueError("no"))
        s = stream()
        await s.asend(None)
        await s.aclose()
        assert log == [("end", inside), ("hi", inside), ("end", inside), ("end", inside)] and on() is outside
        task = asyncio.ensure_future(work(3))
        await pause()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert on() is outside
    for outside in (True, False):
        log.clear()
        with mg.set_grad_enabled(outside):
            asyncio.run(main())
    assert inspect.iscoroutinefunction(work) and inspect.isasyncgenfunction(stream)


def test_classes_and_wrong_arguments():
    class Model:
        def __init__(self):
            self.seen = on()
    with pytest.warns(FutureWarning, match=r"\[no_grad\] .*of the class Model"):
        made = mg.no_grad()(Model)
    assert made().seen is False and on()
    for wrong in (lambda: mg.no_grad(True), lambda: mg.enable_grad(5), lambda: mg.no_grad()(5), lambda: mg.set_grad_enabled(lambda: 0), lambda: mg.set_grad_enabled(0)):
        with pytest.raises(TypeError, match=r"\[(no_grad|enable_grad|set_grad_enabled)\]"):
            wrong()
        assert on()


def test_one_switch_may_be_entered_again():
    switch = mg.no_grad()
    with switch:
        with switch:
            assert not on()
        assert not on()
    assert on()
    switch = mg.set_grad_enabled(mode=False)
    assert not on()
    with switch:
        with switch:
            assert not on()
        assert not on()
    assert on()
    with switch:
        assert not on()
    assert on()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bytecode of another Python")
@pytest.mark.parametrize("switch", [mg.no_grad, mg.inference_mode, mg.enable_grad])
def test_an_interrupt_while_recording_is_switched(switch):
    """CPython looks for signals after each call of a C function: there an interrupt comes, at one place after another."""
    def block():
        with switch():
            pass
    code = modes.set_recording.__code__
    steps = [i for i in dis.get_instructions(code) if i.opname != "CACHE"]
    points = {b.offset for a, b in itertools.pairwise(steps) if a.opname == "CALL"}
    for n in itertools.count(1):
        seen = 0

        def trace(frame, event, arg, n=n):
            nonlocal seen
            frame.f_trace_opcodes = True
            if event == "opcode" and frame.f_code is code and frame.f_lasti in points:
                seen += 1
                if seen == n:
                    raise KeyboardInterrupt
            return trace
        sys.settrace(trace)
        try:
            block()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert mg.is_grad_enabled() and (mg.ones(1, requires_grad=True) * 2).requires_grad, f"after the interrupt {n}"
        with mg.no_grad():
            assert not (mg.ones(1, requires_grad=True) * 2).requires_grad
        assert not modes.paused
        if seen < n:
            break
    assert n > 4 or switch is mg.enable_grad
