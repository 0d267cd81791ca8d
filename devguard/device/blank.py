"""A device that is nobody: not enrolled yet, or decommissioned. It can be given a name, once, and nothing else.

Keys are made here and stay here; credentials and trust document are judged by the same pure rooms as everywhere, with
the document's own roots, for there is nothing else to go by (trust at first use, in the factory). A device that was
decommissioned asks for more: its credentials have to be signed by two persons. Source: devguard architecture, "The
conversation on the wire"; attack B04.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from devguard.custody.memory import MemorySigner
from devguard.device.keys import make_keys
from devguard.device.models import Model
from devguard.device.node import Surroundings
from devguard.device.provision import enrol
from devguard.device.storage import DeviceDirectory
from devguard.errors import DevguardError, Malformed, Refused
from devguard.grant.credential import read_credential
from devguard.manifest.model import Clock
from devguard.session.enrolment import Name, sign_request
from devguard.session.factory_side import FactoryConversation
from devguard.session.suites import PRODUCTION
from devguard.session.verbs import NONCE_SIZE, PROTOCOL_VERSION, HelloReply
from devguard.trust.document import check_time, read_trust
from devguard.trust.model import MAX_DOCUMENT

UNPROVISIONED: Final = "unprovisioned"
DECOMMISSIONED: Final = "decommissioned"


class Blank:
    """One powered device without a name."""

    def __init__(self, directory: DeviceDirectory, around: Surroundings) -> None:
        self._directory = directory
        self._around = around
        self._nonce = around.random(NONCE_SIZE)

    @property
    def model(self) -> Model:
        """What kind of device it is."""
        return self._directory.model

    @property
    def state(self) -> str:
        """What hello says instead of a boot state."""
        return UNPROVISIONED if self._directory.erasing.certificate is None else DECOMMISSIONED

    def converse(self, random: Callable[[int], bytes]) -> FactoryConversation:
        """Its side of one connection."""
        del random  # its keys are made by the system
        return FactoryConversation(Attempt(self._directory, self._around, self.hello))

    def hello(self) -> HelloReply:
        """What anybody at the port may know."""
        return HelloReply(PROTOCOL_VERSION, self.state, tuple(PRODUCTION), self._nonce)

    def lost(self) -> None:
        """The link is gone; an attempt that was not finished leaves nothing."""

    def refused(self, error: DevguardError, *, proved: bool = False) -> None:
        """It has no log that anybody could read."""

    def boot(self) -> None:
        """There is nothing to start."""


class Attempt:
    """One connection's attempt to enrol the device; a `FactoryPort`."""

    def __init__(self, directory: DeviceDirectory, around: Surroundings, hello: Callable[[], HelloReply]) -> None:
        self._directory = directory
        self._around = around
        self.hello = hello
        self._name: Name | None = None
        self._keys: tuple[MemorySigner, ...] = ()
        self._document = bytearray()
        self._whole = False

    def closed(self) -> Refused:
        """Why there is nothing else to be had here."""
        if self._directory.erasing.certificate is not None:
            return Refused("device.decommissioned", "the device was decommissioned; the factory enrols it anew")
        return Refused("device.unprovisioned", "the device is not enrolled yet")

    def name(self, name: Name, challenge: bytes) -> Sequence[bytes]:
        """Make keys for a device of that name; what they request."""
        facts = self._directory.model.facts
        if name.model != facts.name or name.revision not in facts.revisions:
            wrong = f"{name.model} {name.revision}"
            raise Refused("image.class", f"this is a {facts.name}, {' or '.join(facts.revisions)}; not a {wrong}")
        self._name, self._keys = name, make_keys()
        return [sign_request(key, name, challenge) for key in self._keys]

    def trust(self, piece: bytes, *, last: bool) -> None:
        """Take a piece of the trust document."""
        if self._whole or len(self._document) + len(piece) > MAX_DOCUMENT:
            raise Malformed("trust.malformed", f"one trust document of at most {MAX_DOCUMENT} bytes")
        self._document += piece
        self._whole = last

    def enrol(self, credentials: Sequence[bytes]) -> None:
        """Judge trust document and credentials; be that device from here on."""
        if self._name is None or not self._whole:
            raise Refused("session.order", "a trust document comes before the credentials")
        trust = bytes(self._document)
        document = read_trust(trust)
        now = self._around.clock()
        if self._directory.model.facts.clock is Clock.NONE:
            now = max(document.issued, *(read_credential(one).issued for one in credentials))
        check_time(document, now)
        enrol(
            self._directory,
            self._name,
            trust=trust,
            keys=self._keys,
            credentials=credentials,
            now=now,
            random=self._around.random,
        )

    def erasure(self) -> bytes:
        """The certificate of a device that was decommissioned."""
        certificate = self._directory.erasing.certificate
        if certificate is None:
            raise self.closed()
        return certificate

    def refused(self, error: DevguardError) -> None:
        """It has no log that anybody could read."""
