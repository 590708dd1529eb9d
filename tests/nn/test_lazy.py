"""Lazy layers."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim

LAZY = [(nn.LazyLinear, (5,), (2, 4)), (nn.LazyConv1d, (6, 2), (2, 4, 7)), (nn.LazyConv2d, (6, 2, 1, 1, 1, 2), (2, 4, 5, 5)), (nn.LazyConv3d, (6, 2), (4, 5, 5, 5)),
        (nn.LazyConvTranspose1d, (6, 2), (2, 4, 7)), (nn.LazyConvTranspose2d, (6, 2, 1, 0, 0, 2), (2, 4, 5, 5)), (nn.LazyConvTranspose3d, (6, 2), (4, 5, 5, 5)),
        (nn.LazyBatchNorm1d, (), (3, 4, 5)), (nn.LazyBatchNorm2d, (), (3, 4, 5, 5)), (nn.LazyBatchNorm3d, (), (3, 4, 2, 2, 2)),
        (nn.LazyInstanceNorm1d, (), (3, 4, 5)), (nn.LazyInstanceNorm2d, (), (3, 4, 5, 5)), (nn.LazyInstanceNorm3d, (), (3, 4, 2, 2, 2))]


@pytest.mark.parametrize(("kind", "arguments", "shape"), LAZY)
def test_the_first_call_makes_the_ordinary_layer(kind, arguments, shape):
    mg.manual_seed(0)
    layer, x = kind(*arguments).double(), mg.randn(*shape, dtype=np.float64)
    assert layer.has_uninitialized_params() and copy.deepcopy(layer).has_uninitialized_params()
    o = optim.SGD(layer.parameters(), lr=0.1)               # made before: it trains what the layer becomes
    y = layer(x)
    assert type(layer) is kind.cls_to_become and y.dtype == np.float64 and all(type(p) is nn.Parameter for p in layer.parameters())
    made = kind.cls_to_become(*((4,) if "Norm" in kind.__name__ else (4, *arguments)), **({"affine": True, "track_running_stats": True} if "Norm" in kind.__name__ else {}))
    assert repr(layer) == repr(made)
    assert [(k, v.shape) for k, v in layer.state_dict().items()] == [(k, v.shape) for k, v in made.state_dict().items()]
    if "Norm" not in kind.__name__:                         # drawn as the ordinary layer draws them
        assert layer.weight.std().item() > 0.05 and abs(layer.weight).max().item() < 1 and layer.bias.std().item() > 0
    before = layer.weight.detach().clone()
    (y * y).sum().backward()
    o.step()
    assert not mg.equal(before, layer.weight.detach())


@pytest.mark.parametrize(("kind", "arguments", "shape"), LAZY)
def test_a_state_dict_gives_the_shape(kind, arguments, shape):
    mg.manual_seed(0)
    x, one, two = mg.randn(*shape), kind(*arguments), kind(*arguments)
    one(x)
    two.load_state_dict(one.state_dict())
    assert not two.has_uninitialized_params()
    assert mg.equal(one.eval()(x), two.eval()(x)) and repr(one) == repr(two)


def test_what_reads_it_before_says_so():
    layer = nn.LazyLinear(3)
    for read in (lambda: layer.weight + 1, lambda: layer.weight.shape, lambda: layer.bias.numpy(), lambda: nn.init.zeros_(layer.weight),
                 lambda: optim.Adagrad(layer.parameters()), lambda: nn.LazyBatchNorm1d().running_mean.sum()):
        with pytest.raises(ValueError, match="has no shape yet; call the module once"):
            read()
    assert repr(layer) == "LazyLinear(in_features=0, out_features=3, bias=True)" and "Uninitialized" in repr(layer.weight)
    assert layer.weight.requires_grad and not layer.requires_grad_(False).weight.requires_grad
    captured = mg.capture(lambda x: layer(x))
    with pytest.raises(RuntimeError, match="before it is captured"):
        captured(mg.ones(2, 4))
    layer(mg.ones(2, 4))
    assert not layer.weight.requires_grad and mg.capture(lambda x: layer(x))(mg.ones(2, 4)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="must have 3 or 4 dimensions"):
        nn.LazyConv2d(3, 2)(mg.ones(2, 2))
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.LazyConv2d(4, 2, groups=2)(mg.ones(2, 3, 4, 4))
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.LazyBatchNorm2d()(mg.ones(2, 3))


def test_in_a_model():
    mg.manual_seed(0)
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2, bias=False)).half().float()
    assert model(mg.ones(3, 2, 6, 6)).shape == (3, 2)
    assert [type(m).__name__ for m in model] == ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear"]
    assert model[4].bias is None and model[1].num_features == 4 and all(p.dtype == np.float32 for p in model.parameters())


@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(3), lambda: nn.LazyConv2d(3, 2), lambda: nn.LazyBatchNorm1d()])
def test_a_layer_without_shapes_is_saved_and_copied(make):
    lazy = make()
    copied = pickle.loads(pickle.dumps(nn.Sequential(lazy)))[0]
    assert type(copied) is type(lazy) and copied.has_uninitialized_params()
    assert all(type(t).__name__.startswith("Uninitialized") for n, t in copied.state_dict().items() if n != "num_batches_tracked")
    again = make()
    again.load_state_dict(lazy.state_dict())
    assert again.has_uninitialized_params()
    x = mg.ones(2, 5, 4, 4) if isinstance(lazy, nn.LazyConv2d) else mg.ones(2, 5)
    copied(x)
    lazy.load_state_dict(copied.state_dict())
    assert not lazy.has_uninitialized_params() and type(pickle.loads(pickle.dumps(copied))) is type(copied)
    with pytest.raises(RuntimeError, match="has no shape yet in the checkpoint"):
        copied.load_state_dict(make().state_dict())


class Scale(nn.lazy.LazyModule):
    """A lazy layer of a user: it stays what it is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.UninitializedParameter()
        self.register_buffer("seen", nn.UninitializedBuffer())

    def initialize_parameters(self, x):
        for t in (self.weight, self.seen):
            t.materialize((x.shape[-1],))
            with mg.no_grad():
                t.fill_(2.0)

    def forward(self, x):
        return x * self.weight * self.seen


def test_a_lazy_layer_of_ones_own():
    layer = Scale().double()
    o, given, seen = optim.SGD(layer.parameters(), lr=1.0), layer.weight, []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    assert layer.has_uninitialized_params() and list(layer.state_dict()) == ["weight", "seen"]
    for _ in range(2):
        layer(mg.ones(2, 3, dtype=np.float64)).sum().backward()
    o.step()
    assert layer.weight is given and type(given) is nn.Parameter and given.tolist() == [-6.0] * 3 and given.dtype == np.float64
    assert type(layer) is Scale and type(layer.seen) is mg.Tensor and layer.seen.tolist() == [2.0] * 3 and len(seen) == 2
    other = Scale()
    other.load_state_dict(layer.state_dict())
    assert other.weight.tolist() == [-6.0] * 3 and not other.has_uninitialized_params()


def test_a_shape_is_given_once_with_another_dtype():
    for made in (nn.UninitializedParameter(), nn.UninitializedBuffer()):
        made.materialize(3, dtype=np.float16)
        assert made.shape == (3,) and made.dtype == np.float16 and not hasattr(made, "materialize")
    class Forgets(Scale):
        def initialize_parameters(self, x):
            self.weight.materialize((1,))
    with pytest.raises(RuntimeError, match="give each parameter and buffer a shape; got seen"):
        Forgets()(mg.ones(1))
