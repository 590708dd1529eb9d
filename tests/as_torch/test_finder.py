"""`import torch` after `install()`: modules, names, what is refused."""
from __future__ import annotations

import importlib
import re
import sys

import pytest
from support import run_python

import minigrad as mg
from minigrad import as_torch, nn
from minigrad.as_torch.names import MODULES, REFUSED
from minigrad.as_torch.types import TensorType


@pytest.fixture
def door(monkeypatch):
    """The package under PyTorch's name, in a process that may have imported PyTorch itself."""
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name == "torch" or name.startswith("torch.")}
    as_torch.install()
    try:
        yield importlib.import_module("torch")
    finally:
        as_torch.uninstall()
        sys.modules.update(kept)


def test_importing_minigrad_does_not_import_the_door():
    shows = "import minigrad, minigrad.nn, sys; print([m for m in sys.modules if 'as_torch' in m or m == 'torch'])"
    assert run_python("-c", shows).stdout == "[]\n"


def test_names_are_minigrads(door):
    assert door.Tensor is mg.Tensor and door.nn.Linear is mg.nn.Linear and door.nn.functional.relu is mg.nn.functional.relu
    assert door.float32 == mg.float32 and door.optim.lr_scheduler.StepLR is mg.optim.lr_scheduler.StepLR
    assert door.utils.data.DataLoader is mg.data.DataLoader and door.autograd.Function is mg.autograd.Function
    assert door.__name__ == "torch" and door.nn.__name__ == "torch.nn" and door.nn is sys.modules["torch.nn"]


def test_every_form_of_import(door):
    space: dict = {}
    exec("import torch.nn as nn, torch.nn.functional as F\nfrom torch import nn as same, optim, Tensor\nfrom torch.nn import *\n"
         "from torch.utils.data.dataset import Dataset\nfrom torch.nn.modules.conv import Conv2d, _ConvNd\nimport torch.utils.data.sampler\n"
         "from torch.autograd import Variable\nfrom torch.optim.adam import Adam\nfrom torch.optim.lr_scheduler import _LRScheduler", space)
    assert space["nn"] is space["same"] and space["Linear"] is mg.nn.Linear and space["F"].relu is mg.nn.functional.relu
    assert issubclass(space["Conv2d"], space["_ConvNd"]) and not issubclass(space["Linear"], space["_ConvNd"])
    assert space["Adam"] is mg.optim.Adam and issubclass(mg.optim.lr_scheduler.StepLR, space["_LRScheduler"])


@pytest.mark.parametrize("name", sorted(n for n in MODULES if not n.endswith("*")))
def test_each_module_of_the_table(name, door):
    module = importlib.import_module(name)
    assert module is sys.modules[name] and dir(module)
    for known in dir(module):
        if name not in ("torch.multiprocessing", "torch.cuda"):
            getattr(module, known, None)


def test_a_capture_looks_at_the_names_of_a_module_that_are_used(door):
    run = run_python("-c", "from minigrad import as_torch; as_torch.install()\nimport sys, torch, minigrad as mg\n"
                     "step = lambda x: torch.add(torch.nn.functional.relu(x), 1)\nstep(torch.ones(2)); before = {*sys.modules}\n"
                     "mg.capture(step)(torch.ones(2)); print(sorted({*sys.modules} - before))")
    assert run.stdout == "[]\n"


def test_names_are_in_the_dict_of_a_module(door):
    import torch.optim as optim
    assert optim.__dict__["SGD"] is mg.optim.SGD and vars(door.nn)["Linear"] is mg.nn.Linear and door.__dict__["float32"] is door.float32
    chosen = sorted(n for n in optim.__dict__ if n[0].isupper() and isinstance(optim.__dict__[n], type) and issubclass(optim.__dict__[n], optim.Optimizer))
    assert "Adam" in chosen and "SGD" in chosen and "missing" not in optim.__dict__
    optim.own = 1
    assert optim.__dict__["own"] == 1 and "own" in dir(optim)
    del optim.own


def test_unknown_modules_and_names(door):
    with pytest.raises(ModuleNotFoundError, match="torch.nothing"):
        importlib.import_module("torch.nothing")
    with pytest.raises(AttributeError, match="module 'torch' has no attribute 'nothing'"):
        _ = door.nothing
    with pytest.raises(AttributeError, match="did you mean 'softmax'"):
        _ = door.softmx
    with pytest.raises(ImportError):
        exec("from torch.nn import Linaer")
    assert not hasattr(door, "__wrapped__") and not hasattr(door.nn, "_something")


@pytest.mark.parametrize("name, own, others", [
    ("nn", "NLLLoss2d", "randn Path SDPBackend"), ("version", "__version__ cuda", "Path os randn required"), ("hub", "set_dir", ""),
    ("utils", "set_module", "Path cuda"), ("optim.adam", "required", "wrap set_dir"), ("optim.lr_scheduler", "_LRScheduler", "nullcontext"),
    ("nn.attention", "SDPBackend sdpa_kernel", "wrap finfo"), ("nn.modules.utils", "_pair", "cuda repeat"), ("fx", "wrap", ""),
    ("utils.data.distributed", "DistributedSampler", "Container"), ("distributions.utils", "clamp_probs broadcast_all", "cuda Path")])
def test_a_module_has_its_own_names_only(name, own, others, door):
    module = importlib.import_module(f"torch.{name}")
    listed = dir(module)
    for known in own.split():
        assert getattr(module, known).__class__.__name__ != "_Refusing" and known in listed
    for other in others.split():
        assert not hasattr(module, other) and other not in listed
    if f"torch.{name}" in REFUSED:
        assert module.Path.__class__.__name__ == "_Refusing" and "Path" not in listed


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_can_be_imported_and_says_why(name, door):
    module = importlib.import_module(name)
    value = module.some_name
    assert not isinstance(1, value) and "not supported" in repr(value)
    with pytest.raises(NotImplementedError, match=f"{name}.some_name is not supported; "):
        value(1, key=2)
    with pytest.raises(NotImplementedError, match=f"{name}.some_name.inner is not supported"):
        value.inner()
    deeper = importlib.import_module(name + ".deeper.module")
    with pytest.raises(NotImplementedError, match=re.escape(REFUSED[name])):
        deeper.anything()


def test_install_twice_and_uninstall():
    text = """
import sys
from minigrad import Tensor, as_torch
before = dict(vars(Tensor))
as_torch.install(); as_torch.install()
import torch.nn
assert str(Tensor) == "<class 'torch.Tensor'>"
assert as_torch.installed() and Tensor.type(torch.ones(1)) == "torch.FloatTensor"
as_torch.uninstall(); as_torch.uninstall()
assert not as_torch.installed() and not [m for m in sys.modules if m.startswith("torch")]
after = dict(vars(Tensor))                  # other methods may have been imported meanwhile
assert set(after) == set(before) and all(after[n] is before[n] for n in ("type",)), set(after) ^ set(before)
sys.modules["torch"] = sys
try: as_torch.install()
except RuntimeError as error: print(error)
"""
    done = run_python("-c", text)
    assert done.stdout.startswith("[as_torch] PyTorch itself is imported already"), done.stderr


def test_a_program_that_looks_at_the_version(door):
    assert door.__version__.split(".")[:2] == ["2", "13"] and door.version.cuda is None
    assert isinstance(door.device("cpu"), door.device) and isinstance(door.float32, door.dtype)
    assert isinstance(door.FloatTensor, TensorType)


def test_a_module_and_the_function_of_its_name(door):
    from torch.autograd.gradcheck import gradcheck
    x = mg.ones(2, dtype=mg.float64, requires_grad=True)
    assert door.autograd.gradcheck(mg.sin, (x,)) and gradcheck(mg.sin, (x,))
    import torch.nn.utils.spectral_norm
    from torch.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
    from torch.nn.utils.weight_norm import weight_norm
    assert door.autograd.gradcheck is gradcheck and door.nn.utils.weight_norm is weight_norm
    assert torch.nn.utils.spectral_norm is spectral_norm and remove_spectral_norm(spectral_norm(door.nn.Linear(2, 3))).weight.shape == (3, 2)
    from torch._ops import ops
    assert ops is door.ops


def test_what_a_program_asks_before_it_uses_a_package(door):
    import torch.distributed.rpc as rpc
    assert rpc.is_available() is False is door.distributed.rpc.is_available() and door.distributed.is_available() in (False, True)
    with pytest.raises(NotImplementedError, match="rpc.init_rpc"):
        rpc.init_rpc("worker")


def test_what_libraries_write_down_and_do_not_use(door):
    """Tables of placements and dtypes, annotations, nodes of trees: as transformers does when it is imported."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
    from torch._dynamo.exc import Unsupported
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard
    from torch.utils import _pytree as pytree
    with TransformGetItemToIndex(), pytest.raises(NotImplementedError, match="spread over processes"):
        DTensor(1)
    assert (Shard(-1).dim, Partial().reduce_op, _StridedShard(1, 2).split_factor) == (-1, "sum", 2)
    assert Replicate() == Replicate() != () and bool(Replicate()) and Shard(0) != (0,)
    assert issubclass(Unsupported, RuntimeError) and not isinstance(3, (door.SymInt, door.cuda.CUDAGraph, door.cuda.StreamContext))
    assert not door.compiler.is_exporting() and door.get_device_module("cpu") is door.cpu and door.Event is door.cuda.Event
    assert pytree._dict_flatten_with_keys({"a": 3}) == ([(pytree.MappingKey("a"), 3)], ["a"])
    assert door._dynamo.assume_constant_result(len) is door.jit.script_if_tracing(len) is len and door.legacy_contiguous_format is None


def test_limits_of_float8(door):
    pytest.importorskip("ml_dtypes")
    assert door.finfo(door.float8_e4m3fn).max == 448 and door.finfo(door.float8_e5m2).max == 57344
    assert door.float8_e4m3fn != door.float16


def test_functorch(door):
    import functorch
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    x = mg.ones(4, 2)
    f, params = functorch.make_functional(net)
    assert (f(params, x) == net(x)).all()
    assert params[0] is not net[0].weight and functorch.vmap is door.func.vmap
    g = functorch.grad(lambda p: f(p, x).sum())(params)
    assert [t.shape for t in g] == [(3, 2), (3,)] and net[0].weight.grad is None
    assert not functorch.make_functional(net, disable_autograd_tracking=True)[1][0].requires_grad
    nets = [nn.BatchNorm1d(2).eval() for _ in range(3)]
    nets[1].running_mean += 1
    with pytest.raises(RuntimeError, match="has buffers"):
        functorch.make_functional(nets[0])
    f, params, buffers = functorch.combine_state_for_ensemble(nets)
    assert params[0].shape == (3, 2) and params[0].requires_grad and params[0].is_leaf and buffers[2].shape == (3,)
    both = functorch.vmap(f, in_dims=(0, 0, None))(params, buffers, x)
    assert all((y == n(x)).all() for y, n in zip(both, nets, strict=True))
    with pytest.raises(RuntimeError, match="one class"):
        functorch.combine_state_for_ensemble([*nets, nn.ReLU()])


def test_hooks_of_modules_by_their_old_names(door):
    layer, log = door.nn.Linear(1, 1, bias=False), []
    layer._register_load_state_dict_pre_hook(lambda state, prefix, *rest: state.update({prefix + "weight": state.pop(prefix + "old")}))
    layer.load_state_dict({"old": mg.tensor([[3.0]])})
    assert layer.weight.item() == 3
    handle = layer._register_state_dict_hook(lambda module, state, prefix, metadata: {"renamed": state["weight"]})
    assert list(layer.state_dict()) == ["renamed"]
    handle.remove()
    assert list(layer.state_dict()) == ["weight"]
    layer.register_backward_hook(lambda module, given, out: log.append(out[0].item()))
    with door.nn.modules.module.register_module_forward_hook(lambda module, args, out: out * 2):
        layer(mg.ones(1, 1, requires_grad=True)).sum().backward()
    assert log == [1.0] and layer.weight.grad.item() == 2
    as_torch.uninstall()
    assert not hasattr(mg.nn.Module, "register_backward_hook")
