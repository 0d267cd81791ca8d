"""How small devguard's patches are, on real firmware, against the sequential patches that `detools` itself makes.

`rows()` is what `tools/bench.py` calls: (what, ours, theirs, outcome, aim, met). Sizes only, the same on every machine;
every patch is applied by the device's decoder and by `detools` before it counts. Best sequential form: the smallest of
all of its compressions, `heatshrink` and `lzma` as in the baselines among them. With its data format for ARM code as
well it is shown and no aim: that form asks a device for memory as large as both images, and ours does not take it
(decision 0018). The images come from `tools/fetch_firmware.py --all`.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache/firmware"
PAIRS = (
    ("nRF52 connectivity 1.1.0 to 1.2.3", "connectivity_1.1.0_1m_with_s132_3.0.hex",
     "connectivity_1.2.3_1m_with_s132_3.1.hex", "pacemaker-programmer"),
    ("nRF52 connectivity, other settings", "connectivity_1.2.3_115k2_with_s132_3.1.hex",
     "connectivity_1.2.3_1m_with_s132_3.1.hex", "pacemaker-programmer"),
    ("micro:bit MicroPython 1.0 to 1.0.1", "microbit-micropython-1.0.hex", "microbit-micropython-1.0.1.hex",
     "insulin-pump"),
)  # fmt: skip
OUTSIDE = ((0x1000_0000, 0x1000_1100),)  # configuration words that are in no slot
COMPRESSIONS = ("lzma", "bz2", "zstd", "lz4", "heatshrink", "crle", "none")
AIM = 1.05
Row = tuple[str, str, str, str, str, bool | None]


def rows() -> list[Row]:
    """For each pair: the patch against detools' smallest, against its ARM form, and the compressed image."""
    if importlib.util.find_spec("detools") is None:
        return [("patch of real firmware", "", "detools is missing", "", "", None)]
    found: list[Row] = []
    for name, old, new, model in PAIRS:
        missing = [file for file in (old, new) if not (CACHE / file).is_file()]
        if missing:
            found.append((f"patch, {name}", "", f"{missing[0]} is missing", "", "", None))
        else:
            found += _pair(name, _flat(old, model), _flat(new, model))
    return found


def _pair(name: str, old: bytes, new: bytes) -> list[Row]:
    from devguard.image.delta import compress, make_patch

    ours, squeezed = make_patch(old, new), compress(new)
    _check(ours, old, new)
    _check(squeezed, b"", new)
    best, kind = min((len(_theirs(old, new, kind)), kind) for kind in COMPRESSIONS)
    arm = len(_theirs(old, new, "lzma", "arm-cortex-m4"))
    share = f"{len(ours)} B, {len(ours) / len(new):.3f}"
    return [
        (f"patch, {name}", share, f"detools {kind} {best} B", f"{len(ours) / best:.3f}", f"<= {AIM} of detools",
         len(ours) <= AIM * best),
        ("  and its data format for ARM", share, f"detools {arm} B", f"{len(ours) / arm:.3f}", "no aim", None),
        ("  without a patch, compressed", f"{len(squeezed)} B", f"image {len(new)} B",
         f"{len(squeezed) / len(new):.3f}", "no aim", None),
    ]  # fmt: skip


def _flat(name: str, model: str) -> bytes:
    from devguard.device.models import load_model
    from devguard.image.flat import flatten

    with (CACHE / name).open("rb") as file:
        reader = flatten(file, flash=load_model(model).facts.flash, ignore=OUTSIDE).reader
        reader.seek(0)
        return reader.read()


def _theirs(old: bytes, new: bytes, compression: str, data_format: str | None = None) -> bytes:
    from detools import create_patch

    out = io.BytesIO()
    given = {"compression": compression, "data_format": data_format, "use_mmap": False}
    create_patch(io.BytesIO(old), io.BytesIO(new), out, **given)
    return out.getvalue()


def _check(patch: bytes, old: bytes, new: bytes) -> None:
    """A patch that does not give the image, to either decoder, ends the bench."""
    from detools import apply_patch

    from devguard.device.rebuild import rebuild

    theirs = io.BytesIO()
    apply_patch(io.BytesIO(old), io.BytesIO(patch), theirs)
    pieces = rebuild(lambda at, n: patch[at : at + n], len(patch), lambda at, n: old[at : at + n], len(old), len(new))
    if not theirs.getvalue() == b"".join(pieces) == new:
        raise SystemExit("a patch does not give the image it was made for")


if __name__ == "__main__":
    for row in rows():
        print("  ".join(map(str, row)))
