"""What a hostile review found: each of these passed, or crashed, before."""

from __future__ import annotations

import io

import pytest

from devguard.errors import DevguardError
from devguard.manifest.envelope import read_envelope
from devguard.verdict.judge import Target
from tests.builders import Vendor
from tests.rooms.test_verdict_judge import PUMP, signed, vendor, verdict_on

__all__ = ["vendor"]


@pytest.mark.parametrize(
    ("installed", "code"),
    [
        ("1.0.9", None),
        ("1.1.0-rc.4", None),
        ("1.1.0", "version.current"),
        ("1.1.1-alpha", "version.rollback"),
        ("2.0.0", "version.rollback"),
        ("1.0.9-dev.1", "version.rollback"),
    ],
)
def test_the_installed_version_alone_stops_a_way_back(vendor: Vendor, installed: str, code: str | None) -> None:
    verdict = verdict_on(signed(vendor), vendor, target=Target(model=PUMP, installed_version=installed))
    assert verdict.code == code
    assert bool(verdict) == (code is None)


class Failing(io.BytesIO):
    """A disk that gives up after so many calls."""

    def __init__(self, data: bytes, calls: int) -> None:
        super().__init__(data)
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise OSError(5, "Input/output error")

    def read(self, size: int | None = -1, /) -> bytes:
        self._count()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._count()
        return super().seek(offset, whence)


@pytest.mark.parametrize("calls", range(12))
def test_an_envelope_on_a_failing_disk_is_a_coded_error(calls: int) -> None:
    # a tagged map with one 70 000 byte payload, so that reading also jumps
    data = b"\xd8\x6b\xa2\x02\x41\x80\x61#\x5a\x00\x01\x11\x70" + bytes(70_000)
    with pytest.raises(DevguardError) as caught:
        read_envelope(Failing(data, calls))
    assert caught.value.code in {"file.unreadable", "envelope.malformed"}
    assert calls > 0 or caught.value.code == "file.unreadable"
