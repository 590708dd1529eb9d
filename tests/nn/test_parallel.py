"""`DataParallel`: one device; where the gradients of `DistributedDataParallel` lie."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import nn
from minigrad.devices.cpu import PAGE, alignment
from minigrad.nn.parallel import _rooms


def test_it_runs_the_module_as_it_is():
    layer, x = nn.Linear(3, 2), mg.randn(4, 3)
    model = nn.DataParallel(layer, device_ids=[0])
    assert mg.equal(model(x), layer(x)) and list(model.state_dict()) == ["module.weight", "module.bias"] and model.module is layer
    assert mg.equal(nn.parallel.data_parallel(layer, x), layer(x)) and mg.equal(nn.parallel.data_parallel(layer, (x,), module_kwargs={}), layer(x))
    with pytest.warns(UserWarning, match=r"not on the devices \[0, 1\]"):
        nn.DataParallel(layer, device_ids=[0, 1])


@pytest.mark.parametrize("dtype", [mg.float16, mg.float32, mg.float64], ids=str)
def test_gradients_begin_in_a_bucket_where_arrays_of_their_own_may(dtype):
    """Large ones at a page, or loads of the optimiser wait for its stores (digits_ddp.md); and so the next bucket."""
    parameters = [mg.zeros(*shape, dtype=dtype) for shape in ((3,), (100, 100), (0,), (1000, 33), (17,), (), (90, 100))]
    begin = 0
    for p, room in zip(parameters, _rooms(parameters), strict=True):
        assert room >= p.numel() and begin % alignment(p.nbytes) == 0
        begin += room * dtype.itemsize
    assert begin % PAGE == 0 and alignment(parameters[1].nbytes) == PAGE
