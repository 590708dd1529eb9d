"""`python -m minigrad`: what is running here."""
from __future__ import annotations

from . import show_config

if __name__ == "__main__":
    print(show_config())
