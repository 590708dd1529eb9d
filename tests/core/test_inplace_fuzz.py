"""Random programs of views and in-place changes: against pure operations, and against torch where it is installed."""
from __future__ import annotations

import numpy as np
import pytest
from inplace_programs import Twin, loss, needs, program, step

import minigrad as mg


def attempt(run):
    """The error of a call, or None."""
    try:
        run()
    except (RuntimeError, IndexError) as error:
        return error
    return None


def backward(m, env, reads, leaves=()):
    """Fills the gradients; with `leaves`, those of the squared first derivatives are added: second derivatives."""
    total = loss(m, env, reads)
    if not total.requires_grad:
        return
    total.backward(retain_graph=bool(leaves))
    if leaves:
        first = [g for g in m.autograd.grad(total, leaves, create_graph=True, allow_unused=True) if g is not None]
        second = sum((g * g).sum() for g in first)
        if first and second.requires_grad:
            second.backward()


def same(a, b):
    return (a is None) == (b is None) and (a is None or np.allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-8, atol=1e-10))


def against_twin(seed):
    """Was the program's gradient compared? It is not if a saved tensor was changed, which backward refuses."""
    code, reads = program(seed, grad_modes=False)
    env, twin = {}, Twin(mg)
    leaves = [name for name, action, *_ in code if action == "leaf"]
    pure = {}
    for name, action, source, args in code:
        if any(n not in env for n in needs(action, source, args)):
            continue
        error = attempt(lambda ins=(name, action, source, args): step(mg, env, *ins, mg.no_grad))
        if error is not None:
            assert "leaf Variable that requires grad" in str(error) or "view" in str(error), error
            continue
        if action == "leaf":
            pure[name] = mg.tensor(args[0], requires_grad=args[1])
            twin.new(name, pure[name])
        else:
            twin.step(name, action, source, args)
        for n in env:
            assert same(env[n], twin[n]), (seed, n, name, action, args)
            assert env[n].requires_grad == twin[n].requires_grad, (seed, n)
    reads = [n for n in reads if n in env]
    asked = [env[n] for n in leaves if env[n].is_leaf and env[n].requires_grad]
    error = attempt(lambda: backward(mg, env, reads, asked)) if reads else None
    if error is not None:
        assert STALE in str(error), error
        return False
    if reads:
        backward(mg, twin, reads, [pure[n] for n in leaves if env[n].is_leaf and env[n].requires_grad])
    for n in leaves:
        if env[n].is_leaf:
            assert same(env[n].grad, pure[n].grad), (seed, n, env[n].grad, pure[n].grad)
    return True


@pytest.mark.parametrize("start", [0, pytest.param(1000, marks=pytest.mark.slow)])
def test_against_pure_operations(start):
    count = 25 if start == 0 else 200
    assert sum(against_twin(seed) for seed in range(start, start + count)) > count / 2


STALE = "modified by an inplace operation"
LATE = "its base or another view of its base has been modified inplace"      # torch refuses the use, minigrad the backward


def against_torch(torch, seed):
    """Was the program's gradient compared?"""
    code, reads = program(seed)
    ours, theirs = {}, {}
    for name, action, source, args in code:
        if any(n not in ours or n not in theirs for n in needs(action, source, args)):
            continue
        if action == "quiet_view" and theirs[source].requires_grad or action == "view" and args[0] == "flat":
            continue                            # a view made under no_grad requires a gradient there; other strides
        if source is not None:
            attempt(lambda t=theirs[source]: t.grad_fn)         # torch checks a view before it is up to date
        ins = (name, action, source, args)
        mine, other = attempt(lambda i=ins: step(mg, ours, *i, mg.no_grad)), attempt(lambda i=ins: step(torch, theirs, *i, torch.no_grad))
        if LATE in str(other):
            return False
        assert (mine is None) == (other is None), (seed, ins, mine, other)
        for n in ours:
            if n in theirs:
                assert same(ours[n], theirs[n]), (seed, n, ins)
    reads = [n for n in reads if n in ours and n in theirs]
    if not reads:
        return False
    mine, other = attempt(lambda: backward(mg, ours, reads)), attempt(lambda: backward(torch, theirs, reads))
    assert mine is None or other is not None, (seed, mine)
    if other is not None:
        assert mine is not None or STALE in str(other) or LATE in str(other), (seed, other)
        return False
    for n in ours:
        if n in theirs and attempt(lambda t=theirs[n]: t.grad_fn) is None and ours[n].is_leaf and theirs[n].is_leaf:
            assert same(ours[n].grad, theirs[n].grad), (seed, n)
    return True


@pytest.mark.slow
def test_against_torch(torch):
    assert sum(against_torch(torch, seed) for seed in range(100)) > 50
