"""Keys on a token: list, generate, and sign with them.

ESP256 and ESP384 are CKM_ECDSA over a hash made here, Ed25519 is CKM_EDDSA (PKCS#11 3.0). A private key must be
sensitive and not extractable, whoever made it; its public half is read from the object beside it and compared with
what the key file says; every signature is verified before it leaves. ML-DSA keys stay in files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.curves import Curve, KeyType
from devguard.cose.keys import CoseKey
from devguard.custody.keytext import KeyInfo
from devguard.custody.pkcs11 import asks_itself, library, module, serial_of, session, tokens, translated
from devguard.custody.uri import TokenUri
from devguard.errors import DevguardError, Malformed, Refused

ON_TOKENS: Final = (Algorithm.ESP256, Algorithm.ESP384, Algorithm.ED25519)
"""The algorithms a token may sign with for devguard."""
_OIDS: Final = {
    Algorithm.ESP256: bytes.fromhex("06082a8648ce3d030107"),
    Algorithm.ESP384: bytes.fromhex("06052b81040022"),
    Algorithm.ED25519: bytes.fromhex("06032b6570"),
}
_EDWARDS_NAME: Final = b"\x13\x0cedwards25519"  # the other spelling PKCS#11 3.0 allows in CKA_EC_PARAMS
_BY_PARAMETERS: Final = {**{value: key for key, value in _OIDS.items()}, _EDWARDS_NAME: Algorithm.ED25519}
_HASHES: Final = {Algorithm.ESP256: hashlib.sha256, Algorithm.ESP384: hashlib.sha384}
_CURVES: Final = {Algorithm.ESP256: (Curve.P_256, 32), Algorithm.ESP384: (Curve.P_384, 48)}
_MOST_KEYS: Final = 256


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A signature key found on a token: where it is, and its public half."""

    uri: TokenUri
    key: CoseKey


class TokenSigner:
    """A `Signer` whose private key never leaves its token; each signature is one session of its own.

    After a PIN the token did not take, it makes no other attempt.
    """

    __slots__ = ("_failed", "_info", "_pin", "_uri")

    def __init__(self, info: KeyInfo, uri: TokenUri, pin: Callable[[], bytes]) -> None:
        """Log in once and look at the key. Raises `key.token`, `key.pin`, `key.pin-locked`, `key.malformed`."""
        self._info = info
        self._uri = uri
        self._failed: Refused | None = None
        asked: list[bytes] = []
        with session(uri, lambda: noted(asked, pin())) as (_, opened):
            self._private(opened)
        self._pin = asked[0] if asked else b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.algorithm.label} {self.key.fingerprint}>"

    @property
    def info(self) -> KeyInfo:
        """The header of the key file."""
        return self._info

    @property
    def key(self) -> CoseKey:
        """The public half."""
        return self._info.key

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of every signature."""
        return self._info.algorithm

    def sign(self, message: bytes) -> bytes:
        """The signature over `message` in COSE form, verified; raises as the constructor."""
        if self._failed is not None:
            raise self._failed
        try:
            with session(self._uri, lambda: self._pin) as (token, opened):
                signature = _sign(self._private(opened), self.algorithm, message, _again(token, self._pin))
        except Refused as error:
            if error.code in ("key.pin", "key.pin-locked"):
                self._failed = error
            raise
        return checked(self.key, message, signature)

    def _private(self, opened: Any) -> Any:
        private = find_private(opened, self._uri)
        if public_of(opened, private) != self.key:
            raise Malformed("key.malformed", "the key on the token does not belong to the public key in the key file")
        return private


def noted(asked: list[bytes], pin: bytes) -> bytes:
    """A PIN on its way to the token, kept in `asked` for the signatures that ask for it again."""
    asked.append(pin)
    return pin


def checked(key: CoseKey, message: bytes, signature: bytes) -> bytes:
    """A token's signature, after it has verified: `Refused("key.token")` otherwise."""
    try:
        key.verify(key.algorithm, message, signature)
    except DevguardError as error:
        raise Refused("key.token", f"the token made a signature that does not verify: {error.message}") from None
    return signature


def _again(token: Any, pin: bytes) -> str:
    """The PIN for a key that wants it before each signature (CKA_ALWAYS_AUTHENTICATE). A token with a keypad is given
    none and asks for it there."""
    return "" if asks_itself(token) else pin.decode("utf-8")


def _proven(found: TokenKey, private: Any, token: Any, pin: bytes) -> TokenKey:
    """A key after it has signed: whoever holds a token can put another public object on it, without a PIN."""
    message = os.urandom(32)
    signature = _sign(private, found.key.algorithm, message, _again(token, pin))
    try:
        found.key.verify(found.key.algorithm, message, signature)
    except DevguardError:
        raise Refused("key.token", "the token signs with another key than the public one on it") from None
    return found


def _sign(private: Any, algorithm: Algorithm, message: bytes, pin: str) -> bytes:
    pkcs11 = library()
    hashed = _HASHES.get(algorithm)
    data = message if hashed is None else hashed(message).digest()
    mechanism = pkcs11.Mechanism.EDDSA if hashed is None else pkcs11.Mechanism.ECDSA
    again = pin if _flag(private, "ALWAYS_AUTHENTICATE", default=False) else None  # None: no second login
    return bytes(private.sign(bytes(data), mechanism=mechanism, pin=again))


def find_private(opened: Any, uri: TokenUri) -> Any:
    """The one private signature key a URI means, in a session that is logged in.

    `Refused("key.token")` for none, several, or one that the token would hand out.
    """
    found = _objects(opened, "PRIVATE_KEY", uri.object, uri.id)
    if len(found) != 1:
        raise Refused(
            "key.token", f"{len(found) or 'no'} private keys on the token fit {replace(uri, module_path=None)}"
        )
    private = found[0]
    if _flag(private, "EXTRACTABLE", default=True) or not _flag(private, "SENSITIVE", default=False):
        raise Refused("key.token", "the token would hand that private key out; make one that cannot be extracted")
    return private


def public_of(opened: Any, private: Any) -> CoseKey:
    """The public half of a private key: the one public object with its CKA_ID, and its label where ids repeat."""
    identity, label = _get(private, "ID"), _get(private, "LABEL")
    found = _objects(opened, "PUBLIC_KEY", None, identity) if identity else []
    if len(found) != 1:
        found = _objects(opened, "PUBLIC_KEY", label, identity or None)
    if len(found) != 1:
        raise Refused("key.token", f"{len(found) or 'no'} public keys stand beside the private key {label!r}")
    return _public(found[0])


def _objects(opened: Any, kind: str, label: str | None, identity: bytes | None) -> list[Any]:
    pkcs11 = library()
    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: getattr(pkcs11.ObjectClass, kind)}
    if label is not None:
        wanted[pkcs11.Attribute.LABEL] = label
    if identity is not None:
        wanted[pkcs11.Attribute.ID] = identity
    found = []
    for one in opened.get_objects(wanted):
        found.append(one)
        if len(found) > _MOST_KEYS:
            raise Refused("key.token", f"more than {_MOST_KEYS} keys on the token; say which by token, object and id")
    return found


def _get(found: Any, name: str) -> Any:
    pkcs11 = library()
    try:
        return found[getattr(pkcs11.Attribute, name)]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
        return None


def _flag(found: Any, name: str, *, default: bool) -> bool:
    value = _get(found, name)
    return default if value is None else bool(value)


def _public(found: Any) -> CoseKey:
    """A public key object as COSE_Key. Tokens give CKA_EC_POINT bare or wrapped in a DER OCTET STRING."""
    algorithm = _BY_PARAMETERS.get(bytes(_get(found, "EC_PARAMS") or b""))
    if algorithm is None:
        raise Refused("key.token", "the key is on no curve devguard signs with; it takes P-256, P-384 and Ed25519")
    point = bytes(_get(found, "EC_POINT") or b"")
    size = 32 if algorithm is Algorithm.ED25519 else 1 + 2 * _CURVES[algorithm][1]
    if len(point) == size + 2 and point[:2] == bytes((4, size)):
        point = point[2:]
    if len(point) != size or (size != 32 and point[0] != 4):
        raise Refused("key.token", f"a public point of {len(point)} bytes is none of {algorithm.label}")
    if algorithm is Algorithm.ED25519:
        return CoseKey(KeyType.OKP, Curve.ED25519, point)
    curve, half = _CURVES[algorithm]
    return CoseKey(KeyType.EC2, curve, point[1 : 1 + half], point[1 + half :])


def generate(
    token: Any, opened: Any, uri: TokenUri, algorithm: Algorithm, pin: bytes
) -> tuple[TokenKey, tuple[Any, Any]]:
    """Make a key pair labelled `uri.object` in a session that may write, and what to destroy if it is not wanted.

    Sensitive, not extractable, for signatures only. Raises `signature.algorithm`, `key.exists`, `key.token`.
    """
    if algorithm not in ON_TOKENS:
        raise Refused("signature.algorithm", f"devguard keeps no {algorithm.label} keys on tokens; make it in a file")
    identity = uri.id or os.urandom(8)
    if _objects(opened, "PRIVATE_KEY", uri.object, None) or _objects(opened, "PRIVATE_KEY", None, identity):
        raise Refused("key.exists", f"a key named {uri.object!r} or with that id is on the token already")
    pair = _generated(opened, algorithm, str(uri.object), identity)
    done = False
    try:
        where = TokenUri(
            token=token.label, serial=serial_of(token), object=uri.object, id=identity, module_path=uri.module_path
        )
        made = _proven(TokenKey(where, public_of(opened, find_private(opened, where))), pair[1], token, pin)
        done = True
    finally:
        if not done:
            destroy(pair)
    return made, pair


def existing(token: Any, opened: Any, uri: TokenUri, pin: bytes) -> TokenKey:
    """The one private key a URI means, in a session that is logged in, with its token and id spelled out.

    It signs once: `Refused("key.token")` when the public key beside it is another's.
    """
    private = find_private(opened, uri)
    where = TokenUri(
        token=token.label,
        serial=serial_of(token),
        object=_get(private, "LABEL") or None,
        id=_get(private, "ID") or None,
        module_path=uri.module_path,
    )
    return _proven(TokenKey(where, public_of(opened, private)), private, token, pin)


def _generated(opened: Any, algorithm: Algorithm, label: str, identity: bytes) -> tuple[Any, Any]:
    pkcs11 = library()
    attribute, edwards = pkcs11.Attribute, algorithm is Algorithm.ED25519
    kind = pkcs11.KeyType.EC_EDWARDS if edwards else pkcs11.KeyType.EC
    hidden = {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True}
    domain = opened.create_domain_parameters(kind, {attribute.EC_PARAMS: _OIDS[algorithm]}, local=True)
    public, private = domain.generate_keypair(
        store=True,
        label=label,
        id=identity,
        capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        private_template=hidden,
    )
    return public, private


def destroy(pair: tuple[Any, Any]) -> None:
    """Take a key pair that was just made off its token again, the private half first and both in any case."""
    public, private = pair
    with translated("the token, which keeps a key that was not wanted,"):
        try:
            private.destroy()
        finally:
            public.destroy()


def list_keys(uri: TokenUri) -> Iterator[tuple[str, tuple[TokenKey, ...]]]:
    """(token, its public signature keys) of every token a URI fits; no login, so private objects stay unseen."""
    with module(uri) as loaded:
        for token in tokens(loaded, uri):
            name = f"{token.label} (serial {serial_of(token)})"
            with translated(f"token {token.label!r}"), token.open() as opened:
                yield name, tuple(_listed(token, opened, uri))


def _listed(token: Any, opened: Any, uri: TokenUri) -> Iterator[TokenKey]:
    for found in _objects(opened, "PUBLIC_KEY", uri.object, uri.id):
        where = TokenUri(
            token=token.label,
            serial=serial_of(token),
            object=_get(found, "LABEL") or None,
            id=_get(found, "ID") or None,
            module_path=uri.module_path,
        )
        try:
            yield TokenKey(where, _public(found))
        except DevguardError:
            continue  # an RSA key, a P-521 key: there, and not ours


def public_on(uri: TokenUri) -> CoseKey:
    """The public half of the one key a URI means, without a login; `Refused("key.token")` for none or several."""
    found = [one for _, keys in list_keys(uri) for one in keys]
    if len(found) != 1:
        raise Refused("key.token", f"{len(found) or 'no'} keys fit {replace(uri, module_path=None)}")
    return found[0].key
