"""Making patches: the same bytes each time, which `detools` itself applies, and no larger than its own best."""

from __future__ import annotations

import importlib.util
import io
import random

import pytest

from devguard.errors import Refused
from devguard.image import delta
from devguard.image.delta import can_patch, compress, make_patch

detools = pytest.importorskip("detools", reason="the extra `delta` is not installed")

SOURCE = random.Random(5)
WORDS = [SOURCE.randbytes(SOURCE.randrange(20, 60)) for _ in range(400)]
OLD = b"".join(WORDS)
NEW = b"".join([*WORDS[:150], b"something new here", *WORDS[160:], *WORDS[20:40]])


def test_a_patch_is_the_same_each_time_and_detools_applies_it() -> None:
    patch = make_patch(OLD, NEW)
    assert patch == make_patch(OLD, NEW)
    for form, source in ((patch, OLD), (compress(NEW), b"")):
        out = io.BytesIO()
        detools.apply_patch(io.BytesIO(source), io.BytesIO(form), out)
        assert out.getvalue() == NEW
    assert len(patch) < len(NEW) // 10


@pytest.mark.parametrize("size", [1, 63, 64, 8191, 8192, 1 << 20])
def test_every_size_is_written_as_detools_writes_it(size: int) -> None:
    plain = io.BytesIO()
    detools.create_patch(io.BytesIO(b"a"), io.BytesIO(bytes(size)), plain, compression="none", use_mmap=False)
    assert plain.getvalue()[1:].startswith(delta._number(size))
    assert compress(bytes(size))[1:].startswith(delta._number(size))


def test_a_patch_is_no_larger_than_detools_makes_it_with_the_same_compression() -> None:
    """Real firmware, and the other forms: tools/bench_delta.py."""
    out = io.BytesIO()
    detools.create_patch(io.BytesIO(OLD), io.BytesIO(NEW), out, compression="lzma", use_mmap=False)
    assert len(make_patch(OLD, NEW)) <= len(out.getvalue())


@pytest.mark.parametrize("size", [0, delta.MAX_IMAGE + 1])
def test_sizes_that_are_not_taken(size: int) -> None:
    image = bytes(size)
    for call in (lambda: compress(image), lambda: make_patch(image, b"x"), lambda: make_patch(b"x", image)):
        with pytest.raises(Refused) as error:
            call()
        assert error.value.code == "image.size"


def test_without_the_package_images_can_still_be_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_patch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not can_patch()
    assert compress(NEW)
