"""Run CUDA C kernels on the CPU, for tests: RawModule and RawKernel with CuPy's call shape.

    mod = RawModule(code=source, options=("-DN=4",), name_expressions=("k<float>",))
    mod.get_function("k<float>")((grid,), (block,), (array, numpy.int32(n)), shared_mem=1024)

The source is compiled by g++ with cuda_on_cpu.h in front. Environment:
    CUDA_ON_CPU        "" | "race" | "asan", which needs LD_PRELOAD=$(g++ -print-file-name=libasan.so) and
                       ASAN_OPTIONS=detect_leaks=0, and ends the process at its first finding
    CUDA_ON_CPU_ORDER  "0" ascending | "1" descending | "2:SEED" shuffled threads and blocks
    CUDA_ON_CPU_CACHE  folder for compiled modules

It is stricter than CuPy where CuPy would silently pass garbage: the number, size and type of the
arguments are checked against the C signature, as are contiguity and the launch limits.
"""
import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CXX = os.environ.get("CXX", "g++")
BASE_FLAGS = ["-std=c++17", "-g", "-fPIC", "-w", "-fno-strict-aliasing", "-fno-gnu-unique",
              "-ffp-contract=off", "-fno-math-errno",
              # no runtime library: a finding is an illegal instruction, which the header turns into an error
              "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-fno-sanitize=vptr"]
MODES = {
    "": ["-O2"],
    "asan": ["-O1", "-DCUOC_ASAN", "-fsanitize=address", "-fno-omit-frame-pointer"],
    "race": ["-O1", "-DCUOC_RACECHECK", "-fsanitize=thread", "-mtls-dialect=gnu"],
}


_one = threading.Lock()     # the stacks of the emulated threads are for one launch at a time


class CompileError(Exception):
    pass


class LaunchError(RuntimeError):
    """What a GPU would have reported as an error of the launch, or as nothing at all."""


class _Arg(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_char), ("to", ctypes.c_char), ("size", ctypes.c_uint), ("to_size", ctypes.c_uint)]


class _Kernel(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("thunk", ctypes.c_void_p), ("args", ctypes.POINTER(_Arg)), ("n", ctypes.c_int)]


_DYN = re.compile(r"\bextern\s+__shared__\b(?P<decl>[^;]*?\b(?P<name>\w+)\s*\[\s*\]\s*;)")
_KERNEL = re.compile(r"(?P<template>template\s*<[^{};]*>\s*)?(?:extern\s*\"C\"\s*)?(?:static\s+)?__global__\s+"
                     r"(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?"
                     r"(?P<name>\w+)\s*\(")


def _flags(options):
    """Keeps what matters to a host compiler: defines, include folders, the language standard.

    -DMG_ONLY asks for one kernel of a text: here all are compiled, once.
    """
    return [o.replace("--std", "-std") for o in options if re.match(r"-[DIU]|--?std=", o) and not o.startswith("-DMG_ONLY")]


def _preprocessed(code, options):
    """The text without comments and with its macros expanded: kernels may be made by macros."""
    r = subprocess.run([CXX, "-E", "-P", "-x", "c++", "-DCUDA_ON_CPU", *_flags(options), "-"], input=code, capture_output=True, text=True)
    if r.returncode:
        raise CompileError(r.stderr)
    return r.stdout


@functools.cache
def _build(code, options, name_expressions, mode):
    plain = _preprocessed(code, options)
    dyn = sorted({m["name"] for m in _DYN.finditer(plain)})
    kernels = list(dict.fromkeys(name_expressions or
                                 [m["name"] for m in _KERNEL.finditer(plain) if not m["template"]]))
    body = _DYN.sub(lambda m: "CUOC_DYN_SHARED" + m["decl"], code)
    table = "".join(f'cuoc::Bind<&{k}>::kernel("{k}"), ' for k in kernels)
    tail = f"""
extern "C" {{
cuoc::Kernel cuoc_kernels[] = {{ {table} {{nullptr, nullptr, nullptr, 0}} }};
unsigned char *cuoc_dyn();
char *cuoc_stacks(char *p) {{ return cuoc::stacks = p ? p : cuoc::make_stacks(); }}
int cuoc_run(const unsigned *g, void (*thunk)(void **), void **args, unsigned shared, unsigned order, unsigned seed,
             int strict, int ftz, char *err, size_t n) {{
  return cuoc::launch(dim3(g[0], g[1], g[2]), dim3(g[3], g[4], g[5]),
                      cuoc::Launch{{thunk, args, shared, order, seed, bool(strict), bool(ftz)}}, cuoc_dyn(), err, n);
}}
}}
"""
    # extern __shared__ arrays all start at the same address: one buffer, the other names are aliases
    buffers = "".join(
        f'extern "C" {{ alignas(1024) unsigned char {d}[(227 << 10) + 1024]; }}\n' if i == 0 else
        f'extern "C" {{ extern unsigned char {d}[(227 << 10) + 1024] __attribute__((alias("{dyn[0]}"))); }}\n'
        for i, d in enumerate(dyn))
    buffers += f'extern "C" unsigned char *cuoc_dyn() {{ return {dyn[0] if dyn else "nullptr"}; }}\n'
    flags = BASE_FLAGS + MODES[mode] + ["-include", str(HERE / "cuda_on_cpu.h")] + _flags(options)
    key = hashlib.sha256("\0".join(
        [CXX, *flags, body, tail, buffers, (HERE / "cuda_on_cpu.h").read_text(), (HERE / "racecheck.h").read_text()]
    ).encode()).hexdigest()[:20]
    cache = Path(os.environ.get("CUDA_ON_CPU_CACHE") or Path(tempfile.gettempdir()) / f"cuda_on_cpu-{os.getuid()}")
    cache.mkdir(parents=True, exist_ok=True)
    so = cache / f"{key}.so"
    if not so.exists():
        with tempfile.TemporaryDirectory(dir=cache) as tmp:
            (Path(tmp) / "kernel.cu").write_text('#line 1 "kernel.cu"\n' + body + '\n#line 1 "cuda_on_cpu"\n' + tail)
            (Path(tmp) / "shared.cpp").write_text(buffers)
            # -fsanitize=thread instruments kernel.cu, but its runtime is racecheck.h: it is not linked
            link = [f for f in flags if f != "-fsanitize=thread"]
            for cmd in ([CXX, *flags, "-x", "c++", "-c", "kernel.cu", "-o", "kernel.o"],
                        [CXX, *link[:link.index("-include")], "-shared", "kernel.o", "shared.cpp", "-o", "out.so", "-ldl"]):
                r = subprocess.run(cmd, cwd=tmp, capture_output=True, text=True)
                if r.returncode:
                    raise CompileError(r.stderr)
            os.replace(Path(tmp) / "out.so", so)
    return so


class RawModule:
    _stacks = None      # of the emulated threads, shared by all modules

    def __init__(self, *, code, options=(), backend="nvrtc", name_expressions=None, **_ignored):
        self.code, self.options, self.name_expressions = code, tuple(options), tuple(name_expressions or ())
        self._lib = None

    def compile(self, log_stream=None):
        if self._lib is None:
            self.mode = os.environ.get("CUDA_ON_CPU", "")
            self.path = _build(self.code, tuple(_flags(self.options)), self.name_expressions, self.mode)
            self._lib = ctypes.CDLL(str(self.path))
            self._lib.cuoc_stacks.restype = ctypes.c_void_p
            RawModule._stacks = self._lib.cuoc_stacks(ctypes.c_void_p(RawModule._stacks))
            self.kernels = {}
            table = ctypes.cast(ctypes.addressof(_Kernel.in_dll(self._lib, "cuoc_kernels")), ctypes.POINTER(_Kernel))
            for i in range(1 << 20):
                if not table[i].name:
                    break
                self.kernels[table[i].name.decode()] = table[i]

    def get_function(self, name):
        self.compile()
        if name not in self.kernels or (name not in self.name_expressions and not hasattr(self._lib, name)):
            raise LaunchError(f"named symbol not found: {name!r}. A plain name needs extern \"C\", a template needs "
                              f"name_expressions. Known: {sorted(self.kernels)}")
        return RawKernel._from(self, name)

    def get_global(self, name):
        self.compile()
        return ctypes.addressof(ctypes.c_char.in_dll(self._lib, name))


class RawKernel:
    def __init__(self, code, name, options=(), backend="nvrtc", **_ignored):
        self._init(RawModule(code=code, options=options), name)

    @classmethod
    def _from(cls, module, name):
        self = cls.__new__(cls)
        self._init(module, name)
        return self

    def _init(self, module, name):
        self.module, self.name, self.__name__ = module, name, name
        self.max_dynamic_shared_size_bytes = 48 << 10   # raise it, up to 227 KiB, as on the device

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        self.module.compile()
        if self.name not in self.module.kernels:
            self.module.get_function(self.name)
        k = self.module.kernels[self.name]
        # CuPy launches max(1, g) blocks: an empty grid still runs one block
        g = [max(1, int(v)) for v in (tuple(grid) + (1, 1))[:3]]
        b = [max(1, int(v)) for v in (tuple(block) + (1, 1))[:3]]
        if b[0] * b[1] * b[2] > 1024 or b[2] > 64 or g[1] > 65535 or g[2] > 65535 or g[0] >= 2**31:
            raise LaunchError(f"{self.name}: invalid configuration, grid {g} block {b}")
        if shared_mem > min(self.max_dynamic_shared_size_bytes, 227 << 10):
            raise LaunchError(f"{self.name}: {shared_mem} bytes of dynamic shared memory, "
                              f"max_dynamic_shared_size_bytes is {self.max_dynamic_shared_size_bytes}")
        if len(args) != k.n:
            raise LaunchError(f"{self.name} takes {k.n} arguments, got {len(args)}")
        keep = [_argument(f"{self.name}, argument {i}", k.args[i], a) for i, a in enumerate(args)]
        pointers = (ctypes.c_void_p * len(keep))(*[x.ctypes.data for x in keep])
        order, _, seed = os.environ.get("CUDA_ON_CPU_ORDER", "0").partition(":")
        err = ctypes.create_string_buffer(2048)
        strict = os.environ.get("CUDA_ON_CPU_STRICT", "1") == "1"
        with _one:
            failed = self.module._lib.cuoc_run(
                (ctypes.c_uint * 6)(*g, *b), ctypes.c_void_p(k.thunk), pointers, ctypes.c_uint(shared_mem), ctypes.c_uint(int(order)),
                ctypes.c_uint(int(seed or 1)), ctypes.c_int(strict), ctypes.c_int(1), err, ctypes.c_size_t(2048))
        if failed:
            raise LaunchError(f"{self.name}: {self._locate(err.value.decode())}")

    def _locate(self, text):
        """Turns {+0x1234} offsets in a message into file:line."""
        def place(m):
            r = subprocess.run(["addr2line", "-e", str(self.module.path), m[1]], capture_output=True, text=True)
            return "at " + os.path.basename(r.stdout.strip() or "?").split(" ")[0]
        return re.sub(r"\{\+(0x[0-9a-f]+)\}", place, text)


_KINDS = {"f": "f", "i": "iu", "u": "iu", "b": "b"}   # C kind -> numpy kinds it may take


def _argument(where, c, a):
    """A one-element numpy array holding the bytes that the kernel's parameter is read from."""
    kind, to = c.kind.decode(), c.to.decode()
    if hasattr(a, "_cuoc_array"):
        a = a._cuoc_array()
        if kind != "p":
            raise LaunchError(f"{where}: an array for a parameter that is no pointer")
        if not a.flags.c_contiguous:
            raise LaunchError(f"{where}: a non-contiguous array; a raw kernel sees only its first byte's address")
        if (to in _KINDS and (a.dtype.kind not in _KINDS[to] or a.dtype.itemsize != c.to_size)
                or to == "s" and c.to_size > 1 and (c.to_size % a.dtype.itemsize or a.nbytes % c.to_size)):
            raise LaunchError(f"{where}: a {a.dtype} array for a pointer to {c.to_size}-byte '{to}' elements")
        return np.array([a.ctypes.data], np.uintp)
    if a is None and kind == "p":
        return np.zeros(1, np.uintp)
    if isinstance(a, np.ndarray) and a.size != 1:
        raise TypeError(f"{where}: a numpy array of shape {a.shape} passed to a kernel")
    if kind == "p":
        if isinstance(a, (int, np.integer)):
            return np.array([a], np.uintp)
        raise LaunchError(f"{where}: {type(a).__name__} for a pointer")
    v = np.asarray(a).reshape(1)
    if type(a) is int and kind in "iu":   # CuPy passes 8 bytes; a little-endian int reads the low 4
        return np.array([a], f"{kind}{c.size}")
    if kind != "s" and (v.dtype.kind not in _KINDS[kind] or v.dtype.itemsize != c.size) or v.dtype.itemsize != c.size:
        raise LaunchError(f"{where}: {v.dtype} for a {c.size}-byte '{kind}' parameter; CuPy would pass these bytes as they are")
    return v
