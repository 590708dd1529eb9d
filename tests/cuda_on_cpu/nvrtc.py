"""Compile CUDA C with NVRTC to machine code, with no GPU, and say what each kernel uses.

    pip install "nvidia-cuda-nvrtc==13.0.*"           # 90 MB
    resources(source, "sm_90") -> {"ln_fwd": Resources(registers=40, spill=0, stack=0, shared=128, barriers=1)}

No CuPy here: its compile_usinglibrary() asks the driver for the current device first, so it fails without one.
"""
import ctypes
import functools
import glob
import importlib.util
import re
from typing import NamedTuple

# what CuPy adds to a RawModule's options by itself, so that CI compiles what a GPU machine would
CUPY_OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")


class Resources(NamedTuple):
    registers: int
    spill: int       # bytes of spill stores and loads
    stack: int       # bytes of local memory: arrays indexed at run time land here
    shared: int      # bytes, static
    barriers: int


@functools.cache
def library():
    """(the NVRTC library, the wheel's folder); ImportError without the wheel."""
    for name in ("nvidia.cu13", "nvidia.cuda_nvrtc"):       # CUDA 13 wheels, CUDA 12 wheels
        try:
            root = list(importlib.util.find_spec(name).submodule_search_locations)[0]
        except (ImportError, AttributeError):
            continue
        libs = {k: glob.glob(f"{root}/lib/lib{k}.so.*") for k in ("nvrtc-builtins", "nvrtc")}
        if all(libs.values()):
            ctypes.CDLL(libs["nvrtc-builtins"][0])          # nvrtc looks it up by name: load it first
            return ctypes.CDLL(libs["nvrtc"][0]), root
    raise ImportError("no NVRTC: pip install 'nvidia-cuda-nvrtc==13.0.*'")


class CompileError(Exception):
    pass


def compile(source, arch, options=(), name_expressions=()):
    """(cubin, log, {name expression: symbol})"""
    lib, root = library()
    prog = ctypes.c_void_p()

    def check(code):
        if code:
            raise CompileError(f"nvrtc error {code}\n{text('ProgramLog')}")

    def text(what):
        n = ctypes.c_size_t()
        getattr(lib, f"nvrtcGet{what}Size")(prog, ctypes.byref(n))
        buf = ctypes.create_string_buffer(n.value)
        getattr(lib, f"nvrtcGet{what}")(prog, buf)
        return buf.raw if what == "CUBIN" else buf.value.decode()

    lib.nvrtcCreateProgram(ctypes.byref(prog), source.encode(), b"kernel.cu", 0, None, None)
    try:
        for n in name_expressions:
            check(lib.nvrtcAddNameExpression(prog, n.encode()))
        opts = [f"-arch={arch}", *CUPY_OPTIONS, "--ptxas-options=-v", f"-I{root}/include", *options]
        check(lib.nvrtcCompileProgram(prog, len(opts), (ctypes.c_char_p * len(opts))(*[o.encode() for o in opts])))
        low = ctypes.c_char_p()
        names = {}
        for n in name_expressions:
            check(lib.nvrtcGetLoweredName(prog, n.encode(), ctypes.byref(low)))
            names[n] = low.value.decode()
        return text("CUBIN"), text("ProgramLog"), names
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(prog))


def resources(source, arch, options=(), name_expressions=()):
    _, log, names = compile(source, arch, options, name_expressions)
    back = {v: k for k, v in names.items()}
    out = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        def num(pattern, part=part):
            return sum(int(v) for v in re.findall(pattern, part))
        symbol = re.match(r"'(\w+)'", part)[1]
        out[back.get(symbol, symbol)] = Resources(num(r"Used (\d+) registers"), num(r"(\d+) bytes spill"),
                                                  num(r"(\d+) bytes stack frame"), num(r"(\d+) bytes smem"),
                                                  num(r"used (\d+) barriers"))
    return out

