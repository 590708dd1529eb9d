"""The .cu files: argument lists and constants are those of minigrad.h, and they compile for real GPUs."""
from __future__ import annotations

import re
import subprocess

import pytest
from cuda_on_cpu import emulator, nvrtc
from cuda_on_cpu.twins import FILES, emulated, suffixes_of
from support import HEADER

from minigrad.devices import cuda
from minigrad.devices.base import split
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import HEADERS, signatures

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


def parameters(text, before="^"):
    """{kernel: its parameters} of preprocessed C or CUDA text."""
    found = re.findall(before + r"\s*void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*[;{]", text, re.M)
    return {name: [" ".join(p.replace("*", " * ").split()) for p in args.split(",")] for name, args in found}


@pytest.mark.parametrize("suffix", ["f32", "f64", "i32", "i64", "u8", "u16", ""])
def test_argument_lists_are_those_of_the_header(suffix):
    """Word for word, after the macros: minigrad.h as a C compiler sees it, the .cu files as NVRTC does."""
    sets = {"REAL": "f32 f64", "NUMBER": "f32 f64 i32 i64", "ANY": "f32 f64 i32 i64 u8", "MOVE": "u8 u16 i32 i64", "BOOL": "u8",
            "LONG": "i64"}
    prototype = "#define KERNEL(types, name, ...) void MG_CAT2(KERNEL_, types)(name)(__VA_ARGS__);"
    text = (HEADER.parent / "types.h").read_text() + HEADER.read_text()
    header = re.sub(r"^#define KERNEL\(.*", prototype, re.sub(r"#include.*", "", text), flags=re.M)
    defines = [f"-DMG_TYPE={suffix}", "-DMG_LEVEL=x"] if suffix else ["-DMG_TYPE=f32", "-DMG_LEVEL=x"]

    def preprocess(text, *options):
        command = [emulator.CXX, "-E", "-P", "-x", "c++", *options, "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    # kernels of other types get a name that no CUDA kernel has
    types = "".join(f"#undef KERNEL_{k}\n#define KERNEL_{k}(name) {f'name##_{suffix}' if suffix in v.split() else 'no_##name'}\n"
                    for k, v in sets.items())
    types += f"#undef KERNEL_ONCE\n#define KERNEL_ONCE(name) {'no_##name' if suffix else 'name'}\n"
    at = header.index("/* ---- elementwise.c")
    want = {k: v for k, v in parameters(preprocess(header[:at] + types + header[at:], *defines)).items() if not k.startswith("no_")}
    for half, c in (("f16", "F16"), ("bf16", "BF16")):          # what only CUDA has: casts to half precision
        want.update({f"cast_{half}_{suffix}": [args[0].replace("float", c), *args[1:]]
                     for name, args in want.items() if name == f"cast_f32_{suffix}"})
    got = {}
    for file in FILES:
        if suffix not in suffixes_of(file):
            continue
        got.update(parameters(preprocess(cuda.source(file), "-DCUDA_ON_CPU", *cuda.options(suffix)[1:]), "__global__"))
    kernels = {name: args for name, args in want.items() if split(name)[0] in KERNELS}
    assert {k: got.get(k) for k in kernels} == kernels
    steps = {k: v for k, v in got.items() if k not in kernels}
    for step, args in steps.items():        # a STEP takes its kernel's arguments; and no CUDA kernel is without a C twin
        base = [k for k in kernels if step.startswith(split(k)[0] + "_") and step.endswith(suffix)]
        assert base and args == kernels[max(base, key=len)], step


@pytest.mark.parametrize("file", FILES)
def test_a_kernel_is_compiled_without_the_others(file):
    """What a launch compiles has one kernel with its steps; all of these together are the kernels of the file."""
    for suffix in suffixes_of(file)[:1]:
        def entries(*options, suffix=suffix):
            command = [emulator.CXX, "-E", "-P", "-x", "c++", "-DCUDA_ON_CPU", *options, "-"]
            text = subprocess.run(command, input=cuda.source(file), capture_output=True, text=True, check=True).stdout
            return set(parameters(text, r'extern "C" __global__'))
        every = entries(*cuda.options(suffix))
        for name in [k for k, e in KERNELS.items() if e.file == file and (f"{k}_{suffix}" if suffix else k) in signatures()]:
            got = entries(*cuda.options(suffix, name))
            assert f"{name}_{suffix}".rstrip("_") in got and got <= every and all(k.startswith(name) for k in got), (name, got)
            assert got == {k for k in every if owner(k) == name}
    for other in suffixes_of(file)[1:]:
        assert cuda.options(other, "add")[1:] == (f"-DMG_TYPE={other}", "-DMG_ONLY", "-DMG_ONLY_add=,BOUNDS")


def owner(function):
    """The kernel of a CUDA function: itself, or the one that it is a step of."""
    name = split(function)[0]
    while name not in KERNELS:
        name = name.rpartition("_")[0]
    return name


def test_every_cuda_kernel_has_a_c_twin():
    """The other way round it need not be: a kernel missing on this device means the definition."""
    assert set(KERNELS) <= {split(full)[0] for full in signatures()} | {"cast_f16", "cast_bf16"}


def test_work_space_formulas_are_those_of_c():
    """The CUDA text has native/workspace.h in it, and no kernel file defines one of its names again."""
    text = (HEADER.parent / "workspace.h").read_text()
    names = re.findall(r"^MG_FORMULA (\w+)|^#define (MG_[A-Z_]+) \d", text, re.M)
    for file in FILES:
        source = cuda.source(file)
        assert source.count(HEADERS["workspace.h"]) == 1
        own = source.replace(HEADERS["workspace.h"], "")
        assert not [n for pair in names for n in pair if n and re.search(rf"#define {n}\b|int64_t {n}\(", own)], file
        assert source.startswith('#line 1 "types.h"\n' + HEADERS["types.h"])


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("file", FILES)
def test_kernels_compile_with_nvrtc_within_bounds(file, arch):
    """For real GPUs, without one: nothing spills, and each kernel stays within its row of the table."""
    try:
        nvrtc.library()
    except ImportError as e:
        pytest.skip(str(e))
    for suffix in suffixes_of(file):
        for kernel, used in nvrtc.resources(cuda.source(file), arch, cuda.options(suffix)).items():
            bound = KERNELS[owner(kernel)]
            assert used.spill == 0 and used.stack <= bound.stack and used.registers <= bound.registers, (kernel, used)
            assert used.shared <= bound.shared and used.registers * 512 <= 65536, (kernel, used)
