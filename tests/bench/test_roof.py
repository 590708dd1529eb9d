"""What one core can do at most: copies by their size, and the least time of a row."""
from __future__ import annotations

import platform
from pathlib import Path

import pytest

from minigrad import bench
from minigrad.bench import roof
from minigrad.bench.roof import SIZES
from minigrad.study import Record

CORE = bench.Limits(200.0, (150.0, 90.0, 50.0, 40.0, 30.0, 20.0))


def row(name: str) -> bench.Workload:
    found, = [load for load in bench.workloads() if load.name == name]
    return found


def test_the_rate_of_a_copy_is_interpolated_over_the_logarithm_of_the_size():
    assert [CORE.copy(n) for n in SIZES] == pytest.approx([150, 90, 50, 40, 30, 20])
    assert CORE.copy((SIZES[0] * SIZES[1]) ** 0.5) == pytest.approx(120)        # half-way in the logarithm
    assert CORE.copy((SIZES[2] * SIZES[3]) ** 0.5) == pytest.approx(45)
    assert CORE.copy(100) == pytest.approx(150) and CORE.copy(1e12) == pytest.approx(20)
    assert str(CORE) == ("FMA peak 200 GFLOP/s; copy, read plus written, by the bytes of both arrays: "
                         "150.0 GB/s at 32 kB, 90.0 GB/s at 2 MB, 50.0 GB/s at 25 MB, 40.0 GB/s at 50 MB, "
                         "30.0 GB/s at 100 MB, 20.0 GB/s at 250 MB")


def test_roof_of_a_norm_by_hand():
    array = 4096 * 768 * 4
    between = 40 + (30 - 40) * 0.00954          # four arrays are 50.3 MB: log2(50.3 / 50) of the octave
    assert row("layer_norm 4096x768, fwd+bwd").least(CORE) == pytest.approx(5 * array / between / 1e9, rel=1e-4)
    between = 50 + (40 - 50) * 0.00954          # two arrays are 25.2 MB
    assert row("layer_norm 4096x768, forward alone, no graph").least(CORE) == pytest.approx(2 * array / between / 1e9, rel=1e-4)


def test_roof_of_products_by_hand():
    assert row("linear 32x64 to 64, fwd+bwd").least(CORE) == pytest.approx(3 * 2 * 32 * 64 * 64 / 200e9)
    assert row("x @ y, 512x512, forward alone, no graph").least(CORE) == pytest.approx(2 * 512 ** 3 / 200e9)


def test_roof_of_a_pool_by_hand():
    moved = 2 * (32 * 256 * 49 + 32 * 256) * 4          # each array once: 3.3 MB, all of them distinct
    assert row("adaptive_avg_pool2d 32x256x7x7 to 1, fwd+bwd").least(CORE) == pytest.approx(moved / CORE.copy(moved) / 1e9)


def test_roof_of_a_training_step_is_that_of_its_products_and_of_its_update():
    load = row("training step (captured), Adam: MLP 64-64-64-10, LayerNorm, batch 32")
    products = 2 * 32 * (2 * 64 * 64 + 3 * 64 * 64 + 3 * 64 * 10)               # the first layer's input needs no gradient
    parameters = 2 * (64 * 64 + 64 + 2 * 64) + 64 * 10 + 10
    assert load.least(CORE) == pytest.approx(products / 200e9 + 7 * 4 * parameters / CORE.copy(4 * 4 * parameters) / 1e9)


def test_a_row_without_work_has_no_roof():
    assert bench.Workload("nothing", dict).least(CORE) == 0


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_copy_counts_bytes_read_and_written(nbytes, monkeypatch):
    copied = []

    def interleaved(run, blocks):
        with Record() as record:
            run()
        copied.extend(x for x in record.launches if x.kernel.startswith("copy"))
        return [bench.Times(1e-3, 1e-3)]
    monkeypatch.setattr(roof, "interleaved", interleaved)
    found = bench.copy_bandwidth(nbytes=nbytes)
    assert sum(x.nbytes for x in copied) >= min(nbytes, 32_000_000)
    assert found == pytest.approx(sum(x.nbytes for x in copied) / 1e-3 / 1e9)


@pytest.mark.slow
def test_limits_are_measured():
    core = bench.limits()
    assert core.peak > 0.5 and len(core.copies) == len(SIZES) and min(core.copies) > 0.1
    assert core.copies[0] > core.copies[-1]              # a cache is faster than memory


def test_the_cpu_has_a_name(monkeypatch):
    def missing(self, *args):
        raise FileNotFoundError
    monkeypatch.setattr(platform, "processor", lambda: "a processor")
    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nmodel name\t: A CPU\n")
    assert bench.cpu_name() == "A CPU @ 3 GHz"
    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nBogoMIPS\t: 50\n")         # as on arm64
    assert bench.cpu_name() == "a processor"
    monkeypatch.setattr(Path, "read_text", missing)
    assert bench.cpu_name() == "a processor"
