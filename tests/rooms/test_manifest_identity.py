"""Invariant: vendor, class and device identifiers are the version 5 UUIDs that any UUID library gives."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import LocalProtocolError
from devguard.manifest.identity import class_id, device_id, vendor_id

NAMES = st.text(max_size=80)


@given(NAMES, NAMES, NAMES, NAMES)
def test_a_peer_names_the_same_device(domain: str, model: str, revision: str, serial: str) -> None:
    vendor = uuid.uuid5(uuid.NAMESPACE_DNS, domain.lower())
    made = uuid.uuid5(vendor, f"{model}/{revision}")
    assert vendor_id(domain) == vendor.bytes
    assert class_id(vendor.bytes, model, revision) == made.bytes
    assert device_id(made.bytes, serial) == uuid.uuid5(made, serial).bytes


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_namespace_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        class_id(bytes(size), "model", "revA")
    with pytest.raises(LocalProtocolError):
        device_id(bytes(size), "SN-1")
