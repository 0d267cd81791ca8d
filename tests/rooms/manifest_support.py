"""Shared by the tests of the interpreter and of the release profile: a platform of given facts, small manifests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from builders import PUMP
from devguard.errors import Malformed, Refused
from devguard.image.measure import Measured
from devguard.manifest.build import build_envelope
from devguard.manifest.codec import CommandSequence, Common, ComponentId, Manifest
from devguard.manifest.description import ComponentDescription, ReleaseDescription
from devguard.manifest.envelope import Envelope
from devguard.manifest.interpreter import Limits, Trace, run
from devguard.manifest.model import ModelFacts
from devguard.manifest.suit import Command, Digest, Parameter, Section
from devguard.manifest.version import VersionMatch

C, P = Command, Parameter
VENDOR, CLASS, DEVICE = b"v" * 16, b"c" * 16, b"d" * 16
DIGEST = Digest(-16, bytes(32))
OVERRIDE, TRY, RUN, INDEX = 20, 15, 32, 12


@dataclass
class Bench:
    """A platform of given facts that writes down what it was told to do."""

    vendor: bytes = VENDOR
    class_id: bytes = CLASS
    device: bytes = DEVICE
    good: bool = True
    done: list[tuple[object, ...]] = field(default_factory=list)

    def vendor_matches(self, component: ComponentId, vendor_id: bytes) -> bool:
        return vendor_id == self.vendor

    def class_matches(self, component: ComponentId, class_id: bytes) -> bool:
        return class_id == self.class_id

    def device_matches(self, component: ComponentId, device_id: bytes) -> bool:
        return device_id == self.device

    def image_matches(self, component: ComponentId, digest: Digest, size: int | None) -> bool:
        return self.answer("image", component, digest, size)

    def slot_matches(self, component: ComponentId, slot: int) -> bool:
        return slot == 1

    def content_matches(self, component: ComponentId, content: bytes) -> bool:
        return self.answer("content", content)

    def is_before(self, use_before: int) -> bool:
        return self.answer("before", use_before)

    def battery_at_least(self, mwh: int) -> bool:
        return self.answer("battery", mwh)

    def authorized(self, priority: int) -> bool:
        return self.answer("authorized", priority)

    def version_matches(self, component: ComponentId, match: VersionMatch) -> bool:
        return self.answer("version", match)

    def security_version_allowed(self, security_version: int) -> bool:
        return self.answer("security", security_version)

    def sbom_accepted(self, digest: bytes) -> bool:
        return self.answer("sbom", digest)

    def test_report_accepted(self, digest: bytes) -> bool:
        return self.answer("report", digest)

    def therapy_idle(self) -> bool:
        return self.answer("idle")

    def two_technicians(self) -> bool:
        return self.answer("two")

    def answer(self, *what: object) -> bool:
        self.done.append(what)
        return self.good

    def fetch(self, component: ComponentId, uri: str, digest: Digest | None, size: int | None) -> None:
        self.done.append(("fetch", component, uri, digest, size))

    def write(self, component: ComponentId, content: bytes) -> None:
        self.done.append(("write", component, content))

    def copy(self, component: ComponentId, source: ComponentId) -> None:
        self.done.append(("copy", component, source))

    def swap(self, component: ComponentId, source: ComponentId) -> None:
        self.done.append(("swap", component, source))

    def unlink(self, component: ComponentId) -> None:
        self.done.append(("unlink", component))

    def invoke(self, component: ComponentId, arguments: bytes | None) -> None:
        self.done.append(("invoke", component, arguments))


def install(
    *commands: tuple[int, object],
    shared: CommandSequence | None = None,
    components: int = 1,
    bench: Bench | None = None,
    limits: Limits | None = None,
) -> Trace:
    ids = tuple((bytes([index]),) for index in range(components))
    manifest = Manifest(1, Common(ids, shared), sections={Section.INSTALL: commands})
    return run(manifest, Section.INSTALL, bench or Bench(), limits)


def sets(**values: object) -> tuple[int, object]:
    return OVERRIDE, {P[name.upper()].value: value for name, value in values.items()}


def code_of(*commands: tuple[int, object], **options: object) -> str:
    with pytest.raises((Refused, Malformed)) as caught:
        install(*commands, **options)  # type: ignore[arg-type]  # options are those of install
    return caught.value.code


def component(name: str, serials: tuple[str, ...] = ()) -> ComponentDescription:
    return ComponentDescription(name, f"{name}.bin", "raw", serials, ())


def measured(name: str, size: int = 1000, algorithm: int = -16) -> Measured:
    hashed = {-16: "sha256", -43: "sha384", -44: "sha512"}[algorithm]
    return Measured(algorithm, hashlib.new(hashed, name.encode()).digest(), size)


def build(description: ReleaseDescription, model: ModelFacts = PUMP, **options: Any) -> Envelope:
    payload = {one.id: measured(one.id) for one in description.components}
    return build_envelope(description, model, payload, **options)
