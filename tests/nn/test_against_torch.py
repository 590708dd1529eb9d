"""PyTorch as the outside judge of the layers: each sample of its module database.

Same state dict, same outputs and gradients, same text, and what it refuses is refused.
"""
from __future__ import annotations

import numpy as np
import pytest
from torch_samples import MODULES, OTHER, Unsupported, close, compare_gradients, find, flat_outputs, tensors_in, to_ours

import minigrad as mg

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_module(torch, name, training):
    """Same state dict, same outputs and gradients (float64) after copying the parameters; same string."""
    info, kind, ran = MODULES[name], find(name), 0
    for i, sample in enumerate(info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)):
        made, called = sample.constructor_input, sample.forward_input
        try:
            arguments, options = to_ours(made.args), to_ours(made.kwargs)
            inputs, named = to_ours(called.args, True), to_ours(called.kwargs, True)
        except Unsupported:
            continue
        where = f"{name} sample {i} {made.args} {made.kwargs}"
        torch.manual_seed(0)
        theirs = info.module_cls(*made.args, **made.kwargs).double().train(training)
        ours = kind(*arguments, **options).double().train(training)
        if "Lazy" in name:                              # the first call gives the parameters their shapes
            theirs(*called.args, **called.kwargs), ours(*inputs, **named)
        state, mine = theirs.state_dict(), ours.state_dict()
        assert list(mine) == list(state), f"{where}: state dict {list(mine)}, torch {list(state)}"
        assert [tuple(t.shape) for t in mine.values()] == [tuple(t.shape) for t in state.values()], where
        assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear"), where
        ours.load_state_dict({k: mg.tensor(v.numpy()) for k, v in state.items()})
        if name in OTHER or "Dropout" in name and training:
            continue
        want, got = theirs(*called.args, **called.kwargs), ours(*inputs, **named)
        close(got, want, where, {"float64": 1e-8})
        for (k, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            np.testing.assert_allclose(a.numpy(force=True), b.numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{where}: {k} after the call")
        roots, mine_roots = flat_outputs(want), flat_outputs(got)
        if roots:
            sum((t * t).sum() for t in roots).backward()
            sum((t * t).sum() for t in mine_roots).backward()
            for (k, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                assert (p.grad is None) == (q.grad is None), f"{where}: {k}"
                if q.grad is not None:
                    np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6, atol=1e-8, err_msg=f"{where}: gradient of {k}")
            pairs = zip(tensors_in((inputs, named)), tensors_in((called.args, called.kwargs)), strict=True)
            leaves = [(a, b) for a, b in pairs if isinstance(b, torch.Tensor) and b.requires_grad and b.is_leaf]
            compare_gradients([a.grad for a, _ in leaves], [b.grad for _, b in leaves], f"{where}: gradient of the input")
        ran += 1
    if not ran:
        pytest.skip("no sample applies")


@pytest.mark.parametrize("name", [n for n, info in MODULES.items() if info.module_error_inputs_func is not None])
def test_module_refusals(torch, name):
    info, kind, ran = MODULES[name], find(name), 0
    for sample in info.module_error_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=False):
        made, called = sample.module_error_input.constructor_input, sample.module_error_input.forward_input

        def attempt(kind, convert, made=made, called=called):
            arguments = convert(made.args), convert(made.kwargs), convert(called.args if called else ()), convert(called.kwargs if called else {})
            try:
                kind(*arguments[0], **arguments[1]).double()(*arguments[2], **arguments[3])
            except Exception as error:
                return type(error)
            return None
        theirs = attempt(info.module_cls, lambda v: v)
        if theirs is not None:
            try:
                mine = attempt(kind, to_ours)
            except Unsupported:
                continue
            assert mine is not None and issubclass(mine, (theirs, ValueError, RuntimeError)), f"{name} {made.args} {made.kwargs}: {mine}, torch {theirs}"
            ran += 1
    if not ran:
        pytest.skip("no error sample applies")


@pytest.mark.parametrize(("name", "arguments", "shape"), [("Flatten", (), (2, 3, 4)), ("Flatten", (0, 1), (2, 3, 4)), ("Unflatten", (1, (2, 3)), (4, 6)),
                                                          ("Identity", (), (2, 3)), ("Hardsigmoid", (), (2, 3)), ("Hardswish", (), (2, 3)),
                                                          ("PixelShuffle", (2,), (2, 8, 3, 5)), ("PixelUnshuffle", (2,), (3, 4, 6)), ("ChannelShuffle", (2,), (2, 6, 3)),
                                                          ("RReLU", (0.1, 0.3), (3, 4)), ("Dropout1d", (0.3,), (2, 3, 4)), ("Dropout3d", (0.3,), (2, 3, 4, 1, 2)),
                                                          ("AlphaDropout", (0.3, True), (3, 4)), ("FeatureAlphaDropout", (0.3,), (3, 4, 2)),
                                                          ("CosineSimilarity", (1, 1e-6), [(3, 4, 2)] * 2), ("PairwiseDistance", (1.5, 1e-5, True), [(3, 4), (1, 4)]),
                                                          ("TripletMarginLoss", (0.7, 3, 1e-5, True), [(5, 4)] * 3),
                                                          ("TripletMarginWithDistanceLoss", (), [(5, 4)] * 3)])
def test_modules_that_the_database_lacks(torch, name, arguments, shape):
    rng = np.random.default_rng(0)
    values = [rng.uniform(-4, 4, s) for s in (shape if isinstance(shape, list) else [shape])]
    ours, theirs = getattr(mg.nn, name)(*arguments).eval(), getattr(torch.nn, name)(*arguments).eval()
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    xs, ys = ([make(v, requires_grad=True) for v in values] for make in (mg.tensor, torch.tensor))
    got, want = ours(*xs), theirs(*ys)
    close(got, want, name)
    (got * got).sum().backward()
    (want * want).sum().backward()
    compare_gradients([x.grad for x in xs], [y.grad for y in ys], name)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_max_unpool(torch, dims, size):
    """The way back from `MaxPool`, and gradients; a stride of 2 leaves open whether the size was 6 or 7."""
    x = np.random.default_rng(0).permutation(2 * 3 * size**dims).reshape(2, 3, *(size,) * dims).astype(np.float64)
    found = []
    for lib, n in ((mg, mg.nn), (torch, torch.nn)):
        leaf = lib.tensor(x, requires_grad=True)
        y, index = getattr(n, f"MaxPool{dims}d")(2, return_indices=True)(leaf)
        layer = getattr(n, f"MaxUnpool{dims}d")(2)
        full, single = layer(y, index, output_size=None if size == 6 else leaf.shape), layer(y[0], index[0], output_size=[size] * dims)
        ((full * full).sum() + single.sum()).backward()
        found.append([full, single, leaf.grad, repr(layer)])
        for bad in (lambda layer=layer, y=y, index=index: layer(y, index, output_size=[20] * dims), lambda layer=layer, y=y, index=index: layer(y, index[:1]),
                    lambda layer=layer, y=y, index=index: layer(y, index + 1000)):
            with pytest.raises((ValueError, RuntimeError)):
                bad()
    assert found[0].pop() == found[1].pop()
    close(found[0], found[1], f"MaxUnpool{dims}d")
