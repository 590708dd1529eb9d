"""`python -m minigrad.as_torch` beside `python`: arguments, what the program sees of itself, exit codes, tracebacks."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import run_python

DOOR = ("-m", "minigrad.as_torch")
SEES = """
import sys, os, pickle
import helper
class Here: pass
print(__name__, __file__, sys.argv, sys.path[0] == os.path.dirname(os.path.realpath(__file__)), helper.value)
print(type(pickle.loads(pickle.dumps(Here()))).__module__, sys.modules["__main__"].Here is Here, "__cached__" in globals())
"""
FAILS = """
def inner():
    raise ValueError("wrong")

def outer():
    try:
        {}["key"]
    except KeyError:
        inner()

outer()
"""


@pytest.fixture
def program(tmp_path):
    """A function that writes a program, and gives what its file is called."""
    (tmp_path / "helper.py").write_text("value = 42\n")

    def write(text: str, name: str = "program.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)
    return write


def test_torch_is_minigrad(program):
    done = run_python(*DOOR, program("import torch, minigrad\nprint(torch.Tensor is minigrad.Tensor)"))
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_the_program_sees_what_it_would_see(program):
    file = program(SEES)
    plain, done = run_python(file, "--lr", "0.1"), run_python(*DOOR, file, "--lr", "0.1")
    assert plain.stdout.splitlines()[0] == f"__main__ {file} [{file!r}, '--lr', '0.1'] True 42"
    assert (done.stdout, done.stderr) == (plain.stdout, "")


@pytest.mark.slow
@pytest.mark.parametrize("text, code", [("import sys; sys.exit(3)", 3), ("import sys; sys.exit('why')", 1), ("exit()", 0), (FAILS, 1),
                                        ("x = 1 +", 1), ("import nothing_of_this_name", 1),
                                        ("import sys; sys.excepthook = lambda *_: print('mine'); 1 / 0", 1)])
def test_exit_codes_and_tracebacks_are_pythons(program, text, code):
    file = program(text)
    plain, done = run_python(file), run_python(*DOOR, file)
    assert (done.returncode, done.stdout, done.stderr) == (code, plain.stdout, plain.stderr)
    assert plain.returncode == code


@pytest.mark.slow
def test_an_interrupt_ends_it_as_it_ends_python(program):
    file = program("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background jobs ignore it\n"
                   "print('ready', flush=True)\nwhile True: pass")
    ended = []
    for door in ((), DOOR):
        with subprocess.Popen([sys.executable, *door, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              cwd=Path(file).parent) as running:
            assert running.stdout.readline() == "ready\n"
            time.sleep(0.1)                                 # until it is in its last line
            running.send_signal(signal.SIGINT)
            ended.append((running.stderr.read(), running.wait()))
    assert ended[0] == ended[1] and ended[1][1] == -signal.SIGINT


@pytest.mark.slow
def test_modules_text_and_folders(program, tmp_path):
    program("import sys, torch; print(__name__, sys.argv[1:], torch.ones(1).item())", "__main__.py")
    program("import sys, torch; print(__name__, sys.argv[1:], torch.ones(1).item())", "tool.py")
    here = {"cwd": tmp_path, "capture_output": True, "text": True, "env": os.environ}
    for how in (["-m", "tool"], ["-c", "import tool; import runpy; runpy.run_path('tool.py', run_name='__main__')"], [str(tmp_path)]):
        done = subprocess.run([sys.executable, *DOOR, *how, "a", "-b"], **here)
        assert done.stdout.splitlines()[-1:] == ["__main__ ['a', '-b'] 1.0"], (how, done)
    assert "tool" in subprocess.run([sys.executable, *DOOR, "-c", "import tool; print(tool.__name__)"], **here).stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments, code, says", [((), 2, "usage"), (("-m",), 2, "usage"), (("missing.py",), 2, "can't open file")])
def test_without_a_program(arguments, code, says):
    done = run_python(*DOOR, *arguments)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr


def test_help():
    done = run_python(*DOOR, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ")
