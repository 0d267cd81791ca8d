"""Signing in with a person's own key: WebAuthn Level 3, by the `webauthn` package.

The authenticator verifies its user (PIN, finger); what it signs names this console's origin and relying party, and a
challenge that is used once. A signature counter that goes back means a cloned key: refused. Nothing here knows of keys
that push: those are the technicians' own, and other ones.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url, parse_client_data_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import AuthenticatorSelectionCriteria, ResidentKeyRequirement, UserVerificationRequirement

from devguard.console.people import Passkey, Person
from devguard.errors import Malformed, Refused

_TITLE: Final = "devguard"
# What a reply that makes no sense raises inside: CBOR and base64 errors are ValueErrors.
_BROKEN: Final = (WebAuthnException, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


def registration_options(name: str, person: str, challenge: bytes, known: tuple[Passkey, ...]) -> dict[str, Any]:
    """What `navigator.credentials.create` is asked: a discoverable credential, its user verified."""
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    options = generate_registration_options(
        rp_id=name,
        rp_name=_TITLE,
        user_name=person,
        user_id=hashlib.sha256(f"{name}\0{person}".encode()).digest(),
        challenge=challenge,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one.id)) for one in known],
    )
    return json_object(options)


def sign_in_options(name: str, challenge: bytes) -> dict[str, Any]:
    """What `navigator.credentials.get` is asked. Who it is, the key says: no list of people leaves the console."""
    options = generate_authentication_options(
        rp_id=name, challenge=challenge, user_verification=UserVerificationRequirement.REQUIRED
    )
    return json_object(options)


def json_object(options: Any) -> dict[str, Any]:
    """Options as the script gets them: bytes as base64url."""
    made: dict[str, Any] = json.loads(options_to_json(options))
    return made


def challenge_in(reply: object) -> bytes:
    """The challenge that a reply answers; proven only when the reply is verified with it."""
    try:
        data = base64url_to_bytes(reply["response"]["clientDataJSON"])  # type: ignore[index]
        return parse_client_data_json(data).challenge
    except _BROKEN:
        raise Malformed("console.request", "not the answer of an authenticator") from None


def registered(reply: dict[str, Any], *, challenge: bytes, name: str, origin: str, now: int) -> Passkey:
    """The credential in a reply to `registration_options`; `Refused("console.login")`."""
    try:
        made = verify_registration_response(
            credential=reply,
            expected_challenge=challenge,
            expected_rp_id=name,
            expected_origin=origin,
            require_user_verification=True,
        )
    except _BROKEN as error:
        raise Refused("console.login", f"the key could not be registered: {error}") from None
    return Passkey(
        bytes_to_base64url(made.credential_id),
        bytes_to_base64url(made.credential_public_key),
        made.sign_count,
        name,
        now,
    )


def proven(
    reply: dict[str, Any], found: tuple[Person, Passkey] | None, *, challenge: bytes, name: str, origin: str
) -> int:
    """The new counter of the credential that proves itself; `Refused("console.login")`, the same for a key nobody
    registered as for a wrong signature."""
    if found is None:
        raise Refused("console.login", "that key does not sign anybody in here")
    _, key = found
    try:
        good = verify_authentication_response(
            credential=reply,
            expected_challenge=challenge,
            expected_rp_id=name,
            expected_origin=origin,
            credential_public_key=base64url_to_bytes(key.public),
            credential_current_sign_count=key.count,
            require_user_verification=True,
        )
    except _BROKEN:
        raise Refused("console.login", "that key does not sign anybody in here") from None
    return good.new_sign_count
