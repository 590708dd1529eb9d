"""Tensors of integers beside Python numbers that their dtype cannot hold: arithmetic wraps around, comparisons compare the values."""
import contextlib
import operator

import numpy as np
import pytest

import minigrad as mg

NUMBERS = (300, -1, -129, 256, 2**31, -2**31 - 1, 2**40, 2**63 - 1, -2**63)
ARITHMETIC = ("add", "sub", "mul", "and_", "or_", "xor", "floordiv", "mod")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
VALUES = {mg.uint8: [0, 1, 5, 44, 200, 255], mg.int8: [-128, -7, -1, 1, 44, 127], mg.int16: [-2**15, -1, 3, 2**15 - 1], mg.int32: [-2**31, -1, 7, 2**31 - 1]}


def wrapped(values, dtype):
    """Python integers as elements of that dtype."""
    return np.array([v % (1 << 64) for v in values], np.uint64).astype(dtype).tolist()


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_wraps_around(name, dtype):
    """The number first, and then the result, as in PyTorch."""
    function, values = getattr(operator, name), VALUES[dtype]
    for n in NUMBERS:
        as_element, = wrapped([n], dtype)
        for _ in range(2):                                  # the second time, plans and constants are known
            x = mg.tensor(values, dtype=dtype)
            if as_element == 0 and name in ("floordiv", "mod"):
                with pytest.raises(RuntimeError, match="(?i)zero"):
                    function(x, n)
                continue
            out = function(x, n)
            assert out.dtype == dtype and out.tolist() == wrapped([function(v, as_element) for v in values], dtype)
            if 0 not in values:
                assert function(n, x).tolist() == wrapped([function(as_element, v) for v in values], dtype)
            x = getattr(operator, "i" + name.rstrip("_"))(x, n) if name not in ("and_", "or_") else getattr(operator, "i" + name[:-1])(x, n)
            assert x.dtype == dtype and x.tolist() == out.tolist()


def test_remainders_and_quotients_beside_a_number_that_does_not_fit():
    """Values of PyTorch 2.13: the number wraps around to 253, 44 and -56 first."""
    x, y = mg.tensor([7, 200], dtype="uint8"), mg.tensor([7, -100], dtype="int8")
    for call, values in ((lambda: x % -3, [7, 200]), (lambda: x // -3, [0, 0]), (lambda: x.fmod(-3), [7, 200]), (lambda: x.div(-3, rounding_mode="trunc"), [0, 0]),
                         (lambda: -3 % x, [1, 53]), (lambda: -3 // x, [36, 1]), (lambda: x.fmod(300), [7, 24]), (lambda: y % 200, [-49, -44]), (lambda: y // 200, [-1, 1]),
                         (lambda: x.clone().remainder_(-3), [7, 200]), (lambda: x.clone().floor_divide_(-3), [0, 0]), (lambda: x.clone().fmod_(-3), [7, 200])):
        assert call().tolist() == values


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_compare_values(name, dtype):
    function, values = getattr(operator, name), VALUES[dtype]
    x = mg.tensor(values, dtype=dtype)
    for n in (*NUMBERS, 2**63, 2**64, -2**70):
        for _ in range(2):
            assert function(x, n).tolist() == [function(v, n) for v in values]
            assert function(n, x).tolist() == [function(n, v) for v in values]
            assert getattr(mg, name)(x, n).tolist() == [function(v, n) for v in values]


def test_negative_powers_of_integers_are_refused_in_place_too():
    x = mg.tensor([2, 3])
    x.pow_(2)                                           # from now on there is a plan
    for call in (lambda: x.pow_(-1), lambda: x.__ipow__(-2), lambda: x.pow_(exponent=-1), lambda: mg.pow(x, -1, out=mg.zeros(2, dtype=mg.int64)), lambda: x.pow(-1)):
        with pytest.raises(RuntimeError, match="negative integer powers"):
            call()
    assert x.tolist() == [4, 9] and x.add_(-1).tolist() == [3, 8] and mg.tensor([2.0]).pow_(-1).item() == 0.5


def test_shifts_powers_and_numbers_of_numpy():
    x = mg.tensor([7, 1], dtype=mg.uint8)
    assert (x << 300).tolist() == [0, 0] and (x >> 300).tolist() == [0, 0]
    assert (x ** 300).tolist() == [pow(7, 300, 256), 1] and (300 ** x).tolist() == [300**7 % 256, 44]
    assert (x + np.int64(300)).tolist() == [51, 45] and (x == np.int64(-1)).tolist() == [False, False]
    assert x.add(x, alpha=300).tolist() == [(7 * 301) % 256, 301 % 256]
    assert (mg.tensor([1], dtype=mg.int64) + 2**63).tolist() == [1 - 2**63]
    with pytest.raises(RuntimeError, match="must fit int64"):
        mg.tensor([1]) + 2**64


def test_the_wrapped_sums_are_pytorchs(torch):
    for name in ("uint8", "int8", "int16", "int32"):
        ours, theirs = mg.tensor([5, 100], dtype=getattr(mg, name)), torch.tensor([5, 100], dtype=getattr(torch, name))
        for n in NUMBERS:
            for function in (operator.add, operator.sub, operator.mul, operator.and_, operator.or_, operator.xor):
                assert function(ours, n).tolist() == function(theirs, n).tolist() and function(n, ours).tolist() == function(n, theirs).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("number", [3, -2, 0.5, -0.0, True, 1e300, 2**40, float("nan")])
@pytest.mark.parametrize("name", ["add_", "mul_", "sub_", "div_", "pow_", "remainder_", "eq_"])
def test_second_call_in_place_with_a_number_is_like_the_first(name, number, dtype):
    """The second one finds its plan by a dictionary: what it may not take there, such as 0.5 beside integers, goes as before."""
    def tried(x, times):
        for _ in range(times):
            x.copy_(start)
            try:
                getattr(x, name)(number)
            except (RuntimeError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
                return type(error)
        return x.numpy().tobytes(), x._version - times * 2

    start = mg.tensor([1, 0, 3, 1], dtype=dtype)
    op = mg.ops.registry[name.rstrip("_")]
    op.plans.clear()
    first = tried(start.clone(), 1)
    assert tried(start.clone(), 3) == first
    for other in (1.0, 1):                                  # nor does the plan of another kind of number serve it
        with contextlib.suppress(RuntimeError, TypeError, NotImplementedError):
            getattr(start.clone(), name)(other)
    assert tried(start.clone(), 1) == first


def test_two_numbers_give_a_tensor_without_dimensions():
    for found, want in ((mg.add(2.0, 3.0), 5.0), (mg.div(3, 2), 1.5), (mg.mul(2, 3), 6), (mg.sub(5, 1, alpha=2), 3),
                        (mg.div(-7, 2, rounding_mode="trunc"), -3), (mg.div(-7, 2, rounding_mode="floor"), -4), (mg.add(True, True), True)):
        assert found.shape == () and found.item() == want and type(found.item()) is type(want)
    with pytest.raises(TypeError, match="at least one a tensor"):
        mg.add("2", 3)
    with pytest.raises(TypeError, match="at least one a tensor"):
        mg.exp(2.0)
    for other in (mg.pow, mg.remainder, mg.bitwise_and, mg.float_power):        # those of which PyTorch wants a tensor
        with pytest.raises(TypeError):
            other(2, 3)


@pytest.mark.parametrize("dtype", [mg.float64, mg.float32, mg.float16], ids=str)
def test_a_quotient_that_is_cut_off_has_no_slope(dtype):
    """Where the divisor is 0, too: 0 times the infinite slope of the quotient was NaN."""
    a, b = (mg.tensor(v, dtype=dtype, requires_grad=True) for v in ([1.0, 0.0, -3.0], [0.0, 0.0, 2.0]))
    for mode in ("trunc", "floor"):
        assert [g.tolist() for g in mg.autograd.grad(mg.div(a, b, rounding_mode=mode).sum(), (a, b))] == [[0.0] * 3] * 2
    slope, = mg.autograd.grad(mg.fmod(a, b).sum(), b, create_graph=True)
    assert [g.tolist() for g in mg.autograd.grad(slope.sum(), (a, b))] == [[0.0] * 3] * 2
