"""Training steps on both devices."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import REAL, emulated, rng

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F
from minigrad.utils.checkpoint import checkpoint

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


class Net(nn.Module):
    def __init__(self, norm, activation):
        super().__init__()
        # a bias in front of batch norm has no gradient but rounding errors, which Adam would blow up
        self.hidden, self.norm = nn.Linear(64, 32, bias=norm is not nn.BatchNorm1d), norm(32)
        self.activation, self.drop, self.out = activation(), nn.Dropout(0.2), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.drop(self.activation(self.norm(self.hidden(x)))))


def train(device, norm, activation, steps, hook=None):
    """Losses and final state of a few steps on digits-like data; the same seed gives the same start on any device."""
    mg.manual_seed(3)
    net = Net(norm, activation).to(device)
    mg.manual_seed(4)               # the parameters were drawn on the CPU: dropout starts anew on both
    opt = optim.Adam(net.parameters(), lr=1e-2)
    data = np.random.default_rng(1)
    x = mg.tensor(data.uniform(0, 1, (32, 64)).astype(np.float32), device=device)
    y = mg.tensor(data.integers(0, 10, 32), device=device)
    losses = []

    def step():
        opt.zero_grad(set_to_none=False)        # gradients stay where they are, as a graph needs them
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss
    for i in range(steps):
        losses.append(hook(i, step) if hook else step())
    return [l.item() for l in losses], {k: v.numpy(force=True) for k, v in net.state_dict().items()}


@pytest.mark.parametrize("norm,activation", [(nn.LayerNorm, nn.ReLU), (nn.BatchNorm1d, nn.GELU)], ids=["layer", "batch"])
def test_training_agrees_with_the_cpu(norm, activation):
    want_losses, want = train("cpu", norm, activation, 5)
    got_losses, got = train("cuda", norm, activation, 5)
    np.testing.assert_allclose(got_losses, want_losses, rtol=1e-4)
    assert want_losses[-1] < want_losses[0]
    for k in want:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-3, atol=2e-4, err_msg=k)


@pytest.mark.skipif(REAL, reason="capture on a GPU comes later; the stand-in refuses what a capture would")
def test_a_step_never_waits_for_the_gpu():
    """Recorded as a CUDA graph, where every copy between host and device is refused, and replayed."""
    def hook(i, step):
        if i < 3:
            return step()
        stream = mg.device("cuda").stream
        stream.begin_capture()
        try:
            loss = step()
        finally:
            graph = stream.end_capture()
        assert len(graph._ops) > 20         # nothing went elsewhere
        graph.launch(stream)
        return loss
    want, _ = train("cpu", nn.LayerNorm, nn.ReLU, 4)
    got, _ = train("cuda", nn.LayerNorm, nn.ReLU, 4, hook)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_checkpoint_masks_and_anomaly_on_the_device():
    """Random numbers are restored, padding stays out, and values on the device are looked at."""
    x = rng.standard_normal((3, 4, 6)).astype(np.float32)
    results = []
    for on in ("cpu", "cuda"):
        mg.manual_seed(1)
        norm, t = nn.BatchNorm1d(4).to(on), mg.tensor(x, device=on, requires_grad=True)
        y = checkpoint(lambda v, norm=norm: F.dropout(norm(v, lengths=[6, 2, 3]), 0.5), t, use_reentrant=False)
        (y * y).sum().backward()
        results.append([v.numpy(force=True) for v in (y, t.grad, norm.weight.grad, *norm.buffers())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    layer = nn.Sequential(nn.Softplus(), nn.LayerNorm(6))
    with mg.autograd.detect_anomaly():
        layer.to("cuda")(mg.tensor(x, device="cuda")).sum().backward()
        with pytest.raises(RuntimeError, match=r"\[detect_anomaly\] log made nan out of finite values"):
            mg.tensor([-1.0], device="cuda").log()
        with pytest.raises(RuntimeError, match="the backward of sqrt made inf"):
            mg.zeros(2, device="cuda", requires_grad=True).sqrt().sum().backward()
