"""Old and other spellings: typed tensors, Variables, switches, names from before, `torch.testing`, one device, trees."""
from __future__ import annotations

import copy

import numpy as np
import pytest
from as_torch.test_finder import door

import minigrad as mg
from minigrad import nn

__all__ = ["door"]
WORDS = {"Float": "float32", "Double": "float64", "Half": "float16", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32",
         "Long": "int64", "Bool": "bool"}


@pytest.mark.parametrize("word", WORDS)
def test_typed_tensors(word, door):
    kind = getattr(door, f"{word}Tensor")
    x = kind([[1, 0], [1, 1]])
    assert x.dtype == WORDS[word] and x.tolist() == [[1, 0], [1, 1]] and kind(2, 3).shape == (2, 3) and kind().shape == (0,)
    assert x.type() == f"torch.{word}Tensor" == door.typename(x) and isinstance(x, kind)
    assert not isinstance(x, getattr(door.cuda, f"{word}Tensor")) and not isinstance([1], kind)
    for same in (door.ones(2).type(kind), door.ones(2).type(f"torch.{word}Tensor"), door.ones(2).type(WORDS[word])):
        assert same.dtype == WORDS[word]
    assert isinstance(kind(np.ones(3)), kind) and kind(door.zeros(2, dtype=x.dtype)).dtype == x.dtype


def test_a_shape_is_sizes_and_a_tuple_is_values(door):
    x = door.ones(2, 3)
    for made in (door.Tensor, door.FloatTensor, x.new):
        assert made(x.shape).shape == made(x.size()).shape == (2, 3) and made(door.Size([])).shape == ()
        assert made(x.shape[1:]).shape == (3,) and made(x.shape[:1] + (4,)).shape == (2, 4) and made(x.shape[:1] * 3).shape == (2, 2, 2) and made((4,) + x.shape).shape == (4, 2, 3)
        assert made((2, 3)).tolist() == [2, 3] and made(2, 3).shape == (2, 3) and made().shape == (0,)
    assert x.shape[0] == 2 and x.shape[-1] == 3 and x.shape.numel() == 6
    assert repr(x.shape) == str(x.size()) == "torch.Size([2, 3])"
    from minigrad.as_torch import methods
    methods.take_off()
    assert type(x.shape[1:]) is tuple and repr(x.shape) == "Size([2, 3])"


def test_typed_tensors_are_refused_clearly(door):
    for name in ("torch.FloatTenso", "FloatTensor", "torch.a.b.c", "torch.NoneTensor"):
        with pytest.raises((ValueError, TypeError)):
            door.ones(1).type(name)
    with pytest.raises(AttributeError):
        _ = door.StrangeTensor


def test_default_types(door):
    try:
        door.set_default_tensor_type(door.DoubleTensor)
        assert door.ones(1).dtype == "float64"
        door.set_default_tensor_type("torch.FloatTensor")
        assert door.ones(1).dtype == "float32"
    finally:
        mg.set_default_dtype(mg.float32)
    door.set_default_device("cpu")
    assert door.get_default_device() == mg.device("cpu")
    assert door.set_default_device is mg.set_default_device and door.get_default_device is mg.get_default_device


def test_variables_and_new(door):
    x = door.autograd.Variable(door.ones(2), requires_grad=True)
    x.sum().backward()
    assert isinstance(x, door.autograd.Variable) and x.grad.tolist() == [1, 1]
    y = door.zeros(3, dtype=door.int64)
    assert y.new(2, 2).shape == (2, 2) and y.new([1, 2]).dtype == door.int64 and y.new().numel() == 0 and y.get_device() == -1


def test_methods_with_other_arguments(door):
    assert [len(part) for part in door.arange(5).split(split_size=2)] == [len(part) for part in door.arange(5).split(2, dim=0)] == [2, 2, 1]
    assert [len(part) for part in door.arange(5).split([1, 4], 0)] == [1, 4]


def test_names_that_pytorch_has_in_several_places(door):
    F, x = door.nn.functional, door.tensor([[1.0, -2.0, 3.0]])
    for name in ("cosine_similarity", "pairwise_distance", "conv1d", "max_pool2d", "pixel_shuffle", "hinge_embedding_loss"):
        assert getattr(door, name) is getattr(F, name)
    assert door.vmap is mg.func.vmap and door.GradScaler is mg.amp.GradScaler and door.amp.custom_fwd(len) is len
    assert door.frombuffer(b"\1\2\3", dtype=door.uint8, offset=1).tolist() == [2, 3]
    assert door.poisson(door.full((500,), 4.0)).mean().item() == pytest.approx(4, abs=0.5)
    assert door.binomial(door.full((500,), 4.0), door.tensor(0.5)).mean().item() == pytest.approx(2, abs=0.3)
    y = x * 1
    assert F.relu_(y) is y and y.tolist() == [[1, 0, 3]] and x.clone().xlogy_(door.ones(1)).tolist() == [[0, 0, 0]]
    with pytest.raises(AttributeError):
        _ = F.strange_
    assert x.adjoint().shape == (3, 1) and x.float_power(2).dtype == door.float64 and x.hardshrink(1.5).tolist() == [[0, -2, 3]]
    assert x.is_same_size(y) and not x.is_inference() and x.share_memory_() is x and nn.ReLU().share_memory()(x).tolist() == [[1, 0, 3]]
    assert door.zeros(2, 3).fill_diagonal_(2).tolist() == [[2, 0, 0], [0, 2, 0]]
    assert door.zeros(4, 2).fill_diagonal_(2, wrap=True).tolist() == [[2, 0], [0, 2], [0, 0], [2, 0]]
    assert door.eye(2).storage().tolist() == [1, 0, 0, 1] and len(x.storage()) == 3 and x.storage() and not door.empty(0).storage()
    whole, part = door.arange(6.0), door.arange(6.0)[4:]
    assert part.storage().tolist() == whole.tolist() and part.storage_offset() == 4 and whole.storage_offset() == 0
    assert part.untyped_storage().data_ptr() == part.data_ptr() - 16 and part.untyped_storage().nbytes() == 24
    assert door.vander(door.tensor([2, 3, 4])).tolist() == [[4, 2, 1], [9, 3, 1], [16, 4, 1]]
    assert door.vander(x[0], 2, increasing=True).tolist() == [[1, 1], [1, -2], [1, 3]]

    class Twice(door.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            x, = ctx.saved_variables                        # an old name
            return 2 * x * g
    w = door.ones(2, requires_grad=True)
    Twice.apply(w).sum().backward()
    assert w.grad.tolist() == [2, 2]
    with pytest.warns(DeprecationWarning, match="needs no instance"):
        assert Twice().apply(w).tolist() == [1, 1] and isinstance(Twice(1, scale=2), door.autograd.Function)
        with pytest.raises(RuntimeError, match="Legacy autograd function"):
            Twice()(w)
    assert door.arange(3).apply_(lambda v: v * 2).tolist() == [0, 2, 4]
    assert isinstance(door.nn.utils.skip_init(door.nn.Linear, 2, 3), nn.Linear)
    from torch.utils.hooks import RemovableHandle
    assert isinstance(nn.ReLU().register_forward_hook(print), RemovableHandle)
    assert door.utils.checkpoint.set_device_states(*door.utils.checkpoint.get_device_states(x, None)) is None
    assert door.torch is door and nn.ReLU().compile(dynamic=True) is None
    assert door.arange(6)[1:].storage_offset() == 1 and door.arange(6).view(2, 3)[1, 2].storage_offset() == 5
    before, after = door.cuda.Event(enable_timing=True), door.cuda.Event(enable_timing=True)
    for event in (before, after):
        event.record()
    assert door.cuda._initialized == door.cuda.is_available()
    assert before.elapsed_time(after) == -after.elapsed_time(before) > 0
    if not door.cuda.is_available():
        with door.cuda.device(0):
            pass
    door.utils.backcompat.broadcast_warning.enabled = True
    from torch._C import Value
    with pytest.raises(NotImplementedError, match=r"no classes of PyTorch's C\+\+"):
        Value()
    with pytest.raises(AttributeError):
        _ = door._C._strange


def test_numbers_that_come_first(door):
    """PyTorch's deprecated order of arguments, which optimizers of other packages have."""
    x, a, b = door.tensor([1.0, 2.0]), door.tensor([3.0, 4.0]), door.tensor([2.0, 2.0])
    assert door.add(input=x, other=a).tolist() == door.add(x, other=a).tolist() == (x + a).tolist()
    assert x.clone().add_(2, a).tolist() == x.add(2, a).tolist() == door.add(x, 2, a).tolist() == x.add(a, alpha=2).tolist() == [7, 10]
    assert x.sub(2, a).tolist() == [-5, -6] and x.add(1).tolist() == door.add(x, 1).tolist() == [2, 3]
    two = door.tensor(2.0)
    assert x.clone().add_(two, a).tolist() == x.add(two, a).tolist() == x.add(a, alpha=2).tolist() and x.addcmul(two, a, b).tolist() == x.addcmul(a, b, value=2).tolist()
    assert x.addcmul(two, a).tolist() == (x + two * a).tolist()
    assert x.clone().addcmul_(2, a, b).tolist() == door.addcmul(x, 2, a, b).tolist() == x.addcmul(a, b, value=2).tolist() == [13, 18]
    assert x.clone().addcdiv_(2, a, b).tolist() == x.addcdiv(a, b, value=2).tolist() == [4, 6]
    assert door.randint_like(x, high=3).max() < 3 and door.randint_like(x, 5, 6).tolist() == [5, 5]
    with pytest.raises(TypeError, match="needs high"):
        door.randint_like(x)


def test_functions_for_lists_of_tensors(door):
    one, two = [door.ones(2), door.ones(3)], [door.full((2,), 2.0), door.full((3,), 3.0)]
    made = door._foreach_mul_(one, [2.0, 3.0])
    assert type(made) is list and made[0] is one[0] and made[1] is one[1] and [t.tolist() for t in one] == [[2, 2], [3, 3, 3]]
    door._foreach_add_(one, two, alpha=-1)
    assert [t.tolist() for t in door._foreach_add(one, 1.0)] == [[1, 1], [1, 1, 1]]
    door._foreach_addcmul_(one, two, two, 0.5)
    assert [t.tolist() for t in door._foreach_sqrt(two)][0] == pytest.approx([2**0.5] * 2) and one[1].tolist() == [4.5] * 3
    assert type(door._foreach_neg(two)) is tuple
    made = door._foreach_maximum_(one, [door.tensor([5.0, 0.0]), door.full((3,), 4.75)])
    assert made[0] is one[0] and [t.tolist() for t in one] == [[5, 2], [4.75] * 3]
    made = door._foreach_maximum_(one, 4.5), door._foreach_minimum(one, 4.75)
    assert made[0][0] is one[0] and [t.tolist() for t in one] == [[5, 4.5], [4.75] * 3] and made[1][0].tolist() == [4.75, 4.5]
    for wrong in (lambda: door._foreach_add(one, two[:1]), lambda: door._foreach_add_(one, [*two, two[0]]),
                  lambda: door._foreach_mul(one, [1.0]), lambda: door._foreach_addcmul_(one, two, two, [1.0, 2.0, 3.0])):
        with pytest.raises(RuntimeError, match=r"_foreach_\w+\] takes lists of one length, here 2"):
            wrong()
    assert [round(n.item(), 3) for n in door._foreach_norm(two, ord=1)] == [4, 9]
    assert door._foreach_copy_(one, two)[1].tolist() == two[1].tolist()
    for name in ("_foreach_nothing", "_foreach_nothing_"):
        with pytest.raises(AttributeError):
            getattr(door, name)


@pytest.mark.parametrize("draw", ["poisson", "binomial"])
def test_counts_are_drawn_by_the_generator_that_is_given(draw, door):
    args = (door.full((2, 50), 20.0),) if draw == "poisson" else (door.full((2, 50), 20.0), door.tensor(0.5))
    first, again, other = [getattr(door, draw)(*args, generator=door.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert first.shape == (2, 50) and door.equal(first, again) and not door.equal(first, other)
    before = door.get_rng_state()
    getattr(door, draw)(*args, generator=door.Generator())
    assert door.equal(before, door.get_rng_state())


@pytest.mark.parametrize("wrap", [False, True])
def test_fill_diagonal_agrees_with_pytorch(wrap, torch, door):
    for shape in ((7, 3), (3, 7), (8, 3), (7, 1), (1, 1), (2, 2), (0, 3), (3, 0), (3, 3, 3), (2, 2, 2, 2)):
        want = torch.zeros(shape).fill_diagonal_(2, wrap=wrap).tolist()
        for t in (door.zeros(shape), door.zeros(shape[::-1]).permute(*reversed(range(len(shape))))):
            assert t.fill_diagonal_(2, wrap=wrap) is t and t.tolist() == want, shape
    for shape in ((), (3,), (2, 3, 2)):
        with pytest.raises(RuntimeError, match="fill_diagonal_"):
            door.zeros(shape).fill_diagonal_(1, wrap=wrap)


def test_an_optimizer_around_another(door):
    class Around(door.optim.Optimizer):
        def __init__(self, inner):
            self.inner, self.param_groups = inner, inner.param_groups

        def step(self, closure=None):
            return self.inner.step(closure)
    layer = door.nn.Linear(2, 1)
    around = Around(door.optim.SGD(layer.parameters(), lr=0.1))
    layer(door.ones(1, 2)).sum().backward()
    before = layer.bias.item()
    around.step()
    assert layer.bias.item() == pytest.approx(before - 0.1)


def test_helpers_of_distributions(door):
    from torch.distributions.utils import (
        _standard_normal,
        broadcast_all,
        lazy_property,
        logits_to_probs,
        probs_to_logits,
    )
    p = door.tensor([0.25, 0.75])
    assert logits_to_probs(probs_to_logits(p)).tolist() == pytest.approx(p.tolist()) == logits_to_probs(probs_to_logits(p, True), True).tolist()
    assert broadcast_all(p, 1.0)[1].shape == (2,) and _standard_normal(p.shape, p.dtype, p.device).shape == (2,)
    assert door.distributions.constraints.positive.check(p).all() and door.distributions.transforms.ExpTransform()(p * 0).tolist() == [1, 1]
    calls = []

    class Made:
        @lazy_property
        def value(self):
            calls.append(1)
            return weight * 3
    made, weight = Made(), door.ones(1, requires_grad=True)
    with door.no_grad():
        assert made.value is made.value and made.value.requires_grad and len(calls) == 1
    with pytest.raises(ImportError):
        from torch.distributions.utils import nothing_of_the_kind  # noqa: F401


@pytest.mark.parametrize("diag", [-3, -1, 0, 2])
def test_triangles_as_vectors(door, diag):
    from torch.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix
    matrix = mg.arange(1.0, 19.0).reshape(2, 3, 3).tril(diag)
    vec = tril_matrix_to_vec(matrix, diag)
    assert mg.equal(vec_to_tril_matrix(vec, diag), matrix) and (vec != 0).all()
    for call in (lambda: tril_matrix_to_vec(matrix, 3), lambda: tril_matrix_to_vec(matrix, -4), lambda: vec_to_tril_matrix(mg.ones(4))):
        with pytest.raises(ValueError, match="diag"):
            call()


def test_sparse_tensors_are_dense(door):
    with pytest.warns(UserWarning, match="gives the dense tensor"):
        assert door.eye(2).to_sparse().tolist() == [[1, 0], [0, 1]]
    with pytest.warns(UserWarning, match="gives a dense tensor"):
        assert door.sparse_coo_tensor(size=(2, 3), dtype=door.float64).tolist() == [[0] * 3] * 2

    values = door.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    places = [[0, 1, 1, 0], [2, 0, 0, 2]]
    with pytest.warns(UserWarning, match="gives a dense tensor"):
        m = door.sparse_coo_tensor(places, values, (2, 3))
    assert m.to_dense().coalesce().tolist() == [[0, 0, 5], [5, 0, 0]] and m.to_dense(door.float64).dtype == door.float64
    assert m.indices().tolist() == m._indices().tolist() == [[0, 1], [2, 0]] and m.values().tolist() == m._values().tolist() == [5, 5]
    assert m._nnz() == 2 and m.is_coalesced() and door.dsmm(m, door.ones(3, 1)).tolist() == [[5], [5]]
    (door.spmm(m, door.ones(3, 1)) * door.tensor([[1.0], [2.0]])).sum().backward()
    assert values.grad.tolist() == [1, 2, 2, 1]
    with pytest.warns(UserWarning, match="gives a dense tensor"):
        assert door.sparse.FloatTensor(door.LongTensor(places), values, door.Size([2, 3])).shape == door.sparse_coo_tensor(places, values).shape


def test_devices_that_are_not_here_can_be_named(door):
    mps, cpu = door.device("mps"), door.device("cpu")
    assert cpu is mg.device("cpu") and door.device("mps:1").index == 1 and door.device("mps", 1) == door.device("mps:1") != mps
    assert isinstance(mps, door.device) and isinstance(cpu, door.device) and mps.type == "mps" and mps.index is None and door.device(mps) is mps
    assert (repr(mps), str(mps), repr(door.device("mps", 1))) == ("device(type='mps')", "mps", "device(type='mps', index=1)") and mps != cpu
    with pytest.raises(RuntimeError, match="unknown device"):
        door.ones(1, device=mps)
    with pytest.raises(RuntimeError, match="unknown device"):
        door.device("gpu")
    if not door.cuda.is_available():
        assert door.device("cuda").type == "cuda" and door.device(0) == "cuda:0"
        for use in (lambda: door.ones(1).to(door.device("cuda")), lambda: nn.Linear(1, 1).to(door.device("cuda:0"))):
            with pytest.raises(RuntimeError, match="'cuda(:0)?' is not available"):
                use()


def test_switches_are_accepted_and_change_nothing(door):
    door.backends.cudnn.benchmark = door.backends.cudnn.deterministic = True
    door.backends.cuda.matmul.allow_tf32 = True
    door.use_deterministic_algorithms(True)
    door.set_float32_matmul_precision("high")
    with pytest.raises(ValueError, match="highest"):
        door.set_float32_matmul_precision("low")
    attention = door.nn.attention
    with attention.sdpa_kernel([attention.SDPBackend.FLASH_ATTENTION, attention.SDPBackend.MATH]), door.backends.cudnn.flags(enabled=False), door.backends.cuda.sdp_kernel(enable_flash=False):
        pass
    assert not door.backends.mps.is_available() and not door.xpu.is_available() and not door.distributed.is_nccl_available()
    assert door.are_deterministic_algorithms_enabled() and door.get_float32_matmul_precision() == "highest"
    assert door.ones(2, 3).contiguous(memory_format=door.contiguous_format).to(memory_format=door.channels_last).shape == (2, 3)
    assert (door.accelerator.current_accelerator() is None) == (not door.cuda.is_available())


def test_range_has_both_ends(door):
    for arguments, want in (((3,), [0, 1, 2, 3]), ((1, 4), [1, 2, 3, 4]), ((0, 1, 0.5), [0, 0.5, 1]), ((3, 1, -1), [3, 2, 1]), ((0, 2.5), [0, 1, 2])):
        with pytest.warns(UserWarning, match="includes the end: write arange"):
            assert door.range(*arguments).tolist() == want
            assert door.range(0, 1).dtype == door.float32 and door.range(0, 1, dtype=door.int64).dtype == door.int64


def test_memory_of_gpus(door):
    assert door.cuda.OutOfMemoryError is door.OutOfMemoryError and issubclass(door.OutOfMemoryError, MemoryError) and "allocated: " in door.cuda.memory_summary()
    door.cuda.reset_peak_memory_stats()
    if not door.cuda.is_available():
        assert door.cuda.max_memory_allocated() == 0


def test_a_module_is_a_script_module_only_by_its_class(door):
    class Scripted(door.jit.ScriptModule):
        pass
    assert isinstance(Scripted(), nn.Module) and not isinstance(nn.ReLU(), door.jit.ScriptModule)


def test_ops_of_python_functions(door):
    @door.library.custom_op("mine::scaled", mutates_args=())
    def scaled(x: mg.Tensor, by: float = 3.0) -> mg.Tensor:
        return door.tensor(x.detach().numpy() * by)

    @scaled.register_fake
    def _(x, by=3.0):
        return door.empty_like(x)

    def keep(ctx, inputs, output):
        ctx.by = inputs[1]
    x = door.ones(2, requires_grad=True)
    with pytest.raises(NotImplementedError):
        scaled(x).sum().backward()
    door.library.register_autograd("mine::scaled", lambda ctx, g: (g * ctx.by, None), setup_context=keep)
    (scaled(x).sum() + door.ops.mine.scaled(x, by=4.0).sum()).backward()
    assert x.grad.tolist() == [7, 7] and door.library.opcheck(scaled, (x,)) == {}

    @door.library.custom_op("mine::fill", mutates_args={"x"})
    def fill(x: mg.Tensor) -> None:
        x.fill_(2)
    y = x * 1
    assert fill(y) is None and y.tolist() == [2, 2]
    door.library.custom_op("mine::scaled", lambda x: x * 5, mutates_args=())
    door.library.custom_op("mine::later", abs, mutates_args=())
    assert door.ops.mine.scaled(door.ones(1)).tolist() == [5] and hasattr(door.ops.mine, "later") and not hasattr(door.ops.mine, "none")
    door.library.register_autograd("other::op", len)
    assert not hasattr(door.ops, "other")


def test_compile_and_script_give_back_what_they_get(door):
    layer = nn.Linear(2, 2)
    assert door.compile(layer) is layer and door.compile(mode="max-autotune")(layer) is layer

    @door.compile
    def double(x):
        return x * 2
    assert double(door.ones(1)).item() == 2
    for made in (lambda: door.jit.script(layer), lambda: door.jit.trace(layer, door.ones(2))):
        with pytest.warns(UserWarning, match="gives back what it gets"):
            assert made() is layer
    with pytest.raises(NotImplementedError, match=r"jit.save.*state dict"):
        door.jit.save(layer, "x.pt")
    assert not door.jit.is_scripting() and door.jit.unused(double) is double and door.jit.ignore(drop=True)(double) is double


def test_names_from_before_warn(door):
    with pytest.warns(FutureWarning, match="old name of xavier_uniform_"):
        door.nn.init.xavier_uniform(door.empty(2, 2))
    p = door.ones(2, requires_grad=True)
    p.grad = door.ones(2)
    with pytest.warns(FutureWarning, match="old name of clip_grad_norm_"):
        door.nn.utils.clip_grad_norm([p], 1.0)
    assert abs(p.grad.norm().item() - 1) < 1e-6
    for module in (door.nn.init, door.nn.utils, door.nn.functional):
        with pytest.raises(AttributeError):
            _ = module.no_such_thing


def test_one_device(door):
    layer = nn.Linear(2, 3)
    with pytest.warns(UserWarning, match="runs the whole batch on the device of the module"):
        wide = door.nn.DataParallel(layer, device_ids=[0, 1])
    x = door.ones(4, 2)
    assert mg.equal(wide(x), layer(x)) and list(wide.state_dict()) == ["module.weight", "module.bias"]
    assert mg.equal(door.nn.parallel.data_parallel(layer, x), layer(x))
    parts = [list(door.utils.data.distributed.DistributedSampler(range(10), num_replicas=3, rank=r, shuffle=False)) for r in range(3)]
    assert parts == [[0, 3, 6, 9], [1, 4, 7, 0], [2, 5, 8, 1]]
    sampler = door.utils.data.DistributedSampler(range(10), num_replicas=2, rank=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert len(first) == len(sampler) == 5 and first != list(sampler)
    with pytest.raises(RuntimeError, match=r"no process group; call distributed.init_process_group"):
        door.utils.data.DistributedSampler(range(10))


def test_several_processes_are_minigrads(door):
    from torch.nn.parallel.distributed import DistributedDataParallel
    from torch.utils.data.distributed import DistributedSampler
    dist = door.distributed
    assert DistributedDataParallel is door.nn.parallel.DistributedDataParallel is nn.parallel.DistributedDataParallel
    assert door.nn.DataParallel is nn.DataParallel and door.nn.parallel.data_parallel is nn.parallel.data_parallel
    assert DistributedSampler is door.utils.data.DistributedSampler is mg.data.distributed.DistributedSampler
    assert door.nn.SyncBatchNorm is door.nn.modules.batchnorm.SyncBatchNorm is nn.SyncBatchNorm
    assert dist.all_reduce is mg.distributed.all_reduce and dist.ReduceOp.SUM == "sum" and dist.group.WORLD is dist.GroupMember.WORLD is None
    assert dist.is_available() and not dist.is_initialized() and not dist.is_gloo_available()
    for name in ("new_group", "send", "gather_object"):
        with pytest.raises(NotImplementedError, match="collectives of all processes on MPI"):
            getattr(dist, name)()
    from torch.distributed.fsdp import FullyShardedDataParallel
    with pytest.raises(NotImplementedError, match="collectives of all processes on MPI"):
        FullyShardedDataParallel(nn.Linear(2, 2))


def test_pdist_is_among_the_functions(door):
    x = door.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    assert door.nn.functional.pdist(x).tolist() == [5.0, 4.0, 3.0]


def test_assert_close(door):
    close = door.testing.assert_close
    close(door.ones(2), door.ones(2) + 1e-7)
    from torch.testing._comparison import get_tolerances
    assert get_tolerances(door.ones(2), door.float16, rtol=None, atol=None) == (1e-3, 1e-5) and get_tolerances(rtol=0.1, atol=0) == (0.1, 0)
    close({"a": [door.ones(2), 1.0]}, {"a": [door.ones(2), 1.0]})
    close(np.ones(2), [1.0, 1.0])
    close(door.tensor([float("nan")]), door.tensor([float("nan")]), equal_nan=True)
    for a, b, says in ((door.ones(2), door.ones(2) * 1.1, "2 of 2 elements"), (door.ones(2), door.ones(3), "shapes"),
                       (door.ones(2), door.ones(2).double(), "dtypes"), ([1.0], [1.0, 2.0], "lengths"), ({"a": 1}, {"b": 1}, "keys"),
                       (door.tensor([float("nan")]), door.tensor([float("nan")]), "1 of 1"), (door.arange(3), door.arange(3) + 1, "3 of 3")):
        with pytest.raises(AssertionError, match=says):
            close(a, b)
    with pytest.raises(AssertionError, match="mine"):
        close(1.0, 2.0, msg="mine")
    with pytest.raises(ValueError, match="both"):
        close(1.0, 1.0, rtol=0.1)


def test_assert_close_agrees_with_pytorch(torch):
    from minigrad.as_torch.testing import assert_close
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64", "int64"):
        for scale in (1e-9, 1e-7, 1e-6, 1e-5, 1e-3, 1):
            a = (rng.standard_normal(5) * 3).astype(dtype)
            b = (a + rng.standard_normal(5) * scale).astype(dtype)
            verdicts = []
            for check, make in ((assert_close, mg.tensor), (torch.testing.assert_close, torch.tensor)):
                try:
                    check(make(a), make(b))
                    verdicts.append(True)
                except AssertionError:
                    verdicts.append(False)
            assert verdicts[0] == verdicts[1], (dtype, scale)


def test_trees(door):
    from collections import OrderedDict, namedtuple
    tree_flatten, tree_map, tree_unflatten = (getattr(door.utils._pytree, n) for n in ("tree_flatten", "tree_map", "tree_unflatten"))
    Point = namedtuple("Point", "x y")
    value = {"a": [1, (2, 3)], "b": Point(4, OrderedDict(c=5)), "d": ()}
    leaves, spec = tree_flatten(value)
    assert leaves == [1, 2, 3, 4, 5] and tree_unflatten(leaves, spec) == value and spec.num_leaves == 5
    again = tree_map(lambda a, b: a + b, value, value)
    assert again == {"a": [2, (4, 6)], "b": Point(8, OrderedDict(c=10)), "d": ()} and type(again["b"]) is Point
    with pytest.raises(ValueError, match="5 leaves; got 1"):
        tree_unflatten([1], spec)


def test_random_numbers_of_a_block_are_put_back(door):
    door.manual_seed(1)
    a = door.rand(1).item()
    door.manual_seed(1)
    with door.random.fork_rng():
        door.manual_seed(2)
    assert door.rand(1).item() == a


def test_profile(door, tmp_path):
    profiler = door.profiler
    got = []
    with pytest.warns(UserWarning, match="all steps are observed"), profiler.profile(
            activities=[profiler.ProfilerActivity.CPU], schedule=profiler.schedule(wait=1, warmup=1, active=1),
            on_trace_ready=got.append, record_shapes=True) as prof:
        for _ in range(3):
            door.ones(3).exp()
            prof.step()
    assert got == [prof] and "exp" in prof.key_averages().table(sort_by="cpu_time_total", row_limit=5) \
        == prof.key_averages().table(sort_by="cuda_time_total", row_limit=5)
    profiler.tensorboard_trace_handler(tmp_path)(prof)
    assert len(list(tmp_path.glob("*.pt.trace.json"))) == 1


def test_tensorboard(door, monkeypatch):
    """The package gets arrays in the place of tensors; without it, the error says what to install."""
    import sys
    import types
    calls = []

    class Writer:
        logdir = "runs"

        def __init__(self, *args, **named):
            calls.append((args, named))

        def add_scalar(self, *args, **named):
            calls.append((args, named))

        def close(self):
            calls.append("closed")
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    with door.utils.tensorboard.SummaryWriter("runs", comment="c") as writer:
        writer.add_scalar("loss", door.tensor(1.5), global_step=2)
        assert writer.log_dir == "runs"
        with pytest.warns(UserWarning, match="study.graph"):
            writer.add_graph(None)
    assert calls == [(("runs",), {"comment": "c"}), (("loss", np.float32(1.5)), {"global_step": 2}), "closed"]
    assert isinstance(calls[1][0][1], np.ndarray)

    class Own(door.utils.tensorboard.SummaryWriter):
        def add_scalar(self, tag, value):
            super().add_scalar(f"own/{tag}", value)
    Own("there").add_scalar("loss", 2.0)
    assert calls[-1] == (("own/loss", 2.0), {}) and {"add_image", "close", "flush"} <= {*dir(Own)}
    assert door.utils.tensorboard.writer.SummaryWriter is door.utils.tensorboard.SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboardX"):
        door.utils.tensorboard.SummaryWriter()


def test_inner_functions_that_pytorch_shows(door):
    x = door.arange(24.0).reshape(2, 3, 4)
    out, mean, rstd = door.native_layer_norm(x, (4,), None, None, 0.5)
    assert mean.shape == (2, 3, 1) and mg.allclose(out, (x - mean) * rstd) and door.ops.aten.native_layer_norm is door.native_layer_norm
    out, mean, rstd = door.native_batch_norm(x, None, None, None, None, True, 0.1, 0.5)
    assert mean.shape == (3,) and mg.allclose(out, (x - mean[:, None]) * rstd[:, None]) and door.native_batch_norm(
        x, None, None, mg.zeros(3), mg.ones(3), False, 0.1, 0.0)[1].shape == (0,)
    out, mean, rstd = door.native_group_norm(x[..., None], None, None, 2, 3, 4, 1, 0.5)
    assert mg.allclose(out[..., 0], (x - mean[..., None]) * rstd[..., None])
    image, grid = x[:, None], mg.zeros(2, 1, 1, 2)
    assert mg.equal(door.grid_sampler_2d(image, grid, 1, 0, True), mg.nn.functional.grid_sample(image, grid, "nearest", "zeros", True))
    aten = door.ops.aten
    y, at = mg.nn.functional.max_pool2d_with_indices(image.requires_grad_(), 2, 1)
    y.sum().backward()
    assert mg.equal(aten.max_pool2d_with_indices_backward(mg.ones_like(y), image, 2, 1, 0, 1, False, at), image.grad)
    soft = mg.softmax(x, -1)
    assert mg.allclose(aten._softmax_backward_data(x, soft, -1, x.dtype), soft * (x - (soft * x).sum(-1, True)))
    assert aten._safe_softmax(mg.tensor([[-float("inf")] * 2, [1.0, 1.0]]), 1).tolist() == [[0.0, 0.0], [0.5, 0.5]]
    assert aten.slice(x, 2, 1, None, 2).shape == (2, 3, 2) and aten.native_dropout_backward(x, x > 1, 2.0).sum().item() == 2 * (276 - 1)
    assert door.empty_permuted((2, 3, 4), (2, 0, 1)).stride() == (3, 1, 6) and door.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    assert x.new_empty_strided((2, 3), (1, 2)).stride() == (1, 2) and x.__rdiv__(1.0)[0, 0, 1].item() == 1
    with pytest.raises(RuntimeError, match="each dimension once"):
        door.empty_permuted((2, 3), (0, 0))
    row, at = door.arange(6.0, requires_grad=True), mg.tensor([1, 9, 1])
    assert aten._unsafe_masked_index(row, at < 6, [at], 7.0).tolist() == [1, 7, 1]
    assert aten._unsafe_masked_index_put_accumulate(row, at < 6, [at], mg.tensor([1.0, 2.0, 3.0])).tolist() == [0, 5, 2, 3, 4, 5]
    parts = aten._chunk_cat([row.reshape(3, 2), row[:3, None]], 0, 2)           # rows 0 and 1 of both, row 2 and zeros
    assert parts.tolist() == [[0, 1, 2, 3, 0, 1], [4, 5, 0, 0, 2, 0]]
    parts[0, 3].backward()
    assert row.grad.tolist() == [0, 0, 0, 1, 0, 0]
    for wrong in (([row], 0, 0), ([], 0, 1), ([row, row[None]], -1, 2), ([row], 1, 2), ([row[:0]], 0, 1), ([x, x[:1]], 1, 2)):
        with pytest.raises(RuntimeError, match=r"\[_chunk_cat\] needs"):
            aten._chunk_cat(*wrong)


def test_a_misspelt_attribute_changes_nothing(door):
    x = door.zeros(2, requires_grad=True)
    with pytest.warns(UserWarning, match="write requires_grad"):
        x.require_grad = False
    assert x.requires_grad and callable(door.autograd.gradcheck) and not callable(door.nn)


def test_windows(door):
    assert door.hann_window(4).tolist() == [0.0, 0.5, 1.0, 0.5] and door.bartlett_window(3, periodic=False).tolist() == [0.0, 1.0, 0.0]
    assert mg.allclose(door.hamming_window(5), door.signal.windows.hamming(5, sym=False)) and door.blackman_window(3, False)[1].item() == pytest.approx(1)
    assert mg.allclose(door.kaiser_window(5, False, 3.0), door.signal.windows.kaiser(5, beta=3.0))


def test_consume_prefix_in_state_dict_if_present(door):
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present as consume
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = nn.ModuleDict({"module": net}).state_dict()
    consume(state, "module.")
    assert list(state) == list(net.state_dict()) and set(state._metadata) == {"", "0", "1"} and state._metadata["1"]["version"] == 2
    net.load_state_dict(state)
    plain = {"module.a": 1, "b.module.": 2}
    consume(plain, "module.")
    assert plain == {"a": 1, "b.module.": 2}


def test_what_tensors_and_modules_say_of_themselves(door):
    x = door.arange(12.0).reshape(3, 4)
    assert x[1:, 2:].storage_offset() == 6 and x.storage_offset() == 0 and x.is_cpu and not x.is_nested and not x.is_shared()
    assert x.t().untyped_storage().nbytes() == x.nbytes and x.dtype not in (door.complex64, door.complex128)
    assert x.clone().polygamma_(1).equal(x.polygamma(1)) and x.conj_physical_() is x and x.real is x
    net = nn.LSTM(2, 3)
    assert [w is p for w, p in zip(net._flat_weights, net.parameters(), strict=True)] == [True] * 4 and nn.InstanceNorm2d(2)._get_no_batch_dim() == 3
    with door.inference_mode():
        assert door.is_inference_mode_enabled() and not door.is_grad_enabled()
        with door.inference_mode(False):
            assert not door.is_inference_mode_enabled() and door.is_grad_enabled()
        with door.enable_grad():
            assert door.is_inference_mode_enabled() and door.is_grad_enabled()

    @door.inference_mode()
    def steps():
        yield door.is_inference_mode_enabled()
    assert next(steps()) and not door.is_inference_mode_enabled()
    assert not door.autograd.is_multithreading_enabled() and door._C.has_lapack
    assert door.backends.cuda.preferred_linalg_library() == "default"
    with door.backends.mkldnn.flags(enabled=False):
        pass
    parse = door._C._nn._parse_to
    assert parse("cpu", door.float64) == (mg.device("cpu"), mg.float64, False, None) and parse(door.float32, True) == (None, mg.float32, True, None)
    assert parse(x.double(), non_blocking=True) == (x.device, mg.float64, True, None)
    net = nn.Linear(2, 2)
    assert net.compile(mode="reduce-overhead") is None and net(door.ones(1, 2)).shape == (1, 2)
    assert mg.equal(door.ops.aten.native_layer_norm.default(x, (4,), None, None, 0.5)[0], mg.nn.functional.layer_norm(x, (4,), eps=0.5))
    image = x.reshape(1, 1, 3, 4)
    assert mg.equal(door.ops.aten._upsample_bilinear2d_aa(image, [2, 2], False), mg.nn.functional.interpolate(image, (2, 2), mode="bilinear", antialias=True))
    halves = mg.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
    assert mg.equal(door.ops.aten._upsample_bilinear2d_aa(image, None, False, [0.5, 0.5]), halves)
    with pytest.raises(NotImplementedError, match="output_size or scale_factors"):
        door.ops.aten._upsample_bilinear2d_aa(image, [1, 2], False, scales_h=0.5, scales_w=0.5)


def test_methods_in_place_keep_what_their_derivatives_need(door):
    with pytest.raises(RuntimeError, match=r"\[polygamma_\] a float32 result cannot be written into a int64"):
        mg.ones(2, dtype="int64").polygamma_(1)
    for name, args in (("polygamma_", (1,)), ("hardshrink_", ())):
        x = mg.tensor([0.7, 1.5, 3.0], requires_grad=True)
        for change in (lambda t, name=name, args=args: getattr(t.clone(), name)(*args), lambda t, name=name, args=args: getattr(t, name[:-1])(*args)):
            change(x).sum().backward()
        assert mg.equal(x.grad, 2 * mg.autograd.grad(getattr(x, name[:-1])(*args).sum(), x)[0])


def test_modules_of_distributions_are_attributes(door):
    """Of PyTorch's package all modules are there after `import torch`."""
    d = door.distributions
    assert d.normal.Normal is d.Normal and d.multivariate_normal.MultivariateNormal is d.MultivariateNormal and d.kl.kl_divergence is d.kl_divergence
    assert d.categorical.Categorical is d.Categorical and d.constraint_registry.biject_to is d.biject_to and d.transforms.ExpTransform is d.ExpTransform
    from torch.distributions.exp_family import ExponentialFamily
    from torch.distributions.gamma import Gamma
    assert issubclass(Gamma, ExponentialFamily)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_of_convolutions_by_shape(door, n):
    mg.manual_seed(0)
    x, w, options = mg.randn(2, 4, *[5] * n, requires_grad=True), mg.randn(6, 2, *[3] * n, requires_grad=True), {"stride": 2, "padding": 1, "groups": 2}
    y = getattr(nn.functional, f"conv{n}d")(x, w, None, **options)
    g = mg.randn(*y.shape, requires_grad=True)
    wanted = mg.autograd.grad(y, (x, w), g, create_graph=True)
    for name, given, gx in zip(("input", "weight"), ((x.shape, w), (x, w.shape)), wanted, strict=True):
        found = getattr(door.nn.grad, f"conv{n}d_{name}")(*given, g, **options)
        other = w if name == "input" else x
        for a, b in zip((found, *mg.autograd.grad((found * found).sum(), (other, g))), (gx, *mg.autograd.grad((gx * gx).sum(), (other, g), retain_graph=True)), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-4)
    assert not door.nn.grad.conv1d_input((1, 1, 3), door.ones(1, 1, 1), door.ones(1, 1, 3)).requires_grad


def test_norms_of_singular_values_and_powers(door):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    t, out = door.tensor(x), door.zeros(3, 4, dtype=door.float64)
    nuclear = [np.linalg.norm(m, "nuc") for m in x]
    for got, want in ((door.norm(t[0], "nuc"), nuclear[0]), (door.norm(t, p="nuc", dim=(1, 2), keepdim=True), np.reshape(nuclear, (2, 1, 1))), (t[1].norm("nuc"), nuclear[1]),
                      (door.nuclear_norm(t[0]), nuclear[0]), (door.norm(input=t, dim=1), np.linalg.norm(x, axis=1)), (t.norm(1, -1), abs(x).sum(-1)), (door.norm(t, dim=0, out=out), np.linalg.norm(x, axis=0)),
                      (door.vander(t[0, 0]), np.vander(x[0, 0])), (door.vander(t[0, 0], 3, increasing=True), np.vander(x[0, 0], 3, True)), (door.adjoint(t), x.transpose(0, 2, 1))):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    assert out.any()


def test_what_copies_of_pytorchs_own_code_import(door):
    from torch.nn.common_types import _size_1_t, _size_2_opt_t, _size_any_t  # noqa: F401
    from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary, is_tensor_like
    from torch.utils.dlpack import from_dlpack, to_dlpack
    from torch.utils.hooks import RemovableHandle
    x = door.ones(2)
    assert not has_torch_function((x,)) and not has_torch_function_unary(x) and handle_torch_function(door.add, (x,), x, 1).tolist() == [2, 2]
    assert is_tensor_like(x) and not is_tensor_like(1) and from_dlpack(to_dlpack(x)).data_ptr() == x.data_ptr()
    assert isinstance(nn.Linear(1, 1).register_forward_hook(print), RemovableHandle) and door.nn.CrossMapLRN2d(3).size == 3
    assert x.record_stream(None) is None and door.get_device(x) == -1 and door.is_same_size(x, x)
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    net.eval()
    assert door.func.replace_all_batch_norm_modules_(net) is net and door.func.functionalize(net) is net
    y = net[0](door.tensor([[1.0, 0.0], [3.0, 2.0]]))
    assert y.mean().item() == pytest.approx(0, abs=1e-6) and net[0].running_mean is None and not list(net.buffers())


@pytest.mark.parametrize(("name", "why"), [("polar", "real dtypes"), ("stft", "real dtypes"), ("linalg.eig", "real dtypes"), ("quint8", "quantized"), ("nn.parallel.gather", "parallel copies"), ("nn.parallel.replicate.replicate", "parallel copies"), ("quantize_per_tensor", "quantized"), ("sparse_csr_tensor", "sparse"), ("sparse_coo", "sparse")])
def test_names_are_refused_with_the_reason(door, name, why):
    value = door
    for part in name.split("."):
        value = getattr(value, part)
    with pytest.raises(NotImplementedError, match=rf"torch.{name} is not supported; minigrad has (no )?{why}"):
        value(door.eye(2))
    assert door.eye(2).dtype != value


def test_a_layout_that_is_not_here_is_refused(door):
    for call in (door.signal.windows.hann, door.hann_window, door.zeros):
        with pytest.raises((ValueError, NotImplementedError), match="layout"):
            call(3, layout=door.sparse_coo)
        assert call(3, layout=door.strided).shape == (3,)
    x = door.ones(2, 3)
    assert x.layout == door.strided and not x.t().layout != door.strided and door.strided == x.layout != door.sparse_coo
    assert isinstance(door.strided, door.layout) and repr(door.strided) == "torch.strided" and door.strided is not None
    assert door.hann_window(4, layout=door.strided).shape == (4,) and len({door.strided, x.layout}) == 2


def test_the_order_of_frequencies(door):
    x = np.arange(15.0).reshape(3, 5)
    for name in ("fftshift", "ifftshift"):
        for dim in (None, 0, 1, (0, 1), ()):
            np.testing.assert_array_equal(getattr(door.fft, name)(mg.tensor(x), dim).numpy(), getattr(np.fft, name)(x, dim))
    for n in (1, 2, 5, 8):
        for name in ("fftfreq", "rfftfreq"):
            np.testing.assert_allclose(getattr(door.fft, name)(n, d=0.25).numpy(), getattr(np.fft, name)(n, 0.25))
    with pytest.raises(NotImplementedError, match="real dtypes"):
        door.fft.fft(mg.ones(3))


def test_state_and_symbols(door):
    assert door.sym_max(2, 3) == 3 and door.sym_ite(False, 1, 2) == 2 and door.sym_sum([1, 2]) == 3 and door.sym_float(2) == 2.0 and not door.sym_not(True)
    assert not door.is_anomaly_enabled() and not door.is_warn_always_enabled() and not door.is_conj(door.ones(1)) and not door.ones(1).is_neg()
    assert door.cpu.is_available() and door.cpu.device_count() == 1 and "minigrad" in door.__config__.show()
    with door.cpu.amp.autocast():
        assert door.is_autocast_cpu_enabled() and door.get_autocast_cpu_dtype() == door.bfloat16
    with door.autograd.set_multithreading_enabled(False), door.autograd.grad_mode.no_grad(), door.cpu.stream(door.cpu.current_stream()):
        assert not door.is_grad_enabled()
    assert door.nn.parameter.is_lazy(nn.LazyLinear(2).weight) and not door.nn.parameter.is_lazy(nn.Linear(2, 2).weight)
    assert door.nn.functional.grad.conv1d_input is door.nn.grad.conv1d_input


def test_options_of_compilers_in_a_block(door):
    import torch._inductor.config

    @torch._inductor.config.patch("graph_partition", True)
    def f(x):
        return x + 1
    with torch._inductor.config.patch(debug=True):
        assert f(f(1)) == 3


def test_functions_of_two_and_three_elements(door):
    x = door.arange(6.0).view(2, 3)
    assert x.clone().map_(x, lambda a, b: a + 2 * b).tolist() == (3 * x).tolist() and x.clone().map2_(x, x, lambda a, b, c: a * b + c).tolist() == (x * x + x).tolist()
    assert x.dim_order() == (0, 1) and x.t().dim_order() == (1, 0) and x.is_set_to(x.view(2, 3)) and not x.is_set_to(x.t())
    with pytest.warns(UserWarning, match="range"):
        assert door.equal(door.range(0, 5, out=door.empty(2, 3)), x)
    for call in (lambda: door.vander(x), lambda: door.vander(x[0], -1), lambda: door.empty_strided((2, 2), (1,))):
        with pytest.raises(RuntimeError):
            call()


def test_cells_as_functions(door):
    i, h = door.randn(4, 2), (door.randn(4, 3), door.randn(4, 3))
    for cell, of, state in ((nn.LSTMCell(2, 3), door.lstm_cell, h), (nn.GRUCell(2, 3), door._VF.gru_cell, h[0]), (nn.RNNCell(2, 3), door.rnn_tanh_cell, h[0]),
                            (nn.RNNCell(2, 3, nonlinearity="relu"), door.rnn_relu_cell, h[0])):
        out, want = of(i, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh), cell(i, state)
        for a, b in zip(*[(v,) if isinstance(v, mg.Tensor) else v for v in (out, want)], strict=True):
            assert door.allclose(a, b)
    assert door.embedding(door.eye(3), door.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert door._segment_reduce(door.arange(4.0), "sum", lengths=door.tensor([1, 3])).tolist() == [0, 6]


def test_make_tensor(door):
    make = door.testing.make_tensor
    for dtype in (door.float32, door.float16, door.int64, door.uint8, door.bool):
        x = make(30, 5, dtype=dtype, exclude_zero=True)
        assert x.shape == (30, 5) and x.dtype == dtype and (x != 0).all() and (dtype == door.bool or 1 < x.double().max() <= 9 and x.double().min() >= -9)
    x = make((3, 4), dtype=door.float64, low=2, high=3, noncontiguous=True, requires_grad=True)
    assert x.is_leaf and x.requires_grad and not x.is_contiguous() and ((x >= 2) & (x < 3)).all() and make((), dtype=door.int32).ndim == 0


@pytest.mark.parametrize("older, newer", [("2.2", "2.13.0"), ("2.2", "2.13"), ("1.13.1", "2.0"), ("2.0.0a0", "2.0"), ("2.0rc1", "2.0.0"), ("2.0", "2.0+cpu"), ("0.4", "0.10"), ("v1", "2")])
def test_versions_are_compared_as_versions(older, newer, door):
    from torch.torch_version import TorchVersion
    a, b = TorchVersion(older), TorchVersion(newer)
    assert a < b and a <= newer and b > older and b >= a and a != b and not a == newer and not b < a
    assert isinstance(a, str) and {a: 1}[older] == 1 and a.split(".")[0] == older.split(".")[0]


def test_the_version(door):
    assert door.__version__ >= "2.2" and door.__version__ > (2, 2) and door.__version__ >= (2, 13) and not door.__version__ < "2.13"
    assert door.__version__ == str(door.__version__) and door.__version__ != "strange" and door.__version__ != (2, 12)
    assert door.version.__version__.startswith("2.13.0")


def test_what_libraries_import_of_inner_modules(door):
    import torch.cuda.nvtx as nvtx
    from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
    from torch.autograd.function import InplaceFunction
    from torch.distributions.utils import _sum_rightmost
    from torch.nn.init import _calculate_correct_fan
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
    from torch.nn.modules.module import _addindent, _IncompatibleKeys
    from torch.nn.modules.transformer import _get_activation_fn, _get_clones
    from torch.nn.parameter import is_lazy
    from torch.optim.optimizer import StateDict
    from torch.serialization import default_restore_location
    from torch.types import Number
    from torch.utils.data.dataloader import _DatasetKind
    parts = [door.rand(2, 3), door.rand(4), door.rand(())]
    flat = _flatten_dense_tensors(parts)
    assert flat.shape == (11,) and all(door.equal(a, b) for a, b in zip(_unflatten_dense_tensors(flat, parts), parts, strict=True))
    x = door.arange(24.0).view(2, 3, 4)
    assert _sum_rightmost(x, 0) is x and door.equal(_sum_rightmost(x, 2), x.sum((1, 2))) and door._standard_gamma(door.ones(3)).shape == (3,)
    assert _calculate_correct_fan(door.zeros(5, 4, 3), "fan_out") == 15 and issubclass(NonDynamicallyQuantizableLinear, nn.Linear)
    copies = _get_clones(nn.Linear(2, 2), 3)
    assert len(copies) == 3 and copies[0].weight is not copies[1].weight and _get_activation_fn("gelu")(door.ones(1)).item() == pytest.approx(0.8413447)
    with pytest.raises(RuntimeError, match="relu"):
        _get_activation_fn("tanh")
    assert is_lazy(nn.LazyLinear(3).weight) and not is_lazy(copies[0].weight) and _addindent("a\nb", 2) == "a\n  b"
    assert _IncompatibleKeys([], []).missing_keys == [] and _DatasetKind.Map == 0 and isinstance(1.5, Number) and StateDict({"a": 1}) == {"a": 1}
    assert default_restore_location(x, "cpu") is x and InplaceFunction is door.autograd.Function
    with nvtx.range("step"), door.cuda.stream(door.cuda.current_stream()):
        nvtx.range_push("a")
        nvtx.range_pop()
    assert door.cuda.get_rng_state_all() == [] and door._C._get_tracing_state() is None and door._C._jit_set_profiling_mode(False) is None
    assert door.nn._reduction.legacy_get_string(False, None) == "sum" and door.nn._reduction.legacy_get_string(None, False) == "none"


def test_options_of_compilers_have_no_effect(door):
    import torch._dynamo.config as dynamo
    import torch._inductor.config as config
    config.coordinate_descent_tuning = True
    config.triton.cudagraphs = False
    dynamo.recompile_limit = 9
    assert door._dynamo.config.recompile_limit == 9
    assert config.coordinate_descent_tuning is True and not config.triton.unique_kernel_names

    class Module(nn.Module):
        scale: door.jit.Final[int]

        def __setstate__(self, state):
            super().__setstate__(state)
            self.restored = True
    import copy
    made = Module()
    made.layer = nn.Linear(2, 3)
    again = copy.deepcopy(made)
    again.__setstate__(made.__dict__)
    assert again.restored and again.layer is made.layer
    assert door.jit.trace_module.__doc__ and issubclass(door.jit.TracerWarning, Warning) and not isinstance(made, door.jit.ScriptFunction)
    with door.autocast("cpu"):
        assert door.is_autocast_cpu_enabled()
    assert not door.is_autocast_cpu_enabled() and door.get_autocast_gpu_dtype() == door.float16


def test_ranks_of_a_group(door, monkeypatch):
    import torch.distributed as dist

    from minigrad import distributed
    monkeypatch.setattr(distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    assert dist.get_rank() == dist.get_rank(group=dist.group.WORLD) == 3 and dist.get_world_size(None) == 4
    assert dist.get_rank(object()) == dist.get_world_size(group=object()) == -1
    assert getattr(dist, f"is_{dist.Backend.GLOO}_available")() is False and dist.Backend.NCCL == "nccl"
    from torch.futures import Future
    assert (Future[door.Tensor] | None) == (Future | None) and not isinstance(1, Future[int])
    assert not isinstance(door.ones(1), door.Future) and dist.ReduceOp.BAND != dist.ReduceOp.SUM == mg.distributed.ReduceOp.SUM
    from torch.distributions.transforms import ExpTransform, _InverseTransform
    assert isinstance(ExpTransform().inv, _InverseTransform)
    from torch.jit.annotations import List
    assert List[int] == list[int]


def test_classes_in_trees(door):
    from torch.utils._pytree import register_pytree_node, tree_flatten, tree_map, tree_map_only, tree_unflatten

    class Pair:
        def __init__(self, a, b, name):
            self.a, self.b, self.name = a, b, name
    register_pytree_node(Pair, lambda p: ([p.a, p.b], p.name), lambda entries, name: Pair(*entries, name))
    leaves, spec = tree_flatten({"x": Pair(1, [2, 3], "n")})
    assert leaves == [1, 2, 3] and spec.num_leaves == 3
    back = tree_unflatten(leaves, spec)["x"]
    assert (back.a, back.b, back.name) == (1, [2, 3], "n")
    assert tree_map(lambda x: -x, back).b == [-2, -3]
    assert tree_map_only(int, lambda x: x + 1, [1, "a", (2,)]) == [2, "a", (3,)]


def test_bfloat16_can_be_named_without_ml_dtypes(door, monkeypatch):
    import sys
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ml_dtypes", None)
        patch.delitem(vars(mg), "bfloat16", raising=False)
        patch.delitem(vars(door), "bfloat16", raising=False)
        table = {"float32": door.float32, "bfloat16": door.bfloat16}        # as many programs write it
        assert door.ones(1).dtype != table["bfloat16"] and door.float32 not in (door.bfloat16,)
        for use in (lambda: door.ones(2).to(door.bfloat16), lambda: door.zeros(2, dtype=door.bfloat16), lambda: nn.Linear(2, 2, dtype=door.bfloat16)):
            with pytest.raises(ValueError, match="pip install ml_dtypes"):
                use()
        del door.bfloat16


def test_classes_of_tensors(door):
    """What `__new__` of a class makes stays as it is; results are plain tensors."""
    class Named(door.Tensor):
        @staticmethod
        def __new__(cls, data, *, name, requires_grad=False):
            made = door.Tensor._make_subclass(cls, data, requires_grad)
            made.name = name
            return made

    class NamedParameter(Named, nn.Parameter):
        def __new__(cls, data, name, requires_grad=True):
            return Named.__new__(cls, data, name=name, requires_grad=requires_grad)

    class Curved(nn.Parameter):
        def __new__(cls, data, requires_grad, curvature):
            return nn.Parameter.__new__(cls, data, requires_grad)

        def __init__(self, data, requires_grad, curvature):
            self.curvature = curvature

    data = door.rand(2, 3)
    a = Named(data, name="a")
    assert type(a) is Named and a.name == "a" and not a.requires_grad and a.data_ptr() == data.data_ptr() and type(a + 1) is type(data)
    holder = nn.Module()
    holder.p, holder.c = NamedParameter(data, "p"), Curved(door.ones(3), True, -1.0)
    assert [n for n, _ in holder.named_parameters()] == ["p", "c"] and holder.p.name == "p" and holder.c.curvature == -1.0
    (holder.p * holder.c).sum().backward()
    assert door.equal(holder.c.grad, data.sum(0)) and holder.p.grad.tolist() == [[1.0] * 3] * 2
    assert nn.Parameter(data).shape == (2, 3) and nn.Parameter().shape == (0,) and door.Tensor([1.0]).tolist() == [1.0]
    from minigrad.as_torch import methods
    methods.take_off()
    assert "__new__" not in vars(nn.Parameter) and not hasattr(mg.Tensor, "as_subclass") and nn.Parameter(data, False).data_ptr() == data.data_ptr()
    with pytest.raises(AttributeError, match="_make_subclass"):
        Named(data, name="b")


def test_a_lazy_layer_of_ones_own_is_a_mixin(door):
    from torch.nn.modules.lazy import LazyModuleMixin
    from torch.nn.parameter import UninitializedParameter

    class Scale(LazyModuleMixin, nn.Module):
        def __init__(self):
            super().__init__()
            self.register_parameter("weight", UninitializedParameter())

        def initialize_parameters(self, x):
            self.weight.materialize(x.shape[-1:])
            nn.init.ones_(self.weight)

        def forward(self, x):
            return x * self.weight

    assert Scale()(door.ones(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("again", [False, True])
def test_a_class_of_tensors_is_made_by_new(door, again):
    """`__init__` of a class need not call Tensor's, and makes nothing anew if it does."""
    class Unit(door.Tensor):
        def __new__(cls, data, *, unit):
            return super().__new__(cls, data)

        def __init__(self, data, *, unit):
            if again:
                super().__init__()
            self.unit = unit

    class Bare(door.Tensor):
        def __init__(self, *args):
            self.made = True

    class Tagged(nn.Parameter):
        def __new__(cls, data, tag):
            made = super().__new__(cls, data)
            made.tag = tag
            return made

    a, p = Unit([1.0, 2.0], unit="m"), Tagged(door.ones(2), "t")
    assert a.unit == "m" and (a * 2).tolist() == [2.0, 4.0] and type(copy.deepcopy(a)) is Unit and copy.deepcopy(a).tolist() == [1.0, 2.0]
    assert p.tag == "t" and p.requires_grad and p.tolist() == [1.0, 1.0]
    assert Bare([1.0]).made and Bare([1.0]).tolist() == [1.0] and Bare(2, 3).shape == (2, 3) and Bare().shape == (0,)
    assert door.Tensor.__new__(door.Tensor, [3.0]).tolist() == [3.0] == door.Tensor([3.0]).tolist()


def test_as_subclass_is_a_view_in_the_graph(door):
    class Mine(door.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return super().__torch_function__(func, types, args, kwargs)

    x = door.arange(6.0).view(2, 3).t().requires_grad_()
    y = x * 2
    mine = y.as_subclass(Mine)
    assert type(mine) is Mine and mine._base is y and not mine.is_leaf and mine.stride() == y.stride()
    mine.mul_(3)
    assert door.equal(y, x * 6) and type(mine.as_subclass(door.Tensor)) is door.Tensor
    y.sum().backward()
    assert x.grad.tolist() == [[6.0, 6.0]] * 3
    plain = door.ones(2)
    plain.as_subclass(Mine).add_(1)
    assert plain.tolist() == [2.0, 2.0] and Mine.__torch_function__(door.add, (), (plain, 1)).tolist() == [3.0, 3.0]
    from torch._C import DisableTorchFunctionSubclass, _disabled_torch_function_impl
    with DisableTorchFunctionSubclass():
        assert _disabled_torch_function_impl(door.mul, (), (plain, 2)).tolist() == [4.0, 4.0]


def test_what_dtypes_tell(door):
    assert door.float16.is_floating_point and not door.int8.is_floating_point and door.zeros(1).dtype.is_signed
    assert not door.bool.is_signed and not door.uint8.is_signed and door.complex64.is_complex and not door.float64.is_complex
    from minigrad.as_torch import methods
    methods.take_off()
    for name in ("is_floating_point", "is_complex", "is_signed"):
        assert not hasattr(np.dtype("float32"), name) and not hasattr(type(np.dtype("float32")), name)
    methods.put_on()
    assert door.float32.is_floating_point


def test_inner_names_of_optimizers(door):
    from torch.optim import optimizer as inner

    class Plain(door.optim.Optimizer):
        @inner._use_grad_for_differentiable
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad * group["lr"])

    p = door.ones(3, requires_grad=True)
    (p * p).sum().backward()
    Plain([p], {"lr": 0.25}).step()
    assert p.tolist() == [0.5] * 3 and p.is_leaf
    x, y, z = door.ones(2), door.ones(2, dtype=door.float64), door.zeros(2)
    groups = door.optim.Optimizer._group_tensors_by_device_and_dtype([[x, y, z], [1, 2, 3], [None, y, None]])
    assert groups == {(x.device, x.dtype): ([[x, z], [1, 3], [None, None]], [0, 2]), (x.device, y.dtype): ([[y], [2], [y]], [1])}
    assert door.optim.Optimizer._group_tensors_by_device_and_dtype([[x, z], []]) == {(x.device, x.dtype): ([[x, z], []], [0, 1])}     # no amsgrad
    assert inner._get_value(door.tensor(2.5)) == 2.5 == inner._get_value(2.5) and inner._dispatch_sqrt(4.0) == 2 == inner._dispatch_sqrt(door.tensor(4.0)).item()
    assert inner._default_to_fused_or_foreach([p], False) == (False, False) and inner._get_scalar_dtype() == "float32" and inner._foreach_doc == ""
    assert inner._disable_dynamo_if_unsupported(single_tensor_fn=1)(len) is len and inner._stack_if_compiling(p) is p
    from torch.optim._multi_tensor import SGD
    assert SGD is door.optim.SGD and SGD([p], lr=1.0)._cuda_graph_capture_health_check() is None
    assert inner._get_capturable_supported_devices() == ["cuda"] and inner._view_as_real([p]) is None
    try:
        door.set_default_dtype(door.float64)
        assert inner._get_scalar_dtype() == "float64" and inner._get_scalar_dtype(is_fused=True) == "float32"
    finally:
        door.set_default_dtype(door.float32)


def test_exponential_families(door):
    from torch.distributions import (
        Cauchy,
        Distribution,
        Exponential,
        ExponentialFamily,
        Normal,
        constraints,
        register_kl,
    )
    from torch.distributions.exp_family import ExponentialFamily as again

    class MyExponential(ExponentialFamily):
        arg_constraints = {"rate": constraints.positive}
        _mean_carrier_measure = 0

        def __init__(self, rate):
            self.rate = rate
            super().__init__(rate.shape)

        @property
        def _natural_params(self):
            return (-self.rate,)

        def _log_normalizer(self, x):
            return -(-x).log()

    rate = door.tensor([0.5, 2.0])
    assert again is ExponentialFamily and isinstance(Normal(0, 1), ExponentialFamily) and not isinstance(Cauchy(0, 1), ExponentialFamily)
    assert issubclass(ExponentialFamily, Distribution) and isinstance(MyExponential(rate), Distribution)
    with door.no_grad():
        np.testing.assert_allclose(MyExponential(rate).entropy().numpy(), Exponential(rate).entropy().numpy(), rtol=1e-6)

    class Mixin:
        pass

    class Mixed(Cauchy, Mixin):
        pass
    register_kl(Mixed, Mixin)(lambda p, q: "mixed")
    assert door.distributions.kl_divergence(Mixed(0, 1), Mixed(0, 1)) == "mixed"
    with pytest.raises(TypeError, match="class"):
        register_kl(Mixed, 3)


def test_more_inner_names(door):
    from torch._jit_internal import Optional, boolean_dispatch
    from torch._utils import is_compiling
    from torch.nn.functional import handle_torch_function, has_torch_function
    from torch.nn.utils.stateless import _reparametrize_module
    from torch.serialization import DEFAULT_PROTOCOL
    from torch.serialization import pickle as module
    from torch.types import Device, FileLike, _device, _dtype, _layout, _TensorOrTensors
    assert module.dumps and DEFAULT_PROTOCOL == 2 and Optional[int] and not is_compiling() and not has_torch_function((1,))
    assert handle_torch_function(len, (), [1, 2]) == 2 and door.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2", "AVX512")
    assert isinstance(door.float32, _dtype) and isinstance(door.device("cpu"), _device) and isinstance(door.strided, _layout)
    assert None not in (Device, FileLike, _TensorOrTensors)
    pick = boolean_dispatch("two", 1, False, lambda x, two=False: (x, x), lambda x, two=False: x)
    assert pick(1) == 1 and pick(1, True) == pick(1, two=True) == (1, 1)
    rows = door._sample_dirichlet(door.full((5, 3), 2.0))
    assert rows.shape == (5, 3) and np.allclose(rows.sum(-1).numpy(), 1)
    layer = nn.Linear(2, 1)
    with pytest.raises(ZeroDivisionError), _reparametrize_module(layer, {"weight": door.ones(1, 2), "bias": door.zeros(1)}):
        assert layer(door.ones(2)).tolist() == [2.0]
        raise ZeroDivisionError
    assert isinstance(layer.weight, nn.Parameter) and len([*layer.parameters()]) == 2
    with pytest.raises(KeyError), _reparametrize_module(layer, {"weights": door.ones(1)}):
        pass


def test_convolution_of_time_batch_and_channels(torch, door):
    given = [np.random.default_rng(k).standard_normal(shape) for k, shape in enumerate(((5, 2, 3), (3, 3, 4), (4,)))]
    got, want = [lib.nn.functional.conv_tbc(*[lib.tensor(a) for a in given], 1).numpy() for lib in (door, torch)]
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_gather_takes_sparse_gradients_as_dense(door):
    x = door.ones(3, requires_grad=True)
    x.gather(0, door.tensor([1, 1]), sparse_grad=True).sum().backward()
    assert x.grad.tolist() == [0, 2, 0]


def _before_loading(state_dict, *rest):
    state_dict["weight"] = state_dict.pop("old")


def _after_saving(module, state_dict, *rest):
    return {"old": state_dict["weight"], "bias": state_dict["bias"]}


def test_modules_with_inner_hooks_are_pickled(door):
    import copy
    import pickle
    layer = nn.Linear(2, 2)
    layer._register_load_state_dict_pre_hook(_before_loading)
    layer._register_state_dict_hook(_after_saving)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        state = again.state_dict()
        assert [*state] == ["old", "bias"] and not any(nn.Module.load_state_dict(again, state))


def test_names_that_trainers_import(door):
    """PyTorch Lightning and accelerate: classes to compare with, what `Module.to` takes, a loader's own arguments."""
    from torch._C import _TensorMeta
    from torch._dynamo.eval_frame import OptimizedModule
    from torch.distributed import ReduceOp
    from torch.profiler import ProfilerAction, kineto_available
    from torch.storage import TypedStorage, UntypedStorage
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
    from torch.utils.flop_counter import FlopCounterMode
    x = door.ones(2, 3)
    for kind in (UntypedStorage, TypedStorage, door.FloatStorage, door.PyTorchFileReader, door.overrides.TorchFunctionMode, _MultiProcessingDataLoaderIter):
        assert not isinstance(x, kind) and issubclass(kind, kind)
        with pytest.raises(NotImplementedError):
            kind()
    assert isinstance(x, _TensorMeta) is False and isinstance(door.Tensor, _TensorMeta) and ReduceOp.RedOpType is str
    assert not isinstance(door.compile(nn.Linear(1, 1)), OptimizedModule) and issubclass(door.ScriptModule, nn.Module)
    assert door._dynamo.eval_frame.OptimizedModule is OptimizedModule and not kineto_available() and ProfilerAction.RECORD.value == 2
    assert door._C._nn._parse_to(x, non_blocking=True)[:2] == (x.device, x.dtype) and door._C._nn.gelu is door.nn.functional.gelu
    with FlopCounterMode(display=False) as counted:
        (x @ door.ones(3, 4)).sum()
        inside = counted.get_total_flops()
    assert inside == counted.get_total_flops()
    with counted:
        (x @ door.ones(3, 4)).sum()
    assert inside == counted.get_total_flops()                              # of the last block
    assert counted.get_total_flops() >= 48 and list(counted.get_flop_counts()) == ["Global"] and "Total" in counted.get_table()
    assert door.Tensor(size=(2, 3)).shape == (2, 3) == door.Tensor(size=[2, 3]).shape


def test_trees_of_other_containers(door):
    from collections import OrderedDict, defaultdict, deque, namedtuple

    from torch.utils._pytree import SUPPORTED_NODES, LeafSpec, TreeSpec, _get_node_type, tree_flatten, tree_unflatten
    lists = defaultdict(list)
    lists["a"] = 1
    Point = namedtuple("Point", "x y")
    for value in (OrderedDict(a=1), lists, deque([1, 2], maxlen=3), Point(1, [2]), [door.Size([1, 2])], {"max": door.eye(2).max(0)}):
        leaves, spec = tree_flatten(value)
        again = tree_unflatten(leaves, spec)
        assert type(again) is type(value) and (again == value or isinstance(value, dict))
    assert tree_flatten(door.Size([1, 2]))[0] == [1, 2] and tree_flatten(1)[1] == LeafSpec() and _get_node_type(Point(1, 2)) is namedtuple in SUPPORTED_NODES
    parts, context = SUPPORTED_NODES[dict].flatten_fn({"k": 5})
    assert tree_unflatten(parts, TreeSpec(dict, context, [LeafSpec()])) == {"k": 5}
