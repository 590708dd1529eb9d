"""What tests of several folders share: where things lie, and a fresh process."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent           # of the repository
HEADER = ROOT / "native" / "minigrad.h"


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python in a fresh process, outside the source folder (whose minigrad may not be built)."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment},
                          cwd=tempfile.gettempdir())
