"""What an image says of itself, where it is an MCUboot image: to be compared with what its manifest says of it.

A bootloader on the device believes this header and these TLVs, people and devguard believe the manifest; a release in
which they differ would be one thing on paper and another in the device. Only facts are read here; who compares says
`image.format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot import inspect_mcuboot
from devguard.image.mcuboot_parse import read_at

_MAGICS = (layout.IMAGE_MAGIC.to_bytes(4, "little"), layout.IMAGE_MAGIC.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class Inside:
    """Version as MCUboot writes it (major, minor, revision), security counter and UUIDs where their TLVs are there,
    and the first rule of the bootloader that the image breaks."""

    version: tuple[int, int, int]
    counter: int | None
    vendor_id: bytes | None
    class_id: bytes | None
    problem: str | None


def look_inside(reader: BinaryIO) -> Inside | None:
    """The facts of an MCUboot image in a seekable `reader`, whose position is kept; None where it is none."""
    position = reader.tell()
    try:
        if read_at(reader, 0, 4) not in _MAGICS:
            return None
        report = inspect_mcuboot(reader)
    finally:
        reader.seek(position)
    fields = report.fields
    closed = bool(fields.get("encrypted")) and fields.get("body_encrypted") is not False
    wrong = [one for one in report.problems if not (closed and "needs the device key" in one.detail)]
    version = str(fields.get("version", "0.0.0+0")).split("+")[0].split(".")
    vendor, model = fields.get("vendor_id"), fields.get("class_id")
    counter = fields.get("security_counter")
    return Inside(
        (int(version[0]), int(version[1]), int(version[2])),
        counter if isinstance(counter, int) else None,
        bytes.fromhex(vendor) if isinstance(vendor, str) else None,
        bytes.fromhex(model) if isinstance(model, str) else None,
        wrong[0].detail if wrong else None,
    )


def disagreement(
    inside: Inside | None,
    *,
    version: str | None,
    security_version: int | None,
    vendor_id: bytes,
    class_ids: Sequence[bytes],
) -> str | None:
    """How the image contradicts its manifest; None where it does not, or says nothing of itself.

    `version` and `security_version` are None where the manifest's are not this image's own (one of several
    components). An MCUboot version has no pre-release: 1.2.0-rc.1 is 1.2.0 there.
    """
    if inside is None:
        return None
    if inside.problem is not None:
        return f"the image is no MCUboot image a bootloader would take: {inside.problem}"
    numbers = ".".join(map(str, inside.version))
    if version is not None and version.split("-")[0].split("+")[0] != numbers:
        return f"the image says version {numbers}, the manifest {version}"
    if None not in (inside.counter, security_version) and inside.counter != security_version:
        return f"the image says security counter {inside.counter}, the manifest {security_version}"
    if inside.vendor_id is not None and inside.vendor_id != vendor_id:
        return f"the image says vendor {inside.vendor_id.hex()}, the manifest {vendor_id.hex()}"
    if inside.class_id is not None and inside.class_id not in class_ids:
        return f"the image says class {inside.class_id.hex()}, the manifest {', '.join(one.hex() for one in class_ids)}"
    return None
