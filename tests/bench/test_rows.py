"""The rows of the table: each says what it needs at least, and the counts are those of the kernels that run."""
from __future__ import annotations

import re

import pytest

from minigrad import bench
from minigrad.bench.steps import NETS, TINY, step_of
from minigrad.bench.workload import frames
from minigrad.devices.base import split
from minigrad.study import Record

ROWS = {load.name: load for load in bench.workloads()}
PRODUCTS = re.compile("gemm|conv_|rnn_|attention_")


def test_every_row_has_a_roof_or_says_why_not():
    assert len(ROWS) == len(bench.workloads())
    for name, load in ROWS.items():
        assert bool(load.flops or load.bytes) != bool(load.roofless), name
        assert load.working_set is None or 0 < load.working_set <= load.bytes, name


def test_goals_are_shares_of_the_roof_or_of_torch():
    for name, load in ROWS.items():
        assert not load.goal or re.fullmatch(r"(roof|torch) 0\.\d\d", load.goal), name
        assert not (load.roofless and load.goal.startswith("roof")), name


def products(run) -> int:
    """The operations of the products that a run launches, counted by the kernels' own rules (`devices/work.py`)."""
    run()
    with Record() as record:
        run()
    return sum(x.flops for x in record.launches if PRODUCTS.match(split(x.kernel)[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, load in ROWS.items() if load.flops and "training step" not in name])
def test_operations_of_a_row_are_those_of_its_kernels(name):
    assert products(ROWS[name].build()["minigrad"]) == pytest.approx(ROWS[name].flops, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("net", [TINY, *NETS], ids=lambda net: net.name)
def test_a_net_computes_and_has_what_is_counted_by_hand(net):
    ours, = frames(None)
    assert sum(p.numel() for p in net.model(ours).parameters()) == net.parameters
    step = step_of(net, ours)
    assert products(step) == pytest.approx(net.flops, rel=0.04)         # rnn_backward counts the gradient of its input, wanted or not
    with Record() as record:
        step()
    update = [x for x in record.launches if x.direction == "update"]
    load, = [load for name, load in ROWS.items() if name.endswith(f": {net.name}")]
    assert sum(x.nbytes for x in update) == pytest.approx(load.bytes, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("net", [TINY, *NETS], ids=lambda net: net.name)
def test_torch_trains_the_same_net(net, torch):
    theirs = [tuple(p.shape) for p in net.model(frames(torch)[1]).parameters()]
    assert theirs == [tuple(p.shape) for p in net.model(frames(torch)[0]).parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_both_frameworks_run_a_row(name, torch):
    load, = [load for load in bench.workloads(torch) if load.name == name]
    runs = load.build()
    assert list(runs)[:2] == ["minigrad", "torch"]
    for run in runs.values():
        run()
