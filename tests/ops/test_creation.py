"""Numbers on their way into tensors: what a dtype cannot hold is refused, what it can hold arrives exactly."""
import copy
from collections import deque

import numpy as np
import pytest
from safetensors.numpy import save_file

import minigrad as mg

INTEGERS = (mg.uint8, mg.int8, mg.int16, mg.int32, mg.int64)
inf, nan = float("inf"), float("nan")


def _set(index):
    def door(dtype, number):
        x = mg.zeros(3, dtype=dtype)
        x[index(x)] = number
    return door


DOORS = {       # every way in which a Python number becomes an element
    "full": lambda dtype, n: mg.full((2,), n, dtype=dtype),
    "full_like": lambda dtype, n: mg.full_like(mg.zeros(2, dtype=dtype), n),
    "new_full": lambda dtype, n: mg.zeros(2, dtype=dtype).new_full((2,), n),
    "fill_": lambda dtype, n: mg.zeros(2, dtype=dtype).fill_(n),
    "copy_": lambda dtype, n: mg.zeros(2, dtype=dtype).copy_(n),
    "masked_fill": lambda dtype, n: mg.zeros(2, dtype=dtype).masked_fill(mg.tensor([True, False]), n),
    "masked_fill_": lambda dtype, n: mg.zeros(2, dtype=dtype).masked_fill_(mg.tensor([True, False]), n),
    "index_fill": lambda dtype, n: mg.zeros(2, dtype=dtype).index_fill(0, mg.tensor([1]), n),
    "scatter": lambda dtype, n: mg.zeros(2, dtype=dtype).scatter(0, mg.tensor([1]), n),
    "scatter value": lambda dtype, n: mg.zeros(2, dtype=dtype).scatter(0, mg.tensor([1]), value=n),
    "pad": lambda dtype, n: mg.nn.functional.pad(mg.zeros(2, dtype=dtype), (1, 0), value=n),
    "linspace": lambda dtype, n: mg.linspace(0, n, 3, dtype=dtype),
    "x[0]": _set(lambda x: 0),
    "x[:2]": _set(lambda x: slice(2)),
    "x[mask]": _set(lambda x: x == 0),
    "x[index]": _set(lambda x: mg.tensor([0, 2])),
}
DATA = {        # and every way in which nested lists become a tensor
    "tensor": lambda dtype, n: mg.tensor([[n]], dtype=dtype),
    "tensor of a number": lambda dtype, n: mg.tensor(n, dtype=dtype),
    "as_tensor": lambda dtype, n: mg.as_tensor((n,), dtype=dtype),
    "new_tensor": lambda dtype, n: mg.zeros(2, dtype=dtype).new_tensor([0, n]),
    "x[:1] = [n]": lambda dtype, n: _set(lambda x: slice(1))(dtype, [n]),
    "copy_ of a list": lambda dtype, n: mg.zeros(2, dtype=dtype).copy_([0, n]),
}


@pytest.mark.parametrize("door", [*DOORS, *DATA])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_that_do_not_fit_are_refused(door, dtype):
    put, limits = {**DOORS, **DATA}[door], np.iinfo(dtype)
    for number in (limits.max + 1, limits.min - 1, 1 << 63, 1 << 64, 1e40, -1e40, inf, nan, np.float64(1e30)):
        with pytest.raises(RuntimeError, match=f"must fit {dtype}") as caught:
            put(dtype, number)
        assert caught.value.__context__ is None
    for number in (int(limits.max), int(limits.min), 1.5, True, np.int64(3)):
        put(dtype, number)


@pytest.mark.parametrize("door", DOORS)
def test_no_finite_number_becomes_infinite(door):
    for dtype, number in ((mg.float32, 1e40), (mg.float32, -1e300), (mg.float16, -1e9), (mg.float16, 70000)):
        with pytest.raises(RuntimeError, match=f"must fit {dtype}"):
            DOORS[door](dtype, number)
    for number in (3.4e38, 1 << 64, -inf) if door != "linspace" else (3.4e38,):
        DOORS[door](mg.float32, number)


def test_tensors_of_one_element_in_lists_are_numbers():
    one, two = mg.tensor([1.5]), mg.tensor([[2]])
    assert mg.tensor([[one, one], [one, 2.0]]).tolist() == [[1.5, 1.5], [1.5, 2.0]]
    assert mg.tensor([one, two, 3]).tolist() == mg.as_tensor((one, 2.0, mg.tensor(3))).tolist() == [1.5, 2.0, 3.0]
    assert mg.tensor([3, two]).tolist() == [3, 2] and mg.tensor([two, two]).dtype == mg.int64
    assert mg.tensor([one], requires_grad=True).shape == (1,) and mg.tensor([mg.ones(2), mg.zeros(2)]).shape == (2, 2)
    with pytest.raises(ValueError, match="must be a rectangular array"):
        mg.tensor([one, mg.ones(2)])
    assert mg.tensor(deque([1.0, 2.0])).dtype == mg.float32 and mg.tensor(deque([one, two])).tolist() == [1.5, 2.0]


def test_tensors_of_a_graph_in_lists_are_numbers():
    x = mg.tensor(2.0, requires_grad=True)
    for data, want in (([0.0, x * x], [0, 4]), ([x * x, 0.0], [4, 0]), ([[1, x], [x, 3.0]], [[1, 2], [2, 3]])):
        made = mg.tensor(data)
        assert made.dtype == mg.float32 and not made.requires_grad and made.tolist() == want


@pytest.mark.filterwarnings("ignore:where received a uint8")
def test_where_takes_bytes_as_an_old_mask(torch):
    """As PyTorch does; other integers are refused by both."""
    mask, x = np.array([1, 0, 2], np.uint8), np.array([1.0, 2.0, 3.0])
    for _ in range(2):                                  # the second time by what is remembered
        assert mg.where(mg.tensor(mask), mg.tensor(x), 0.0).tolist() == torch.where(torch.tensor(mask), torch.tensor(x), 0.0).tolist() == [1, 0, 3]
    with pytest.raises(RuntimeError, match="condition must be bool"):
        mg.where(mg.tensor(mask).int(), mg.tensor(x), 0.0)


def test_where_and_clamp_take_numbers_that_fit():
    mask = mg.tensor([True, False])
    for dtype, number in ((mg.uint8, 300), (mg.uint8, -1), (mg.int64, 1 << 63), (mg.float16, -1e9), (mg.float32, 1e40)):
        x = mg.zeros(2, dtype=dtype)
        for call in (lambda: mg.where(mask, x, number), lambda: mg.where(mask, number, x), lambda: x.clamp(max=number),     # noqa: B023
                     lambda: x.clamp(number)):                                                                              # noqa: B023
            with pytest.raises(RuntimeError, match=f"must fit {dtype}"):
                call()


def test_a_number_that_does_not_fit_is_refused_by_the_name_of_the_function():
    F, low = mg.nn.functional, mg.tensor([1, 2, 100], dtype="int8")
    for name, call in (("clamp", lambda: low.clamp(0, 300)), ("clamp", lambda: low.clamp(max=300)), ("clamp", lambda: low.clamp_(-300, 3)), ("clamp", lambda: mg.clamp_min(low, -300)), ("clamp", lambda: low.half().clamp(max=1e9)),
                       ("clamp", lambda: low.long().clamp(-1 << 70, 1 << 70)), ("threshold", lambda: F.threshold(low, 5, 300)), ("hardtanh", lambda: F.hardtanh(low, -300, 3)), ("hardtanh", lambda: F.hardtanh(low, -1, 300)),
                       ("hardtanh", lambda: F.hardtanh(low, -np.inf, 3)), ("randint_like", lambda: mg.randint_like(low, 300)), ("masked_fill", lambda: low.masked_fill(low > 1, 300)), ("where", lambda: mg.where(low > 1, low, 300))):
        with pytest.raises(RuntimeError, match=rf"^\[{name}\] the number must fit"):
            call()
    assert F.threshold(low, 5, 2.5).tolist() == [2.5, 2.5, 100] and F.threshold(low, 300, 7).tolist() == [7, 7, 7] and F.hardtanh(low, -3, 4).tolist() == [1, 2, 4] and F.relu6(low).tolist() == [1, 2, 6]


def test_numbers_are_written_as_they_are():
    writings = (lambda x, v: x.__setitem__(0, v[0]), lambda x, v: x.__setitem__(slice(2), v), lambda x, v: x.__setitem__(slice(0, 2), tuple(v)),
                lambda x, v: x.__setitem__(mg.tensor([True, True]), v), lambda x, v: x.__setitem__(mg.tensor([0, 1]), v),
                lambda x, v: x.__setitem__([0, 1], np.array(v)), lambda x, v: x.copy_(v), lambda x, v: x.__setitem__((..., 0), v[0]))
    for dtype, values in ((mg.float64, [1.1, 1e300]), (mg.int64, [2**53 + 1, -2**63]), (mg.int64, [2**63 - 1, 0])):
        for write in writings:
            x = mg.zeros(2, dtype=dtype)
            write(x, values)
            assert x.tolist() in (values, [values[0], 0])
    x = mg.zeros(2, 2, dtype=mg.float64)
    x[:] = [[1.1, np.float64(2.2)], [3, mg.tensor(4.4, dtype=mg.float64)]]
    assert x.tolist() == [[1.1, 2.2], [3.0, 4.4]]
    x[0] = np.float64(0.1)
    assert x[0].tolist() == [0.1, 0.1]
    half = mg.zeros(1, dtype=mg.bool)
    half[0] = 2.5
    assert half.tolist() == [True]


def test_integers_between_floats_are_exact():
    assert mg.tensor([2**53 + 1, 5.0], dtype=mg.int64).tolist() == [2**53 + 1, 5]
    assert mg.tensor([2**64, 0.5], dtype=mg.float64).tolist() == [2.0**64, 0.5]
    assert mg.tensor([2**64], dtype=mg.float32).tolist() == [2.0**64]
    assert mg.tensor([2**63], dtype=mg.uint64).tolist() == [2**63]
    for data in (2**63, [2**63], [2**63, -1], [2**64]):
        with pytest.raises(RuntimeError, match="must fit int64"):
            mg.tensor(data)
    assert mg.tensor([np.uint64(2**63)]).dtype == mg.uint64


def test_tensors_and_arrays_are_cast_and_wrap_around():
    assert mg.tensor([300]).to(mg.int8).tolist() == [44]
    assert mg.tensor(np.array([300]), dtype=mg.int8).tolist() == [44]
    x = mg.zeros(1, dtype=mg.uint8)
    x[0] = mg.tensor(300)
    assert x.tolist() == [44]


def test_ranges_and_random_integers_fit():
    for call in (lambda: mg.arange(250, 260, dtype=mg.uint8), lambda: mg.arange(-1, 3, dtype=mg.uint8), lambda: mg.randint(250, 300, (5,), dtype=mg.uint8),
                 lambda: mg.randint_like(mg.zeros(3, dtype=mg.int8), 0, 200), lambda: mg.randperm(300, dtype=mg.uint8), lambda: mg.linspace(0, 300, 3, dtype=mg.uint8),
                 lambda: mg.zeros(3, dtype=mg.uint8).random_(0, 300), lambda: mg.tril_indices(300, 1, dtype=mg.uint8), lambda: mg.arange(2**63, 2**63 + 2)):
        with pytest.raises(RuntimeError, match="must fit"):
            call()
    assert mg.arange(250, 256, dtype=mg.uint8).tolist() == [*range(250, 256)]
    assert mg.arange(-1.5, 1.5, dtype=mg.int64).tolist() == [-1, 0]
    assert mg.arange(end=3).tolist() == mg.arange(start=0, end=3).tolist() == [0, 1, 2]
    for dtype in ("int32", "uint8", "int16"):                   # only int64 counts with whole bounds, in PyTorch too
        assert mg.arange(0.5, 4.2, 2.0, dtype=dtype).tolist() == [0, 2] and mg.arange(0, 4.2, 2.0, dtype=dtype).tolist() == [0, 2, 4]


def test_dtypes_that_are_not_real_numbers_are_refused():
    x = mg.ones(2)
    for dtype in ("complex64", "complex128", object):
        for call in (lambda d: mg.zeros(2, dtype=d), lambda d: x.to(d), lambda d: mg.tensor([1.0], dtype=d), lambda d: x.sum(dtype=d), lambda d: mg.full((2,), 1, dtype=d),
                     lambda d: mg.arange(3, dtype=d), lambda d: mg.empty_like(x, dtype=d), lambda d: mg.from_numpy(np.zeros(2, d)), lambda d: x.view(d)):
            with pytest.raises((TypeError, RuntimeError)):
                call(np.dtype(dtype))
    assert mg.randint(0, 256, (1000,), dtype=mg.uint8).max() <= 255
    assert mg.randperm(256, dtype=mg.uint8).long().sum() == 255 * 128


def test_sizes_by_name():
    x = mg.arange(6, dtype=mg.float64)
    assert mg.rand(size=(2, 3)).shape == mg.randn(size=(2, 3)).shape == (2, 3) and x.repeat(repeats=(2,)).shape == (12,)
    assert x.new_zeros(size=(2, 3)).dtype == mg.float64 and x.new_full(size=(2,), fill_value=1.5).tolist() == [1.5, 1.5]
    assert x.new_tensor(data=[1]).dtype == mg.float64
    for call in (lambda: x.new_zeros(sizes=2), lambda: x.repeat(repeat=2), lambda: mg.rand(sizes=2), lambda: x.new_full((2,), fill=1)):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            call()
    other = np.arange(3.0)
    shared, copied = mg.from_dlpack(other), mg.from_dlpack(other, device="cpu", copy=True)
    other[0] = 7
    assert shared.tolist()[0] == 7 and copied.tolist()[0] == 0
    with pytest.raises(NotImplementedError, match="copy=False"):
        mg.from_dlpack(other, copy=False)
    with pytest.raises(BufferError, match="part of a graph"):
        mg.from_dlpack(mg.ones(2, requires_grad=True))


@pytest.mark.parametrize("first", [[], [1.0], [mg.ones(2)]])
def test_lists_that_contain_themselves_are_refused(first):
    data = [*first]
    data.append(data)
    if not first:
        deep = mg.ones(1)
        for _ in range(5000):
            deep = (deep,)
        with pytest.raises(ValueError, match="\\[tensor\\]"):
            mg.tensor(deep)
    for make in (mg.tensor, mg.as_tensor, mg.asarray, mg.Tensor, lambda values: mg.zeros(2).copy_(values), lambda values: mg.ones(3)[values,]):
        with pytest.raises(ValueError, match="\\[tensor\\]"):
            make(data)


def test_bytes_of_bools_are_0_or_1_where_they_come_in(tmp_path):
    odd = np.array([7, 0, 255, 2], np.uint8).view(bool)
    written = mg.zeros(4, dtype=mg.bool)
    written[:] = odd
    save_file({"odd": odd}, tmp_path / "f.safetensors")
    doors = [mg.tensor(odd), mg.as_tensor(odd), mg.asarray(odd), mg.from_numpy(odd), mg.from_dlpack(odd), written,
             mg.from_numpy(odd[::2]), mg.tensor([odd]), mg.load(tmp_path / "f.safetensors")["odd"]]
    for t in doors:
        want = (odd[::2] if t.shape == (2,) else odd).view(np.uint8) != 0
        assert t.reshape(-1).long().tolist() == want.astype(int).tolist()
        assert (t == True).reshape(-1).tolist() == want.tolist()                # noqa: E712
        assert t.sum().item() == want.sum()
    plain = np.array([True, False])
    shared = mg.from_numpy(plain)
    plain[1] = True
    assert shared.tolist() == [True, True]


def test_memory_of_buffers():
    memory = bytearray(8)
    t, u = mg.frombuffer(memory, dtype=mg.int32), mg.asarray(memory, dtype=mg.int16)
    memory[4] = 5
    assert t.tolist() == [0, 5] and u.tolist() == [0, 0, 5, 0]           # shared, and not one element for each byte
    floats = np.arange(4, dtype=np.float32)
    for dtype, count in ((mg.float32, 4), (mg.int32, 4), (mg.float64, 2), (mg.uint8, 16)):
        shared = mg.asarray(memoryview(floats), dtype=dtype)
        assert shared.shape == (count,) and shared.data_ptr() == floats.ctypes.data
    assert mg.asarray(b"\1\0\0\0", dtype=mg.int32).tolist() == [1] == mg.asarray(memoryview(b"\1\0"), dtype=mg.int16, copy=True).tolist()
    assert mg.frombuffer(memory, dtype=mg.uint8, count=2, offset=3, requires_grad=False).tolist() == [0, 5]
    with pytest.raises(ValueError):
        mg.frombuffer(memory, dtype=mg.int32, count=3)


def test_a_device_is_the_default_inside_a_block():
    before = mg.get_default_device()
    with mg.device("cpu") as outer:
        with pytest.raises(ZeroDivisionError), mg.device("cpu"):
            raise ZeroDivisionError
        assert mg.ones(2).device is outer is mg.get_default_device()
    assert mg.get_default_device() is before


def test_what_dtypes_can_be_written_where():
    assert mg.can_cast(mg.int32, mg.float16) and mg.can_cast(mg.bool, mg.uint8) and mg.can_cast(mg.float64, mg.bfloat16)
    assert not (mg.can_cast(mg.float16, mg.int64) or mg.can_cast(mg.uint8, mg.bool))


def test_a_shallow_copy_has_the_same_memory():
    for t in (mg.tensor([1, 2, 3]), mg.ones(3, requires_grad=True), mg.nn.Parameter(mg.ones(3)), mg.ones(3, requires_grad=True) * 2):
        other = copy.copy(t)
        other.detach().fill_(7)
        assert t.tolist() == [7] * 3 and type(other) is type(t) and other.requires_grad == t.requires_grad and other.is_leaf and other.grad is None
    assert [float(x) for x in reversed(mg.arange(3.0))] == [2.0, 1.0, 0.0] and reversed(mg.ones(2, 3)).shape == (2, 3) and reversed(mg.tensor(5)).item() == 5


def test_even_steps_over_the_whole_range_of_a_dtype():
    for dtype, largest in ((mg.float64, 1.7e308), (mg.float32, 3.4e38), (mg.float16, 65504.0)):
        np.testing.assert_allclose(mg.linspace(-largest, largest, 5, dtype=dtype).double().numpy() / largest, [-1, -0.5, 0, 0.5, 1], rtol=1e-3)


def test_a_deep_copy_shares_gradients_as_the_original_does():
    x = mg.ones(2, requires_grad=True)
    x.sum().backward()
    for given in ([x, x.grad], [x.grad, x]):
        a, b = copy.deepcopy(given)
        leaf, grad = (a, b) if a.requires_grad else (b, a)
        assert leaf.grad is grad and grad is not x.grad and grad.tolist() == [1, 1]
