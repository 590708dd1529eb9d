"""Warnings that point to the line of the user's program. All warnings of the package are made here."""
from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

PACKAGE = str(Path(__file__).parent.parent) + os.sep        # what the file names of the package begin with


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning that points to the first line of the stack that is not in this package."""
    frame: Any = sys._getframe(1)
    level = 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
