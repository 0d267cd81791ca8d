"""From a file a person named to a verdict: open once, read the envelope, measure the image, judge. No printing.

Used by `verify`, `push` and the demo alike, so that what one accepts the other does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from devguard.cli.files import JoinedReader, open_input, payload_reader
from devguard.cli.times import SEQUENCE
from devguard.errors import DevguardError, Malformed, Refused
from devguard.image.measure import SHA_256, Measured, MeasuredStream, measure_stream
from devguard.manifest.envelope import Envelope, read_envelope
from devguard.manifest.release import ReleaseFacts
from devguard.verdict.judge import Target, Verdict, judge, refused_form

if TYPE_CHECKING:
    from devguard.trust.document import TrustDocument
    from devguard.verdict.release import Release

Ranges = Sequence[tuple[int, int]]
NOTHING: Final = MeasuredStream({}, Measured(SHA_256, b"", 0))


@dataclass(slots=True)
class Judged:
    """A verdict with what it was about. `payloads`: component id -> reader of its flat image, while the file is open;
    `measured`: what was measured of them; `notes`: what was left out of an image on a person's word."""

    verdict: Verdict
    envelope: Envelope | None
    payloads: dict[str, BinaryIO]
    measured: MeasuredStream
    notes: tuple[str, ...] = ()


def target_of(model: str | None, serial: str | None, installed: str | None, revision: str | None = None) -> Target:
    """What `--model`, `--serial` and `--installed VERSION|SEQ` ask."""
    facts = None
    if model is not None:
        from devguard.device.models import load_model

        facts = load_model(model).facts
    sequence = int(installed) if installed is not None and SEQUENCE.fullmatch(installed) else None
    version = installed if installed is not None and sequence is None else None
    return Target(model=facts, serial=serial, revision=revision, installed_sequence=sequence, installed_version=version)


def judge_file(
    path: Path,
    *,
    trust: TrustDocument,
    now: int,
    target: Target,
    stack: ExitStack,
    envelope_path: Path | None = None,
    opened: BinaryIO | None = None,
    ignore: Ranges = (),
    apart: Mapping[str, Path] | None = None,
) -> Judged:
    """The verdict on a `.suit` file, or on a bare image with its envelope beside it.

    `opened`: an open copy of `path` to use instead of the path. `apart`: images beside the envelope, by component id.
    `ignore`: half-open address ranges of a bare Intel HEX image that a person lets pass though no signature covers
    them. A file that cannot be opened raises; whatever it contains becomes a verdict. Readers stay open until `stack`
    closes.
    """
    file = opened if opened is not None else stack.enter_context(open_input(path))
    carrier = file if envelope_path is None else stack.enter_context(open_input(envelope_path))
    images_apart = {name: stack.enter_context(open_input(one)) for name, one in (apart or {}).items()}
    watched = [file, *images_apart.values()]
    before = [_stamp(one) for one in watched]
    try:
        envelope = read_envelope(carrier)
    except DevguardError as error:
        return Judged(refused_form(error), None, {}, NOTHING)
    images = _Images(envelope, carrier, None if envelope_path is None else file, images_apart, target, ignore)
    verdict = judge(envelope, trust=trust, now=now, target=target, payload=images.measure)
    if images.unread is not None and verdict.code == "image.digest":
        raise images.unread  # the image could not even be read in its format: that says more than a digest
    if before != [_stamp(one) for one in watched]:
        raise Refused("file.changed", f"{path} changed while it was verified")
    return Judged(verdict, envelope, images.payloads, images.measured, images.notes)


def _stamp(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


@dataclass(slots=True)
class _Images:
    """The images of a release, found and measured when `judge` says which they are.

    `bare`: the one image beside its envelope; `apart`: images beside it by component id, the others are in the
    envelope. `unread`: why an image could not be read in its format.
    """

    envelope: Envelope
    carrier: BinaryIO
    bare: BinaryIO | None
    apart: Mapping[str, BinaryIO]
    target: Target
    ignore: Ranges
    payloads: dict[str, BinaryIO] = field(default_factory=dict)
    measured: MeasuredStream = NOTHING
    notes: tuple[str, ...] = ()
    unread: DevguardError | None = None

    def measure(self, facts: ReleaseFacts) -> Measured | MeasuredStream:
        """What was measured; nothing where an image cannot be read. Raises `file.*` alone.

        Where one image was given for a release of several, that image alone: it is never taken for all of them.
        """
        try:
            names = [one.id for one in facts.components]
            beside = dict(self.apart)
            if self.bare is not None:
                if len(names) > 1:
                    return NOTHING.whole
                beside = {names[0]: self.bare}
            stray = [name for name in beside if name not in names]
            if stray:
                what = f"the release has no component {stray[0]}; it has {', '.join(names)}"
                raise Refused("release.components", what)
            self.payloads = _integrated(self.envelope, facts, self.carrier)
            for name, image in beside.items():
                self.payloads[name], notes = _bare(image, facts, self.target, self.ignore)
                self.notes += notes
            self.measured = _measure(facts, self.payloads)
        except DevguardError as error:
            if error.code.startswith("file."):
                raise
            self.unread = error if error.code.startswith(("image.", "release.")) else None
        return self.measured


def _integrated(envelope: Envelope, facts: ReleaseFacts, carrier: BinaryIO) -> dict[str, BinaryIO]:
    found: dict[str, BinaryIO] = {}
    for component in facts.components:
        integrated = payload_reader(carrier, envelope, component.uri)
        if integrated is not None:
            found[component.id] = integrated  # type: ignore[assignment]  # a RawIOBase reads like a BinaryIO
    return found


def _bare(image: BinaryIO, facts: ReleaseFacts, target: Target, ignore: Ranges) -> tuple[BinaryIO, tuple[str, ...]]:
    """A bare image as it was signed, and what was left out of it.

    A text format is flattened over the model's flash range. Records outside it were never signed, and a programmer
    would write them all the same: they refuse (`image.range`) unless a person named their range, and then they show.
    """
    from devguard.image.kind import HEAD_SIZE, Kind, recognise

    head = image.read(HEAD_SIZE)
    image.seek(0)
    if recognise(head) is not Kind.IHEX:
        return image, ()
    from devguard.device.models import load_model
    from devguard.image.flat import flatten

    name = facts.text.model if facts.text is not None else None
    model = target.model or (load_model(name).facts if name is not None else None)
    if model is None:
        raise Malformed("image.format", "an Intel HEX image is judged over a model's flash range", "say --model")
    flat = flatten(image, flash=model.flash, ignore=ignore)
    return flat.reader, flat.notes


def _measure(facts: ReleaseFacts, payloads: Mapping[str, BinaryIO]) -> MeasuredStream:
    present = [one for one in facts.components if one.id in payloads]
    for reader in payloads.values():
        reader.seek(0)
    return measure_stream((one.id, payloads[one.id], one.digest_algorithm) for one in present)


def stream_of(judged: Judged, release: Release) -> BinaryIO:
    """What an accepted release sends, positioned at 0: its image, or the images of its components back to back."""
    parts = [(judged.payloads[one.id], one.size) for one in release.components]
    reader = parts[0][0] if len(parts) == 1 else JoinedReader(parts)
    reader.seek(0)
    return reader  # type: ignore[return-value]  # a RawIOBase reads like a BinaryIO
