"""Input that once broke a parser, by target, as hex: found by fuzzing, fixed, and tried again by every test run."""

from __future__ import annotations

_HUGE = "c25907d0" + "ff" * 2000  # a CBOR number of more digits than Python writes

FOUND: dict[str, tuple[str, ...]] = {
    # a problem that lay behind the end of the file
    "image-mcuboot": (
        "3db8f39600000000203100000048000000000000000102030000000000000000"
        "6669726d776172656669726d776172656669726d77617265",
    ),
    # numbers that cannot be printed: as a value, as a key, in a key
    "packet-smp_frame": (
        "0a0007d7" + "00010700" + "a16161" + _HUGE,
        "0a0007d6" + "00010700" + "a1" + _HUGE + "01",
        "0a0007d8" + "00010700" + "a18201" + _HUGE + "01",
    ),
}
