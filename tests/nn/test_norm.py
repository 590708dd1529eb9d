"""Norm layers: `mask=`, `lengths=` and `axis=` held against runs without the padding; what batch and instance norm refuse."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, nn
from minigrad.core.op import registry
from minigrad.devices import memory
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused
from minigrad.testing import half_dtypes

RNG = np.random.default_rng(0)
N, C, L = 5, 6, 9
LENGTHS = [9, 1, 4, 7, 3]
MASK = np.arange(L) < np.array(LENGTHS)[:, None]            # (N, L)
KINDS = [np.float32, np.float64]


def padded(dtype, shape=(N, C, L), time=2):
    """Random values, and rubbish behind each sample's length."""
    x = RNG.standard_normal(shape).astype(dtype) * 2 + 1
    keep = np.moveaxis(np.broadcast_to(MASK.reshape(N, L, *[1] * (x.ndim - 2)), np.moveaxis(x, time, 1).shape), 1, time)
    return np.where(keep, x, RNG.choice([np.nan, np.inf, 1e30], shape)).astype(dtype), keep


def affine(layer):
    for p in layer.parameters():
        with mg.no_grad():
            p.copy_(mg.tensor(RNG.uniform(0.5, 2, tuple(p.shape)).astype(p.dtype)))
    return layer


def close(a, b, dtype):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5 if dtype == np.float32 else 1e-12, atol=5e-5 if dtype == np.float32 else 1e-12)


def gradients(layer, x, out, g):
    t = mg.tensor(x, requires_grad=True)
    layer.zero_grad()
    y = out(layer, t)
    y.backward(mg.tensor(g))
    return y.numpy(force=True), t.grad.numpy(), [p.grad.numpy() for p in layer.parameters()]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("how", ["mask", "lengths", "full mask"])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_batch_norm_is_that_of_the_valid_positions(dtype, how, momentum):
    x, keep = padded(dtype)
    option = {"mask": {"mask": mg.tensor(MASK)}, "lengths": {"lengths": LENGTHS}, "full mask": {"mask": mg.tensor(keep[:, :1])}}[how]
    layer, plain = (affine(nn.BatchNorm1d(C, momentum=momentum, dtype=mg.dtype(dtype))) for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    rows = np.moveaxis(x, 1, 2)[MASK]                       # (valid positions, C)
    g = RNG.standard_normal(x.shape).astype(dtype)
    for _ in range(2):
        y, gx, gp = gradients(layer, x, lambda m, t: m(t, **option), g)
        want, want_gx, want_gp = gradients(plain, rows, lambda m, t: m(t), np.moveaxis(g, 1, 2)[MASK])
        assert (y[~keep] == 0).all() and (gx[~keep] == 0).all()
        close(np.moveaxis(y, 1, 2)[MASK], want, dtype)
        close(np.moveaxis(gx, 1, 2)[MASK], want_gx, dtype)
        for a, b in zip(gp, want_gp, strict=True):
            close(a, b, dtype)
        for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
            close(a, b, dtype)
    layer.eval(), plain.eval()
    y = layer(mg.tensor(x), **option).numpy(force=True)
    assert (y[~keep] == 0).all()
    close(np.moveaxis(y, 1, 2)[MASK], plain(mg.tensor(rows)).numpy(force=True), dtype)


def test_batch_norm_of_samples_and_of_images():
    x = RNG.standard_normal((6, 3)).astype(np.float32)
    there = np.array([True, False, True, True, False, True])
    layer, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    x[~there] = np.nan
    y = layer(mg.tensor(x), mask=mg.tensor(there)).numpy(force=True)
    close(y[there], plain(mg.tensor(x[there])).numpy(force=True), np.float32)
    image = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    seen = RNG.random((2, 4, 5)) < 0.6
    layer, plain = nn.BatchNorm2d(3), nn.BatchNorm1d(3)
    y = layer(mg.tensor(image), mask=mg.tensor(seen)).numpy(force=True)
    close(np.moveaxis(y, 1, 3)[seen], plain(mg.tensor(np.moveaxis(image, 1, 3)[seen])).numpy(force=True), np.float32)
    assert (np.moveaxis(y, 1, 3)[~seen] == 0).all()
    for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
        close(a, b, np.float32)


def test_any_byte_of_a_mask_but_0_is_true():
    """NumPy's memory, which the mask shares, may be written as bytes. So small a set is normalized by the kernel."""
    x, there = RNG.standard_normal((4, 8)).astype(np.float32), RNG.random((4, 8)) < 0.6
    mask, bytes_, found = mg.from_numpy(there), there.view(np.uint8), []
    for byte in (1, 255):
        bytes_[bytes_ > 0] = byte
        t, w, b = mg.tensor(x, requires_grad=True), mg.ones(8, requires_grad=True), mg.zeros(8, requires_grad=True)
        y, *statistics = registry["valid_norm"](t, mask, w, b, axes=(1,), shape=(1, 8))
        (y * y * y).sum().backward()
        found.append([v.numpy(force=True) for v in (y, *statistics, t.grad, w.grad, b.grad)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("valid", [0, 1])
def test_too_few_values_leave_the_running_statistics(valid):
    layer = nn.BatchNorm1d(3)
    mask = np.zeros((2, 4), bool)
    mask.reshape(-1)[:valid] = True
    x = mg.tensor(RNG.standard_normal((2, 3, 4)), dtype=mg.float32, requires_grad=True)
    y = layer(x, mask=mg.tensor(mask))
    y.sum().backward()
    assert layer.running_mean.tolist() == [0] * 3 and layer.running_var.tolist() == [1] * 3 and layer.num_batches_tracked.item() == 1
    assert y.abs().max().item() < 1e-6 and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("make", [lambda **k: nn.InstanceNorm1d(C, affine=True, **k), lambda **k: nn.GroupNorm(3, C, **k),
                                  lambda **k: nn.GroupNorm(1, C, **k)])
@pytest.mark.parametrize("how", ["mask", "lengths", "full mask"])
def test_norms_of_each_sample(dtype, make, how):
    x, keep = padded(dtype)
    x[1, :, 1] = 0.5                                        # instance norm takes two values at least without a mask
    lengths = [9, 2, 4, 7, 3]
    mask = np.arange(L) < np.array(lengths)[:, None]
    option = {"mask": {"mask": mg.tensor(mask)}, "lengths": {"lengths": mg.tensor(lengths)},
              "full mask": {"mask": mg.tensor(np.repeat(mask[:, None], C, 1))}}[how]
    layer = affine(make(dtype=mg.dtype(dtype)))
    g = RNG.standard_normal(x.shape).astype(dtype)
    y, gx, gp = gradients(layer, x, lambda m, t: m(t, **option), g)
    total = None
    for i, n in enumerate(lengths):
        want, want_gx, want_gp = gradients(layer, x[i:i + 1, :, :n], lambda m, t: m(t), g[i:i + 1, :, :n])
        close(y[i:i + 1, :, :n], want, dtype)
        close(gx[i:i + 1, :, :n], want_gx, dtype)
        assert (y[i, :, n:] == 0).all() and (gx[i, :, n:] == 0).all()
        total = want_gp if total is None else [a + b for a, b in zip(total, want_gp, strict=True)]
    for a, b in zip(gp, total, strict=True):
        close(a, b, dtype)


def test_instance_norm_running_statistics():
    x = RNG.standard_normal((3, C, L)).astype(np.float32)
    lengths = [9, 9, 1]                                     # the last has no variance
    layer, plain = (nn.InstanceNorm1d(C, track_running_stats=True) for _ in range(2))
    layer(mg.tensor(x), lengths=lengths)
    plain(mg.tensor(x[:2]))
    for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
        close(a, b, np.float32)
    layer.eval(), plain.eval()
    close(layer(mg.tensor(x), lengths=lengths).numpy()[:2], plain(mg.tensor(x[:2])).numpy(), np.float32)
    single = nn.InstanceNorm1d(C)
    y = single(mg.tensor(x[0]), mask=mg.tensor(np.arange(L) < 4)).numpy()
    close(y[:, :4], single(mg.tensor(x[0][:, :4])).numpy(), np.float32)


@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("how", ["mask", "lengths", "full mask"])
def test_layer_norm_of_valid_positions_has_the_same_bits(layer, how):
    x, _ = padded(np.float32, (N, L, C), 1)
    layer = affine(layer(C))
    option = {"mask": {"mask": mg.tensor(MASK)}, "lengths": {"lengths": LENGTHS}, "full mask": {"mask": mg.tensor(MASK[..., None])}}[how]
    g = RNG.standard_normal(x.shape).astype(np.float32)
    y, gx, gp = gradients(layer, x, lambda m, t: m(t, **option), g)
    want, want_gx, want_gp = gradients(layer, x[MASK], lambda m, t: m(t), g[MASK])
    assert np.array_equal(y[MASK], want) and np.array_equal(gx[MASK], want_gx) and (y[~MASK] == 0).all() and (gx[~MASK] == 0).all()
    for a, b in zip(gp, want_gp, strict=True):
        close(a, b, np.float32)


@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.RMSNorm])
def test_layer_norm_with_a_mask_over_the_features(layer):
    x = RNG.standard_normal((4, C, 3))
    there = RNG.random((4, C, 3)) < 0.7
    there[1, :, 2] = False                                  # nothing there
    layer = affine(layer(C, axis=1, dtype=mg.float64))
    y = layer(mg.tensor(x), mask=mg.tensor(there)).numpy(force=True)
    assert (y[~there] == 0).all()
    for n in range(4):
        for k in range(3):
            m = there[n, :, k]
            if m.any():
                v = x[n, m, k]
                centre = v - v.mean() if isinstance(layer, nn.LayerNorm) else v
                eps = layer.eps if layer.eps is not None else np.finfo(np.float64).eps
                want = centre / np.sqrt((centre ** 2).mean() + eps) * layer.weight.numpy(force=True)[m]
                close(y[n, m, k], want + (layer.bias.numpy(force=True)[m] if layer.bias is not None else 0), np.float64)


# ---- axis ----

@pytest.mark.parametrize("axis, shape", [(1, (4, C, 5)), (-1, (4, 5, C)), (2, (4, 5, C)), (0, (C, 4, 5)), (-2, (4, C, 5)), (-1, (7, C))])
def test_batch_norm_axis(axis, shape):
    layer, plain = (affine(nn.BatchNorm1d(C, axis=a)) for a in (axis, 1))
    plain.load_state_dict(layer.state_dict())
    x, g = (RNG.standard_normal(shape).astype(np.float32) for _ in range(2))
    mask = RNG.random([n for i, n in enumerate(shape) if i != axis % len(shape)]) < 0.7
    for option in ({}, {"mask": mg.tensor(mask)}):
        if option and axis == 0:
            move = {"mask": mg.tensor(np.moveaxis(mask[None], 0, 1)[:, 0] if mask.ndim == 2 else mask)}
        else:
            move = option
        y, gx, gp = gradients(layer, x, lambda m, t, o=option: m(t, **o), g)
        want, want_gx, want_gp = gradients(plain, np.moveaxis(x, axis, 1), lambda m, t, o=move: m(t, **o), np.moveaxis(g, axis, 1))
        close(np.moveaxis(y, axis, 1), want, np.float32)
        close(np.moveaxis(gx, axis, 1), want_gx, np.float32)
        for a, b in zip([*gp, *layer.buffers()], [*want_gp, *plain.buffers()], strict=True):
            close(a, b, np.float32)
    layer.eval(), plain.eval()
    close(np.moveaxis(layer(mg.tensor(x)).numpy(force=True), axis, 1), plain(mg.tensor(np.moveaxis(x, axis, 1).copy())).numpy(force=True), np.float32)
    assert ("axis" in repr(layer)) == (axis != 1)


def test_channels_last_does_not_transpose():
    from minigrad import study
    layer = nn.BatchNorm1d(C, axis=-1)
    assert not [k for k in study.launches(layer, mg.randn(4, 5, C)) if "copy" in k]


@pytest.mark.parametrize("axis, normalized", [(1, (C,)), (-1, (3,)), ((1, 2), (C, 4)), ((2, 1), (4, C)), ((-2, -1), (4, 3)), ((3, 1), (3, C))])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_layer_norm_axis(axis, normalized, kind):
    layer, plain = affine(kind(normalized, axis=axis)), kind(normalized)
    plain.load_state_dict(layer.state_dict())
    x, g = (RNG.standard_normal((2, C, 4, 3)).astype(np.float32) for _ in range(2))
    ends = axis if isinstance(axis, tuple) else (axis,)
    to = tuple(range(-len(ends), 0))
    y, gx, gp = gradients(layer, x, lambda m, t: m(t), g)
    want, want_gx, want_gp = gradients(plain, np.moveaxis(x, ends, to), lambda m, t: m(t), np.moveaxis(g, ends, to))
    close(np.moveaxis(y, ends, to), want, np.float32)
    close(np.moveaxis(gx, ends, to), want_gx, np.float32)
    for a, b in zip(gp, want_gp, strict=True):
        close(a, b, np.float32)


@pytest.mark.parametrize("length", [5, 33])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_bits_of_a_sample_do_not_depend_on_the_batch(groups, length):
    """With a mask, one sample of one group, too; sets of up to 32 elements and larger ones may run differently."""
    x, w, b = (mg.tensor(RNG.standard_normal(shape).astype(np.float32) * 3 + 1, requires_grad=True) for shape in ((3, 4, length), 4, 4))
    mask = mg.tensor(RNG.random((3, 1, length)) > 0.3)
    found = []
    for n in (3, 1):
        y = F.group_norm(x[:n], groups, w, b, mask=mask[:n])[:1]
        found.append((y.numpy(force=True).tobytes(), autograd.grad((y * y).sum(), x)[0][:1].numpy().tobytes()))
    assert found[0] == found[1]


def test_derivatives_of_any_order():
    mask = mg.tensor(MASK[:3, :5])
    x = mg.tensor(RNG.standard_normal((3, 2, 5)), requires_grad=True)
    w = mg.tensor(RNG.standard_normal(2), requires_grad=True)
    for f in (lambda x, w: F.batch_norm(x, None, None, w, None, True, mask=mask), lambda x, w: F.instance_norm(x, weight=w, mask=mask, eps=0.1),
              lambda x, w: F.group_norm(x, 1, w, None, mask=mask), lambda x, w: F.layer_norm(x, 2, w, axis=1, mask=mask, eps=0.1)):
        assert autograd.gradcheck(f, (x, w)) and autograd.gradgradcheck(f, (x, w))


def test_capture():
    runs = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        norm, layer = nn.BatchNorm1d(C), nn.Linear(C, C)

        def step(x, mask, lengths, norm=norm, layer=layer):
            layer.zero_grad()
            loss = (norm(layer(norm(x, mask=mask).transpose(1, 2)).transpose(1, 2), lengths=lengths) ** 2).sum()
            loss.backward()
            with mg.no_grad():
                layer.weight.sub_(layer.weight.grad * 0.01)
            return loss
        step = wrap(step)
        values = []
        for i in range(6):
            lengths = np.roll(LENGTHS, i)
            x = np.random.default_rng(i).standard_normal((N, C, L)).astype(np.float32)
            values.append(step(mg.tensor(x), mg.tensor(np.arange(L) < lengths[:, None]), mg.tensor(lengths)).item())
        runs.append((values, [b.numpy().tobytes() for b in norm.buffers()]))
    assert runs[0] == runs[1]
    with pytest.raises(ValueError, match="lengths must be from 0 to 9"):        # checked at each replay
        step(mg.tensor(x), mg.tensor(MASK), mg.tensor([10, 1, 1, 1, 1]))


def test_errors():
    x = mg.zeros(2, 3, 4)
    norm, layer = nn.BatchNorm1d(3), nn.LayerNorm(4)
    cases = [
        (lambda: norm(x, mask=mg.ones(2, 4)), TypeError, r"\[batch_norm\] mask must be a bool tensor.*float32\[2, 4\]"),
        (lambda: norm(x, mask=np.ones((2, 4), bool)), TypeError, "got ndarray"),
        (lambda: norm(x, mask=mg.ones(2, 3, dtype=mg.bool)), RuntimeError, r"a value for each position.*mask \[2, 3\], expected \[2, 4\]"),
        (lambda: norm(x, mask=mg.ones(2, dtype=mg.bool)), RuntimeError, r"mask \[2\]"),
        (lambda: norm(x, mask=mg.ones(2, 4, dtype=mg.bool), lengths=[1, 2]), ValueError, "mask= or lengths=; got both"),
        (lambda: norm(x, lengths=[1, 5]), ValueError, r"from 0 to 4, the size of dimension 2; got 1, 5"),
        (lambda: norm(x, lengths=[-1, 2]), ValueError, "from 0 to 4"),
        (lambda: norm(x, lengths=[1, 2, 3]), RuntimeError, r"one for each of the 2 samples; got int64\[3\]"),
        (lambda: norm(x, lengths=[1.0, 2.0]), RuntimeError, "whole numbers"),
        (lambda: norm(mg.zeros(2, 3), lengths=[1, 1]), ValueError, "one dimension of positions.*pass mask="),
        (lambda: nn.BatchNorm2d(3)(mg.zeros(2, 3, 4, 4), lengths=[1, 1]), ValueError, "one dimension of positions"),
        (lambda: nn.LayerNorm((3, 4))(x, lengths=[1, 1]), ValueError, r"\[layer_norm\] lengths are for"),
        (lambda: layer(x, mask=mg.ones(2, 4, dtype=mg.bool)), RuntimeError, r"\[layer_norm\] mask must .*expected \[2, 3\]"),
        (lambda: nn.LayerNorm(3, axis=2)(x), RuntimeError, "trailing sizes"),
        (lambda: nn.LayerNorm(3, axis=(1, 2))(x), ValueError, r"one dimension for each size of normalized_shape; got axis \(1, 2\), 1 sizes"),
        (lambda: nn.LayerNorm(3, axis=3)(x), IndexError, r"\[layer_norm\] dim out of range"),
        (lambda: nn.BatchNorm1d(3, axis=5)(x), IndexError, r"\[batch_norm\] dim out of range"),
        (lambda: nn.BatchNorm1d(3, axis=-1)(x), RuntimeError, "one value per channel"),
        (lambda: nn.BatchNorm1d(3, axis=-1)(mg.zeros(1, 1, 3)), ValueError, "more than 1 value per channel"),
        (lambda: F.group_norm(x, 2, mask=mg.ones(2, 4, dtype=mg.bool)), RuntimeError, "num_groups must divide"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()
    before = norm.num_batches_tracked.item()
    assert norm(x, lengths=[0, 4]).shape == x.shape and norm.num_batches_tracked.item() == before + 1


# ---- without a mask ----

def test_batch_norm_refuses_one_value_per_channel():
    for m, x in ((nn.BatchNorm1d(3), mg.ones(1, 3)), (nn.BatchNorm2d(3), mg.ones(1, 3, 1, 1))):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            m(x)
        assert m.num_batches_tracked.item() == 0 and m.eval()(x).shape == x.shape
    m = nn.BatchNorm1d(3)
    assert m(mg.ones(0, 3)).shape == (0, 3) and m.running_var.tolist() == [1.0] * 3 and m.num_batches_tracked.item() == 1
    with pytest.raises(ValueError, match="more than 1 spatial"):
        nn.InstanceNorm1d(3)(mg.ones(2, 3, 1))
    for m, x, text in ((nn.BatchNorm1d(3), mg.ones(2, 3, 1, 1), "2D or 3D"), (nn.BatchNorm2d(3), mg.ones(2, 3), "4D"),
                       (nn.InstanceNorm2d(3), mg.ones(2, 3), "3D or 4D")):
        with pytest.raises(ValueError, match=text):
            m(x)
    with pytest.raises(ValueError, match="divisible"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ValueError, match="eps"):
        nn.BatchNorm1d(3, eps=0.0)(mg.ones(2, 3))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_batch_norm_in_eval_mode(dtype, bias):
    """The kernel for it against the definition: the op's samples ask for gradients of the statistics too, which only the definition has."""
    layer, results = affine(nn.BatchNorm1d(C, bias=bias, dtype=mg.dtype(dtype))), []
    layer(mg.tensor(RNG.standard_normal((N, C, L)).astype(dtype)))          # statistics of its own
    x, g = (RNG.standard_normal((N, C, L)).astype(dtype) for _ in range(2))
    for path in ("require", "off"):
        with set_fused(path):
            results.append(gradients(layer.eval(), x, lambda m, t: m(t), g))
    for a, b in zip([*results[0][:2], *results[0][2]], [*results[1][:2], *results[1][2]], strict=True):
        close(a, b, dtype)


def test_the_functions_of_the_package_take_pytorchs_arguments_in_its_order(torch):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(4, 6, 5)).astype("f4"), rng.normal(size=6).astype("f4"), rng.normal(size=6).astype("f4")
    calls = (lambda lib, x, w, b, mean, var: lib.layer_norm(x, (6, 5), None, None, 1e-3, False),
             lambda lib, x, w, b, mean, var: lib.layer_norm(x, [5], eps=0.1, cudnn_enable=True),
             lambda lib, x, w, b, mean, var: lib.rms_norm(x.swapaxes(1, 2), (6,), w, 1e-3),
             lambda lib, x, w, b, mean, var: lib.group_norm(x, 3, w, b, 1e-3, True),
             lambda lib, x, w, b, mean, var: lib.batch_norm(x, w, b, mean, var, True, 0.3, 1e-3, True),
             lambda lib, x, w, b, mean, var: lib.batch_norm(x, None, None, mean, var, False, 0.3, 1e-3, False),
             lambda lib, x, w, b, mean, var: lib.batch_norm(x, weight=w, bias=b, running_mean=None, running_var=None, training=True, momentum=0.1, eps=1e-5,
                                                            cudnn_enabled=True),
             lambda lib, x, w, b, mean, var: lib.instance_norm(x, w, b, mean, var, True, 0.2, 1e-3, True))
    for call in calls:
        results = []
        for lib in (mg, torch):
            mean, var = lib.zeros(6), lib.ones(6)
            results.append([call(lib, *map(lib.tensor, (x, w, b)), mean, var), mean, var])
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-5, atol=2e-5)


HALVES = half_dtypes()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_input_with_float32_parameters(dtype, training):
    """The result has the input's dtype, one rounding after that of float32; statistics and gradients of parameters are float32."""
    wide = mg.tensor((RNG.standard_normal((N, C, L)) * 300 + 100).astype(dtype).astype(np.float32))
    for layer, x in ((nn.LayerNorm(L), wide), (nn.RMSNorm(L), wide), (nn.GroupNorm(2, C), wide), (nn.BatchNorm1d(C), wide),
                     (nn.InstanceNorm1d(C, affine=True, track_running_stats=True), wide), (nn.LayerNorm(C, axis=1), wide), (nn.BatchNorm1d(L, axis=-1), wide)):
        affine(layer).train(training)
        state = {k: v.clone() for k, v in layer.state_dict().items()}
        for kwargs in ({}, {"mask": mg.tensor(MASK)}) if not getattr(layer, "axis", None) and x.shape[1] == C else ({},):
            if kwargs and isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
                kwargs = {"mask": mg.tensor(RNG.random((N, C, L)) > 0.3)}
            layer.load_state_dict(state)
            want = layer(x, **kwargs)
            after = {k: v.clone() for k, v in layer.state_dict().items()}
            layer.load_state_dict(state)
            got = layer(x.to(dtype), **kwargs)
            assert got.dtype == dtype and np.array_equal(got.float().numpy(force=True), want.to(dtype).float().numpy(force=True)), layer
            for k, v in layer.state_dict().items():
                np.testing.assert_allclose(v.numpy(), after[k].numpy(), rtol=1e-6)
            got.sum().backward()
            assert all(p.grad.dtype == np.float32 for p in layer.parameters())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_default_eps_of_rms_norm(dtype):
    """For half precision it is that of float32, as in PyTorch: that of float16 would give 0.032 here."""
    x = mg.full((2, 3), 1e-3).to(dtype)
    for y in (F.rms_norm(x, (3,)), nn.RMSNorm(3)(x), F.rms_norm(x, (2,), axis=0), mg.rms_norm(x, (3,))):
        assert y.dtype == dtype and (y == mg.tensor(0.9453125).to(dtype)).all()


NORMS = {"layer": lambda x, e: F.layer_norm(x, x.shape[1:], eps=e), "rms": lambda x, e: F.rms_norm(x, x.shape[1:], eps=e),
         "batch": lambda x, e: F.batch_norm(x, None, None, training=True, eps=e), "group": lambda x, e: F.group_norm(x, 2, eps=e),
         "instance": lambda x, e: F.instance_norm(x, eps=e),
         "masked": lambda x, e: F.layer_norm(x, x.shape[-1:], eps=e, mask=mg.ones(*x.shape[:-1], dtype=mg.bool))}


@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("name", NORMS)
def test_the_scale_does_not_matter(name, path):
    """Squares overflow from 1e19 on and vanish below 1e-23; the results and gradients are those of any other scale."""
    rng = np.random.default_rng(0)
    for shape in ((8, 6, 4), (3, 4, 300), (2, 600, 3), (2, 2, 3000)):
        values, g = rng.uniform(-1, 1, shape) + 0.3, rng.uniform(0.5, 1, shape)
        exact = mg.tensor(values, requires_grad=True)
        want = NORMS[name](exact, 1e-30)
        want.backward(mg.tensor(g))
        wide = np.finfo(np.longdouble).maxexp > 1024            # where C has a type that is wider than double
        for dtype, scales in ((np.float32, (1e-30, 1e15, 1e19, 1e25, 1e37)), (np.float64, (1e160, 1e300) * wide)):
            for scale in scales:
                x = mg.tensor((values * scale).astype(dtype), requires_grad=True)
                with set_fused(path):
                    y = NORMS[name](x, 1e-5 if scale > 1 else 1e-300)
                    y.backward(mg.tensor(g.astype(dtype)))
                np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), 2e-5, 2e-5)
                np.testing.assert_allclose(x.grad.numpy() * np.float64(scale), exact.grad.numpy(), 2e-3, 2e-4)


def test_norms_at_the_ends_of_the_range():
    x = mg.tensor([[1e20, -2e20, 3e20, -4e20]])
    want = [0.557086, -0.557086, 1.299867, -1.299867]
    assert F.layer_norm(x, (4,)).tolist()[0] == pytest.approx(want, 1e-5)
    assert F.group_norm(x, 1).tolist()[0] == pytest.approx(want, 1e-5)
    assert F.instance_norm(x[None]).tolist()[0][0] == pytest.approx(want, 1e-5)
    assert F.batch_norm(x.T, None, None, training=True).flatten().tolist() == pytest.approx(want, 1e-5)
    assert F.layer_norm(mg.full((1, 4), 3e38), (4,)).tolist() == [[0, 0, 0, 0]]
    weight = mg.tensor([1.0, 2, 3, 4], requires_grad=True)
    F.layer_norm(mg.tensor([[1.0, -2, 3, -4], [1e20, -2e20, 3e20, -4e20]]), (4,), weight, mg.zeros(4)).sum().backward()
    assert weight.grad.tolist() == pytest.approx([2 * v for v in want], 1e-5)


def test_running_statistics_of_infinite_and_of_no_elements():
    layer = nn.BatchNorm1d(1)
    layer(mg.tensor([[np.inf], [1.0]]))
    assert layer.running_mean.tolist() == [np.inf] and np.isnan(layer.running_var.item())
    for shape in ((2, 3, 0), (0, 3, 4)):
        mean, var = mg.zeros(3), mg.ones(3)
        assert F.instance_norm(mg.zeros(*shape), mean, var, use_input_stats=True).shape == shape
        assert mean.tolist() == [0, 0, 0] and var.tolist() == [1, 1, 1]


def test_instance_norm_averages_over_all_batches():
    layer = nn.InstanceNorm1d(1, track_running_stats=True, momentum=None)
    for values in ([2.0, 4.0], [4.0, 6.0], [7.0, 11.0]):
        layer(mg.tensor([[values]]))
    assert layer.running_mean.item() == pytest.approx(17 / 3) and layer.running_var.item() == pytest.approx(4)
    counted = nn.InstanceNorm1d(1, track_running_stats=True)
    counted(mg.ones(1, 1, 2))
    assert counted.num_batches_tracked.item() == 0          # as in PyTorch


def test_running_statistics_do_not_depend_on_how_many_layouts_there_were():
    values = mg.tensor(np.random.default_rng(0).standard_normal((50, 300)).astype(np.float32))
    before, after = nn.BatchNorm1d(300), nn.BatchNorm1d(300)
    before(values)
    before(values)
    after(values)
    memory._forget_unused()
    after(values)
    for a, b in zip(before.buffers(), after.buffers(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_instance_norm_of_other_channels():
    for layer in (nn.InstanceNorm2d(64, track_running_stats=True), nn.InstanceNorm2d(64, track_running_stats=True).eval(), nn.InstanceNorm2d(64, affine=True)):
        for x, dim in ((mg.ones(2, 80, 4, 4), 1), (mg.ones(80, 4, 4), 0)):
            with pytest.raises(ValueError, match=rf"size at dim={dim} to match num_features \(64\), but got: 80"):
                layer(x)
    with pytest.warns(UserWarning, match="not used because affine=False"):
        assert nn.InstanceNorm2d(64)(mg.ones(2, 80, 4, 4)).shape == (2, 80, 4, 4)
