"""Kernels from outside the tree: compiled once, kept, made again where that is needed; what is said where it cannot be."""
from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import run_python

import minigrad as mg
from minigrad import study
from minigrad.devices import foreign

pytestmark = [pytest.mark.usefixtures("own_registry"),
              pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler here")]

PACKAGE = '''
import minigrad as mg

@mg.op
def doubled(x):
    return x * 2

doubled.kernel("cpu", source=r"""
KERNEL(REAL, doubled_forward, T *y, const T *x, int64_t n) {
  EACH_VECTOR(j, k, n, store_n(y + j, load_n(x + j, k) * 2, k););
}
""")
'''
RUN = "import doubling, minigrad as mg; from minigrad import study; x = mg.ones(5); print(doubling.doubled(x).tolist(), study.explain(doubling.doubled, x))"


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A compiler that notes its calls, a cache of its own, and the number of calls so far."""
    log, wrapper = tmp_path / "calls", tmp_path / "counting-cc"
    wrapper.write_text(f'#!/bin/sh\necho call >> "{log}"\nexec {shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(wrapper))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "doubling.py").write_text(PACKAGE)
    return lambda: len(log.read_text().split()) if log.exists() else 0


def entries(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "minigrad").glob("*.so"))


def ran(**environment) -> str:
    done = run_python("-W", "error", "-c", RUN, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[2.0, 2.0, 2.0, 2.0, 2.0]")
    return done.stdout


@pytest.mark.slow
def test_the_compiler_runs_once_for_a_text(counted, tmp_path):
    """Whatever the process; a changed text, other flags and another SIMD level are other kernels."""
    assert "fused kernel on cpu" in ran() and "doubled_forward_f32" in ran() and counted() == 1
    (tmp_path / "doubling.py").write_text("# moved\n\n" + PACKAGE)
    assert ran() and counted() == 1
    (tmp_path / "doubling.py").write_text(PACKAGE.replace("* 2, k", "+ load_n(x + j, k), k"))
    assert ran() and counted() == 2
    assert ran(CFLAGS="-DOTHER") and counted() == 3
    assert ran(MINIGRAD_SIMD="baseline") and counted() == 4 - (mg.simd_level() == "baseline")
    assert all(stat.S_IMODE(os.stat(p).st_mode) & 0o077 == 0 for p in [tmp_path / "cache" / "minigrad"])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b[:2000] + b"x" + b[2001:]], ids=["half", "empty", "changed"])
def test_a_damaged_file_is_made_again(counted, tmp_path, damage):
    ran()
    kept, = entries(tmp_path)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert "fused kernel" in ran() and counted() == 2
    assert [p.read_bytes() for p in entries(tmp_path)] == [whole] or len(entries(tmp_path)) == 1
    assert not [p for p in (tmp_path / "cache" / "minigrad").iterdir() if p.is_dir()]        # nothing of the work is left


@pytest.mark.slow
def test_processes_at_once(counted, tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, cwd="/") for _ in range(3)]
    for process in started:
        assert process.communicate()[0].startswith("[2.0, 2.0, 2.0, 2.0, 2.0]") and process.returncode == 0
    assert ran() and counted() <= 3 and entries(tmp_path)


@pytest.mark.slow
def test_without_a_compiler_the_definition_runs(counted, tmp_path):
    """With one warning, however many signatures there are; `explain` says why."""
    code = RUN + "; doubling.doubled(mg.ones(2, 3)); doubling.doubled(mg.ones(3).double())"
    done = run_python("-c", code, PATH=str(tmp_path / "nothing"), CC="")
    assert done.returncode == 0 and done.stdout.startswith("[2.0, 2.0, 2.0, 2.0, 2.0]")
    assert "definition: there is no C compiler here: install gcc or clang" in done.stdout
    assert done.stderr.count("UserWarning: [doubled] its C kernels are not used, and its definition runs") == 1
    assert "<string>:1" in done.stderr                       # the user's line
    assert "CC is 'no-such-cc', which is not there" in run_python("-c", RUN, CC="no-such-cc").stdout
    assert counted() == 0 and not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(counted, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert "fused kernel" in ran() and counted() == 1


def refused_by(what, message, tmp_path):
    """A compiler that does one thing only."""
    wrapper = tmp_path / "own-cc"
    wrapper.write_text(f"#!/bin/sh\n{what}\n")
    wrapper.chmod(0o755)
    done = run_python("-c", RUN, CC=str(wrapper))
    assert message in done.stdout + done.stderr and "Traceback" not in done.stderr.partition(message)[2]
    return done


@pytest.mark.slow
def test_what_lies_in_the_place_of_a_library(counted, tmp_path):
    """A folder under its name stays, and is passed over; a link that leads nowhere is removed."""
    ran()
    kept, = entries(tmp_path)
    kept.unlink()
    kept.mkdir()
    assert "fused kernel" in ran() and kept.is_dir()
    kept.rmdir()
    kept.symlink_to(tmp_path / "nowhere")
    assert "fused kernel" in ran()
    whole = [path for path in entries(tmp_path) if path.is_file() and not path.is_symlink()]
    assert len(whole) == 1                          # under another name if the compiler writes where it worked


@pytest.mark.slow
def test_a_folder_where_others_can_write_is_not_used(counted, tmp_path):
    """Whoever can write there could plant a library, which would run."""
    (tmp_path / "cache" / "minigrad").mkdir(parents=True, mode=0o700)
    (tmp_path / "cache" / "minigrad").chmod(0o770)
    assert "fused kernel on cpu" in ran() and counted() == 1 and not entries(tmp_path)
    (tmp_path / "cache" / "minigrad").chmod(0o700)
    assert "fused kernel on cpu" in ran() and counted() == 2 and len(entries(tmp_path)) == 1


@pytest.mark.slow
def test_a_full_disk(counted, tmp_path):
    """As a folder that cannot be written: first for this package, then for the compiler, then everywhere."""
    code = ("import os, errno, minigrad.devices.foreign as f, pathlib\ndef full(*a): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
            "write = pathlib.Path.write_text\n")
    cache = "pathlib.Path.write_text = lambda self, text: full() if 'cache' in str(self) else write(self, text)\n"
    done = run_python("-W", "error", "-c", code + cache + RUN)
    assert "fused kernel on cpu" in done.stdout and not entries(tmp_path), done.stderr
    done = run_python("-c", code + "pathlib.Path.write_text = full\n" + RUN)
    assert done.stdout.startswith("[2.0, 2.0") and "the compiler has no place to work in: [Errno 28] No space left" in done.stdout
    assert done.stderr.count("UserWarning: [doubled] its C kernels are not used") == 1
    done = refused_by("echo 'fatal error: error writing to x.s: No space left on device' >&2; exit 1", "no place to work in: [Errno 28]", tmp_path)
    assert done.returncode == 0


@pytest.mark.slow
def test_compilers_that_are_none(counted, tmp_path):
    done = run_python("-c", RUN, CC="gcc '")
    assert done.returncode == 0 and 'CC is "gcc \'", which no shell would take: No closing quotation' in done.stdout, done.stderr
    assert refused_by("exit 0", "own-cc does not compile the C text of its kernels for f32", tmp_path).stderr.rstrip().endswith(
        "nothing; it ended with 0 and made no library")
    assert refused_by("echo rubbish > kernel.so", "what the compiler made cannot be opened", tmp_path).returncode == 0


def test_a_wrong_text_is_shown_with_its_line(counted):
    @mg.op
    def broken(x):
        return x + 1
    broken.kernel("cpu", source="""
KERNEL(REAL, broken_forward, T *y, const T *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] + one;      // marked
}
""")
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("// marked"))
    with pytest.raises(RuntimeError, match=rf"(?s)\[broken.kernel\] .*counting-cc does not compile .* f32 .*test_foreign.py:{line}:.*one"):
        broken(mg.ones(3))
    assert counted() == 1
    broken.kernel("cpu", source="""
KERNEL(REAL, broken_forward, T *y, const T *x, int64_t n) {
  EACH_VECTOR(j, k, n, store_n(y + j, load_n(x + j, k) + one, k););
}
""")
    with pytest.raises(RuntimeError, match="'one'") as caught:
        broken(mg.ones(3))
    assert " macro " not in str(caught.value)               # what stands in the headers is no help
    parts = ["KERNEL(REAL, broken_forward, T *y, const T *x, int64_t n) {\n", "  y[0] = nowhere(x[0]);\n}\n"]
    broken.kernel("cpu", source="".join(parts))             # the text stands nowhere as it is
    with pytest.raises(RuntimeError, match=r"(?s)broken.c:2:.*nowhere"):
        broken(mg.ones(3))


@pytest.mark.parametrize("text, message", [
    ("", r"\[f.kernel\] the text must define a kernel; got 0 lines without"),
    ("int x;", r"\[f.kernel\] the text must define a kernel; got 1 lines without; begin a line with `KERNEL\(REAL, f_forward"),
    ("KERNEL(REEL, f_forward, T *y)", "a set of types is one of REAL, NUMBER, .*; got REEL"),
    ("KERNEL(REAL, f_forward, T *y, float slope) {}", "an argument is a pointer, an int64_t or a double, with its name; got `float slope`"),
    ("KERNEL(REAL, f_forward, T *y, int64_t) {}", "got `int64_t`"),
    (f"KERNEL(REAL, f_forward, {', '.join(f'T *a{i}' for i in range(65))}) {{}}", "at most 64 arguments; got 65")])
def test_what_a_text_must_declare(text, message):
    @mg.op
    def f(x):
        return x + 1
    with pytest.raises(ValueError, match=message):
        f.kernel("cpu", source=text)
    with pytest.raises(ValueError, match=r"\[f.kernel\] the device is one of cpu, cuda; got 'gpu'"):
        f.kernel("gpu", source="KERNEL(REAL, f_forward, T *y) {}")
    for source in (3, b"KERNEL", None):
        with pytest.raises(TypeError, match=r"\[f.kernel\] source must be a text \(str\), or the Path of a file with it; got"):
            f.kernel("cpu", source=source)


def test_a_file_and_comments(counted, tmp_path):
    """The text may lie in a file; what stands in comments declares nothing; a declaration may run over lines."""
    path = tmp_path / "plus_one.c"
    path.write_text("/*\nKERNEL(REAL, other, T *y)\n*/\n// KERNEL(REAL, third, T *y)\nKERNEL(REAL, plus_one_forward,\n       T *y, const T *x,\n"
                    "       int64_t n) {\n  for (int64_t i = 0; i < n; i++) y[i] = x[i] + 1;\n}\n")

    @mg.op
    def plus_one(x):
        return x + 1
    plus_one.kernel("cpu", source=path)
    assert [k.name for k in plus_one.sources["cpu"][0].declared] == ["plus_one_forward"]
    assert study.launches(plus_one, mg.ones(3)) == ["plus_one_forward_f32"]
    path.write_text("KERNEL(REAL, plus_one_forward, T *y, const T *x, int64_t n) {\n  oops\n}\n")
    plus_one.kernel("cpu", source=path)
    with pytest.raises(RuntimeError, match=r"plus_one.c:3:1: error|plus_one.c:2:.*error"):
        plus_one(mg.ones(3))


def test_services_of_the_module(counted):
    """Threads, work space, and failures that raise, eager and in a replay."""
    @mg.op
    def reversed_sum(x, *, scratch=8):
        return x.flip(0).cumsum(0)

    @reversed_sum.fused
    def _(kernels, x, *, scratch):
        kernel = kernels.reversed_sum_forward[x.dtype]

        def forward(xa):
            y = mg.empty(x.shape, dtype=x.dtype).array
            kernel.call(y.ptr, xa.ptr, x.size, scratch)
            return y, ()
        return forward, None
    reversed_sum.kernel("cpu", source=r"""
typedef struct { T *to; const T *from; int64_t n; } Job;
static void piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  for (int64_t i = begin; i < end; i++) job->to[i] = job->from[job->n - 1 - i];
}
KERNEL(REAL, reversed_sum_forward, T *y, const T *x, int64_t n, int64_t scratch) {
  T *turned = mg_scratch(0, (size_t)scratch * n);
  if (!turned) return;
  mg_parallel(n, 1000, piece, &(Job){turned, x, n});
  T sum = 0;
  for (int64_t i = 0; i < n; i++) y[i] = sum += turned[i];
}
""")
    x = mg.arange(5000.0, dtype=mg.float64)
    before = mg.get_num_threads()
    try:
        mg.set_num_threads(2)
        np.testing.assert_array_equal(reversed_sum(x).numpy(), np.cumsum(np.arange(5000.0)[::-1]))
    finally:
        mg.set_num_threads(before)
    for _ in range(2):
        with pytest.raises(MemoryError, match=r"\[reversed_sum_forward\] \d+ bytes of work space are not to be had"):
            reversed_sum(x, scratch=1 << 48)
    assert reversed_sum(x)[0].item() == 4999                # nothing is left of the failure


@pytest.mark.parametrize("arguments, error", [((1, 2), "takes 3 arguments; got 2"), (("a", 1, 2), "cannot be interpreted as an integer")])
def test_arguments_of_a_launch_are_checked(counted, arguments, error):
    source = foreign.read("f", "KERNEL(REAL, f_forward, T *y, const T *x, int64_t n) { (void)y, (void)x, (void)n; }", "f.c", 1)
    kernel, = foreign.library(source, "f64", mg.device("cpu"))
    kernel.call(0, 0, -1)
    with pytest.raises(TypeError, match=error):
        kernel.call(*arguments)
    with pytest.raises(OverflowError):
        kernel.call(0, 0, 1 << 70)


@pytest.mark.slow
def test_sanitizers(counted):
    """CFLAGS are the user's: with the sanitizer's library loaded first, a kernel that leaves its arrays is shown with its line."""
    found = subprocess.run([os.environ["CC"], "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip("the compiler has no libasan.so")
    Path(os.environ["XDG_CACHE_HOME"]).with_name("doubling.py").write_text(PACKAGE.replace("n) {", "n) {\n  if (n > 1000) y[n + 80] = 1;"))
    done = run_python("-c", "import doubling, minigrad as mg; doubling.doubled(mg.ones(2000))", LD_PRELOAD=found, CFLAGS="-fsanitize=address -g",
                      ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode and re.search(r"heap-buffer-overflow(?s:.*)doubled_forward_f32_\w+ .*doubling.py:10", done.stderr), done.stderr
