"""What a test does where something it needs is not on this machine."""

from __future__ import annotations

import os

import pytest


def missing(what: str) -> None:
    """Skip the running test because something it needs is not on this machine; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (in CI this may not be missing)")
    pytest.skip(what)
