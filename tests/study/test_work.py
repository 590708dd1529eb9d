"""Operations and bytes of kernels, counted by hand from the formulas; every kernel has a rule, or moves data only."""
from __future__ import annotations

from types import SimpleNamespace

import pytest

import minigrad as mg
import minigrad.bench
import minigrad.distributed.shared
from minigrad import nn, optim
from minigrad.devices.base import split
from minigrad.devices.native import signatures
from minigrad.devices.work import WORK
from minigrad.nn import functional as F
from minigrad.optim import together
from minigrad.study import Record
from minigrad.study.record import unseen


def test_every_kernel_has_a_rule_or_says_that_it_counts_none():
    names = {split(name)[0] for name in signatures()}
    assert names == set(WORK) - {split(kernel.name)[0] for kernel in together._kernels.values()}        # written for a GPU
    assert WORK["take"].flops is None and WORK["gemm"].flops is not None
    four = SimpleNamespace(count=4, begin=2, end=12)
    assert (WORK["average"].flops(four), WORK["average"].elements(four)) == (40, 80)


def counted(function, *args, **kwargs):
    """The operations by kernel, forward and backward."""
    with Record() as record:
        out = function(*args, **kwargs)
        out = out[0] if isinstance(out, tuple) else out
        if out.requires_grad:
            with unseen():
                ones = mg.ones_like(out)
            out.backward(ones)
    found: dict[str, list[int | None]] = {}
    for x in record.launches:
        found.setdefault(split(x.kernel)[0], []).append(x.flops)
    return found


def leaf(*shape, **options):
    return mg.randn(*shape, requires_grad=True, **options)


def test_elementwise_and_activations():
    found = counted(lambda a, b: (a * b).exp(), leaf(3, 4), leaf(4))
    assert found["mul"][0] == 12 and found["exp"] == [12] and found["mul"][1] == 12          # the gradient of exp: g * out
    found = counted(F.gelu, leaf(5, 2))
    assert found["gelu"] == [10] and found["gelu_backward"] == [20]
    assert counted(F.relu, leaf(7))["relu_backward"] == [14]
    assert counted(lambda x: x.permute(1, 0).contiguous(), leaf(2, 3))["copy"][0] is None


def test_products():
    found = counted(mg.matmul, leaf(5, 7), leaf(7, 3))
    assert found["gemm"] == [2 * 5 * 7 * 3] * 3
    assert counted(mg.matmul, leaf(4, 5, 7), leaf(4, 7, 3))["gemm"] == [2 * 4 * 5 * 7 * 3] * 3
    found = counted(F.linear, leaf(6, 4), leaf(3, 4), leaf(3))
    assert found["gemm"] == [2 * 6 * 4 * 3] * 3 and found["sum"] == [6 * 3]


@pytest.mark.parametrize("options, out, taps", [({}, (3, 4), 9), ({"stride": 2, "padding": 1}, (3, 3), 9), ({"groups": 2}, (3, 4), 9)])
def test_convolution(options, out, taps):
    groups = options.get("groups", 1)
    found = counted(F.conv2d, leaf(2, 4, 5, 6), leaf(8, 4 // groups, 3, 3), None, **options)
    flops = 2 * 2 * 8 * out[0] * out[1] * (4 // groups) * taps
    assert found == {"conv_forward": [flops], "conv_backward_input": [flops], "conv_backward_weight": [flops]}


def test_pools():
    assert counted(F.max_pool2d, leaf(2, 3, 4, 6), 2) == {"max_pool_forward": [2 * 3 * 4 * 6], "max_pool_backward": [2 * 3 * 2 * 3]}
    found = counted(F.avg_pool2d, leaf(1, 2, 5, 5), 3, stride=1)
    assert found["avg_pool_forward"] == found["avg_pool_backward"] == [2 * 9 * 9]
    assert counted(F.adaptive_avg_pool2d, leaf(1, 2, 4, 4), 2)["avg_pool_forward"] == [2 * 16]


def test_norms():
    assert counted(F.layer_norm, leaf(4, 6), (6,), leaf(6), leaf(6)) == {"layer_norm_forward": [8 * 24], "layer_norm_backward": [13 * 24]}
    assert counted(F.layer_norm, leaf(4, 6), (6,)) == {"layer_norm_forward": [6 * 24], "layer_norm_backward": [9 * 24]}
    assert counted(F.rms_norm, leaf(4, 6), (6,), leaf(6)) == {"rms_norm_forward": [4 * 24], "rms_norm_backward": [9 * 24]}
    image = (2, 4, 3, 3)
    found = counted(F.batch_norm, leaf(*image), None, None, leaf(4), leaf(4), training=True)
    assert found == {"batch_norm_forward": [8 * 72], "batch_norm_backward": [13 * 72]}
    found = counted(F.batch_norm, leaf(*image), mg.zeros(4), mg.ones(4), leaf(4), leaf(4), training=False)
    assert found == {"batch_norm_eval_forward": [4 * 72], "batch_norm_eval_backward": [7 * 72]}
    assert counted(F.group_norm, leaf(*image), 2, leaf(4), leaf(4)) == {"group_norm_forward": [8 * 72], "group_norm_backward": [13 * 72]}
    found = counted(lambda: nn.BatchNorm1d(4)(leaf(5, 4)))
    assert found["running_update"] == [3 * 4] * 2


def test_softmax_and_losses():
    assert counted(F.softmax, leaf(3, 5), 1) == {"softmax_forward": [5 * 15], "softmax_backward": [4 * 15]}
    assert counted(F.log_softmax, leaf(3, 5), 1) == {"log_softmax_forward": [5 * 15], "log_softmax_backward": [4 * 15]}
    assert counted(lambda x: x.logsumexp(1), leaf(3, 5))["logsumexp_backward"] == [3 * 15]
    found = counted(F.cross_entropy, leaf(4, 10), mg.tensor([1, 2, 3, 4]))
    assert found["cross_entropy_forward"] == [4 * 40] and found["cross_entropy_backward"] == [3 * 40]
    for loss, forward, backward in ((F.mse_loss, 3, 2), (F.l1_loss, 3, 2), (F.huber_loss, 6, 4), (F.binary_cross_entropy_with_logits, 7, 5)):
        found = [f for name, f in counted(loss, leaf(8), mg.ones(8)).items() if "_loss_" in name]
        assert found == [[forward * 8], [backward * 8]], loss.__name__
    assert counted(F.binary_cross_entropy, mg.full((8,), 0.3, requires_grad=True), mg.ones(8))["bce_loss_forward"] == [7 * 8]


def test_reductions_and_the_rest():
    x = leaf(3, 4, 5)
    for name, call, flops in (("sum", lambda x: x.sum(1), 60), ("max", lambda x: x.max(), 60), ("mean", lambda x: x.mean((0, 2)), 60),
                              ("moments", lambda x: x.var(0), 240), ("norm", lambda x: x.norm(), 120), ("cumsum", lambda x: x.cumsum(1), 60)):
        assert counted(call, x)[name][0] == flops, name
    assert counted(F.dropout, leaf(10), 0.5) == {"dropout_forward": [20], "dropout_backward": [10]}
    assert counted(F.embedding, mg.tensor([1, 2, 1]), leaf(5, 4))["index_add"] == [12]


def test_attention():
    q, k, v = leaf(2, 3, 4, 8), leaf(2, 3, 6, 8), leaf(2, 3, 6, 8)
    found = counted(F.scaled_dot_product_attention, q, k, v)
    assert found["attention_forward"] == [2 * 6 * 4 * 6 * (8 + 8)] and found["attention_backward"] == [2 * 6 * 4 * 6 * (3 * 8 + 2 * 8)]
    found = counted(F.scaled_dot_product_attention, q, k, v, is_causal=True)            # rows see 1, 2, 3, 4 keys
    assert found["attention_forward"] == [2 * 6 * (1 + 2 + 3 + 4) * 16]


@pytest.mark.parametrize("kind, gates", [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent(kind, gates):
    found = counted(kind(5, 7), leaf(3, 2, 5))
    flops = 2 * 3 * 2 * gates * 7 * (5 + 7)
    assert found["rnn_forward"] == [flops] and found["rnn_backward"] == [2 * flops]


def test_projected_lstm():
    assert counted(nn.LSTM(5, 7, proj_size=2), leaf(3, 2, 5))["rnn_forward"] == [2 * 3 * 2 * (4 * 7 * (5 + 2) + 7 * 2)]


@pytest.mark.parametrize("make, flops, moved", [
    (lambda p: optim.SGD(p, 0.1), 2, 3), (lambda p: optim.SGD(p, 0.1, momentum=0.9), 5, 5), (lambda p: optim.Adam(p), 13, 7),
    (lambda p: optim.Adam(p, amsgrad=True), 14, 9), (lambda p: optim.RMSprop(p), 9, 5), (lambda p: optim.Adagrad(p), 7, 5)])
def test_optimisers_count_what_their_table_points_to(make, flops, moved):
    p, q = leaf(4, 5), leaf(3)
    p.grad, q.grad = mg.ones(4, 5), mg.ones(3)
    optimizer = make([p, q])
    with Record() as record:
        optimizer.step()
    launch = record.launches[-1]
    assert launch.flops == flops * 23 and launch.nbytes == moved * 23 * 4 and launch.direction == "update"


def test_clipping():
    p = leaf(4, 5)
    p.grad = mg.ones(4, 5)
    with Record() as record:
        nn.utils.clip_grad_norm_([p], 0.1)
        nn.utils.clip_grad_value_([p], 0.1)
    found = {split(x.kernel)[0]: (x.flops, x.nbytes) for x in record.launches}
    assert found["grad_norm_sq"] == (40, 80) and found["grad_scale"] == (20, 160) and found["grad_clip"] == (40, 160)
