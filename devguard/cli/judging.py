"""From a file a person named to a verdict: open once, read the envelope, measure the image, judge. No printing.

Used by `verify`, `push` and the demo alike, so that what one accepts the other does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from devguard.cli.files import open_input, payload_reader
from devguard.cli.times import SEQUENCE
from devguard.errors import DevguardError, Malformed, Refused
from devguard.manifest.envelope import Envelope, read_envelope
from devguard.manifest.release import ReleaseFacts, release_facts
from devguard.verdict.judge import Target, Verdict, judge, refused_form

if TYPE_CHECKING:
    from devguard.image.measure import Measured
    from devguard.manifest.release import ComponentFacts
    from devguard.trust.document import TrustDocument

Ranges = Sequence[tuple[int, int]]


@dataclass(slots=True)
class Judged:
    """A verdict with what it was about. `payloads`: component id -> reader of its flat image, while the file is open;
    `measured`: what was measured of each; `notes`: what was left out of an image on a person's word."""

    verdict: Verdict
    envelope: Envelope | None
    payloads: dict[str, BinaryIO]
    measured: dict[str, Measured]
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
) -> Judged:
    """The verdict on a `.suit` file, or on a bare image with its envelope beside it.

    `opened`: an open copy of `path` to use instead of the path. `ignore`: half-open address ranges of a bare Intel HEX
    image that a person lets pass though no signature covers them. A file that cannot be opened raises; whatever it
    contains becomes a verdict. Readers stay open until `stack` closes.
    """
    file = opened if opened is not None else stack.enter_context(open_input(path))
    carrier = file if envelope_path is None else stack.enter_context(open_input(envelope_path))
    before = os.fstat(file.fileno())
    try:
        envelope = read_envelope(carrier)
    except DevguardError as error:
        return Judged(refused_form(error), None, {}, {})
    payloads: dict[str, BinaryIO] = {}
    measured: dict[str, Measured] = {}
    notes: tuple[str, ...] = ()
    unread: DevguardError | None = None
    try:
        facts = release_facts(envelope)
        if envelope_path is not None and len(facts.components) == 1:
            bare, notes = _bare(file, facts, target, ignore)
            payloads = {facts.components[0].id: bare}
        else:
            payloads = _integrated(envelope, facts, carrier)
        measured = _measure(facts, payloads)
    except DevguardError as error:
        if error.code.startswith("file."):
            raise
        measured = {}
        unread = error if error.code.startswith("image.") else None
    verdict = judge(envelope, trust=trust, now=now, target=target, payload=measured)
    if unread is not None and verdict.code == "image.digest":
        raise unread  # the image could not even be read in its format: that says more than a digest
    after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Refused("file.changed", f"{path} changed while it was verified")
    return Judged(verdict, envelope, payloads, measured, notes)


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


def _measure(facts: ReleaseFacts, payloads: Mapping[str, BinaryIO]) -> dict[str, Measured]:
    from devguard.image.measure import measure

    found = {}
    for component in facts.components:
        if component.id in payloads:
            reader = payloads[component.id]
            reader.seek(0)
            found[component.id] = measure(reader, algorithm=component.digest_algorithm)
            reader.seek(0)
    return found


def image_of(judged: Judged, component: ComponentFacts) -> BinaryIO:
    """The open image of a component of an accepted release."""
    reader = judged.payloads[component.id]
    reader.seek(0)
    return reader
