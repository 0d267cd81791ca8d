"""Less to send: releases this home keeps to make patches from, and the forms of an image that a push may choose among.

    releases/DIGEST.suit    a release that was pushed from here, by the digest of its image; the newest `KEPT`

A source is believed only when its bytes have the digest that the device, in its signed report, says it runs. What comes
of it decides how an image travels, never whether it is accepted. Source: decision 0018.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

from devguard.cli.files import open_input, payload_reader, remove
from devguard.errors import DevguardError, Refused
from devguard.image.delta import MAX_IMAGE, can_patch

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.session.delta import Encoded
    from devguard.session.report import Report

KEPT: Final = 8
_LARGEST: Final = MAX_IMAGE + (1 << 20)
_HASHES: Final = {32: "sha256", 48: "sha384", 64: "sha512"}
_BITS: Final = 10  # on the line, for a byte


def forms_of(
    invocation: Invocation, image: BinaryIO, size: int, before: Report, extra: Path | None, baud: int
) -> tuple[Encoded, ...]:
    """Other forms of the image that the device can take: a patch where the release it runs is at hand.

    `image` is read from its start and left there. Making them never takes longer than half of sending the image would.
    """
    from devguard.cli.encode import encode
    from devguard.device.models import load_model
    from devguard.device.staging import staging_offset
    from devguard.session.delta import Encoded
    from devguard.session.verbs import Encoding

    layout, running = load_model(before.model).layout, before.image_digest
    if size > MAX_IMAGE or staging_offset(layout, size, 1) is None:
        return ()
    image.seek(0)
    data = image.read()
    image.seek(0)
    source = _source(invocation, before, extra) if before.manifest_digest is not None else None
    seconds = max(2.0, min(60.0, size * _BITS / baud / 2))
    made = [
        Encoded(kind, form, running if kind is Encoding.DELTA else None)
        for kind, form in encode(source or b"", data, seconds)
        if staging_offset(layout, size, len(form)) is not None
    ]
    return tuple(form for form in made if _proved(form, source or b"", data))


def _proved(form: Encoded, source: bytes, image: bytes) -> bool:
    """Whether the device's own decoder makes the image of it."""
    from devguard.device.rebuild import rebuild
    from devguard.session.verbs import Encoding

    used = source if form.encoding is Encoding.DELTA else b""
    state = hashlib.sha256()
    try:
        for piece in rebuild(_reader(form.data), len(form.data), _reader(used), len(used), len(image)):
            state.update(piece)
    except Refused:
        return False
    return hmac.compare_digest(state.digest(), hashlib.sha256(image).digest())


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def _source(invocation: Invocation, before: Report, extra: Path | None) -> bytes | None:
    """The image that runs: from the release a person named, or from those kept, or from a shelf in a folder."""
    if extra is not None:
        with open_input(extra) as file:
            found = _image_in(file, before.image_digest)
        if found is None:
            invocation.note(f"{extra} is not the release that the device runs: no patch is made from it")
    else:
        found = _kept(invocation, before.image_digest) or _on_shelf(invocation, before)
    if found is not None and not can_patch():
        invocation.note("no patch without the detools package: pip install 'devguard[delta]'")
        return None
    return found


def _kept(invocation: Invocation, digest: bytes) -> bytes | None:
    path = invocation.home.releases / f"{digest.hex()}.suit"
    try:
        with open_input(path) as file:
            return _image_in(file, digest)
    except DevguardError as error:
        if error.code != "file.missing":
            invocation.note(f"{path} cannot be used for a patch: {error}")
        return None


def _on_shelf(invocation: Invocation, before: Report) -> bytes | None:
    """From the shelf this home follows, where that is a folder: a push waits for no network."""
    if not invocation.home.shelf_state.is_file():
        return None
    from devguard.cli.shelf import opened
    from devguard.shelf.source import source_of

    try:
        one = opened(invocation)
        place = one.store.source()
        if place is None or "://" in place:
            return None
        with one.release(source_of(place), before.model, before.version, invocation.now()) as file:
            return _image_in(file, before.image_digest)
    except DevguardError as error:
        invocation.note(f"no patch from the shelf: {error}")
        return None


def _image_in(file: IO[bytes], digest: bytes) -> bytes | None:
    """The images of the release in `file`, back to back, if they have that digest together."""
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts

    name = _HASHES.get(len(digest))
    opened: Any = file
    envelope = read_envelope(opened)
    components = release_facts(envelope).components
    readers = [payload_reader(opened, envelope, one.uri) for one in components]
    if name is None or sum(one.size for one in components) > MAX_IMAGE:
        return None
    data = b"".join(reader.read(one.size) for reader, one in zip(readers, components, strict=True) if reader)
    return data if hmac.compare_digest(hashlib.new(name, data).digest(), digest) else None


def keep(invocation: Invocation, release: BinaryIO, digest: bytes) -> None:
    """Keep a release that a device runs now, for patches from it later; the oldest beyond `KEPT` go.

    It is a convenience: where it cannot be kept, the push is as good as it was.
    """
    from devguard.custody.files import write_streamed

    try:
        release.seek(0, 2)
        if release.tell() > _LARGEST:
            return
        release.seek(0)
        folder = invocation.home.make(invocation.home.releases)
        write_streamed(folder / f"{digest.hex()}.suit", lambda file: shutil.copyfileobj(release, file, 1 << 20), 0o600)
        found = sorted(folder.glob("*.suit"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[KEPT:]:
            remove(path)
    except (DevguardError, OSError) as error:
        invocation.note(f"the release is not kept for later patches: {error}")
