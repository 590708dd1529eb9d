"""`minigrad.device`: a name becomes a device, and is the class of all devices."""
import copy
import pickle

import pytest

import minigrad as mg


def test_it_is_the_class_of_devices():
    cpu = mg.device("cpu")
    assert isinstance(cpu, mg.device) and isinstance(mg.zeros(1).device, mg.device) and not isinstance("cpu", mg.device)
    assert isinstance(mg.device, type)


def test_spellings():
    cpu = mg.device("cpu")
    for same in (mg.device(), mg.device(cpu), mg.device("cpu:0"), mg.device("cpu", 0), mg.device(type="cpu"), mg.device(type="cpu", index=0)):
        assert same is cpu and hash(same) == hash(cpu)
    assert (cpu.type, cpu.index, str(cpu), repr(cpu)) == ("cpu", None, "cpu", "device(type='cpu')")
    assert cpu == "cpu" and cpu != "cuda" and cpu is not None
    assert copy.deepcopy(cpu) is cpu and pickle.loads(pickle.dumps(cpu)) is cpu
    assert mg.zeros(1, device=mg.device("cpu", 0)).to(mg.device(type="cpu")).device is cpu


@pytest.mark.parametrize("arguments, options", [(("tpu",), {}), (("cpu", 1), {}), (("cpu:0", 0), {}), ((mg.device("cpu"), 0), {}), ((None,), {}), ((1.5,), {}),
                                                ((), {"type": "cuda", "index": -1})])
def test_what_is_no_device(arguments, options):
    with pytest.raises(RuntimeError, match=r"\[device\]"):
        mg.device(*arguments, **options)


def test_where_there_is_no_gpu_the_reason_is_given():
    if mg.cuda.is_available():
        pytest.skip("there is a GPU")
    for wanted in (("cuda", 0), ("cuda:1",), (0,)):
        with pytest.raises(RuntimeError, match="cuda|CuPy|GPU"):
            mg.device(*wanted)
    with pytest.raises(RuntimeError, match="cuda|CuPy|GPU"):
        mg.zeros(1).to(0)
