"""What an MCUboot image says of itself is compared with its manifest, when it is built and when it is judged."""

from __future__ import annotations

import io

import pytest

from devguard.image import mcuboot_layout as layout
from devguard.image.inside import disagreement, look_inside
from devguard.image.measure import measure_image
from image_support import image, tlv

VENDOR, CLASS = bytes(range(16)), bytes(range(16, 32))


def made(**changes: bytes) -> bytes:
    parts = {
        "counter": tlv(layout.SECURITY_COUNTER, (7).to_bytes(4, "little")),
        "vendor": tlv(layout.VENDOR_ID, VENDOR),
        "class": tlv(layout.CLASS_ID, CLASS),
    }
    return image(protected=b"".join((parts | changes).values()))


def against(data: bytes, **changes: object) -> str | None:
    facts = {"version": None, "security_version": 7, "vendor_id": VENDOR, "class_ids": [bytes(16), CLASS]}
    return disagreement(look_inside(io.BytesIO(data)), **(facts | changes))  # type: ignore[arg-type]  # see changes


def version_of(data: bytes) -> str:
    found = look_inside(io.BytesIO(data))
    assert found is not None
    return ".".join(map(str, found.version))


def test_an_image_that_agrees() -> None:
    version = version_of(made())
    assert against(made(), version=version) is None
    assert against(made(), version=f"{version}-rc.1") is None


@pytest.mark.parametrize(
    ("data", "changes", "said"),
    [
        (made(), {"version": "9.9.9"}, "says version"),
        (made(), {"security_version": 8}, "security counter 7, the manifest 8"),
        (made(), {"vendor_id": bytes(16)}, "says vendor"),
        (made(), {"class_ids": [bytes(16)]}, "says class"),
        (made() + b"x", {}, "no MCUboot image a bootloader would take"),
        (made()[:200], {}, "no MCUboot image a bootloader would take"),
    ],
    ids=["version", "counter", "vendor", "class", "trailing", "cut"],
)
def test_an_image_that_contradicts_its_manifest(data: bytes, changes: dict[str, object], said: str) -> None:
    assert said in str(against(data, **changes))


def test_what_an_image_does_not_say_is_not_asked() -> None:
    assert against(image(), security_version=99, vendor_id=bytes(16), class_ids=[]) is None
    assert against(b"raw firmware", version="1.0.0") is None


def test_the_measure_looks_and_keeps_its_digest() -> None:
    reader = io.BytesIO(made())
    measured = measure_image(reader)
    assert measured.inside is not None
    assert measured.inside.counter == 7
    assert reader.tell() == measured.size
    assert measure_image(io.BytesIO(b"raw")).inside is None
