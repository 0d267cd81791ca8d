"""A SUIT manifest as JSON: names for labels, hexadecimal for bytes, digests taken apart.

For `devguard inspect`. What this version does not know keeps its number; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cbor2 import CBORTag

from devguard.errors import Malformed
from devguard.manifest.codec import CommandSequence, Manifest
from devguard.manifest.suit import HASHES, Command, ComponentTextKey, Digest, ManifestKey, Parameter, TextKey, strict

_DIGESTS: Final = frozenset({Parameter.IMAGE_DIGEST})
_SHOWN_TEXT: Final = 4096


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """The manifest's members by name; severed ones as their digest."""
    common = manifest.common
    fields: dict[str, Any] = {
        "sequence_number": manifest.sequence_number,
        "components": [[_segment(part) for part in one] for one in common.components],
        "shared": None if common.shared is None else _sequence(common.shared),
    }
    if manifest.reference_uri is not None:
        fields["reference_uri"] = manifest.reference_uri
    for section, content in (manifest.sections or {}).items():
        fields[_name(section)] = (
            {"severed": digest_fields(content)} if isinstance(content, Digest) else _sequence(content)
        )
    if manifest.text is not None:
        text = manifest.text
        fields["text"] = {"severed": digest_fields(text)} if isinstance(text, Digest) else _text(text)
    for key, value in {**(common.extensions or {}), **(manifest.extensions or {})}.items():
        fields[_label(ManifestKey, key)] = plain(value)
    return fields


def _sequence(sequence: CommandSequence) -> list[Any]:
    return [[_label(Command, code), _argument(code, argument)] for code, argument in sequence]


def _argument(code: int, argument: object) -> Any:
    if code == Command.DIRECTIVE_RUN_SEQUENCE and isinstance(argument, tuple):
        return _sequence(argument)
    if code == Command.DIRECTIVE_TRY_EACH and isinstance(argument, tuple):
        return [None if branch is None else _sequence(branch) for branch in argument]
    if code == Command.DIRECTIVE_OVERRIDE_PARAMETERS and isinstance(argument, Mapping):
        return {_label(Parameter, key): _parameter(key, value) for key, value in argument.items()}
    return plain(argument)


def _parameter(key: int, value: object) -> Any:
    if key in _DIGESTS and isinstance(value, bytes):
        try:
            return digest_fields(Digest.decode(value))
        except Malformed:
            return value.hex()
    return plain(value)


def digest_fields(digest: Digest) -> dict[str, Any]:
    """Algorithm by name, value in hexadecimal."""
    return {"algorithm": HASHES.get(digest.algorithm, str(digest.algorithm)), "value": digest.value.hex()}


def _text(data: bytes) -> Any:
    """The text map with names for its labels; hexadecimal where it is not such a map."""
    try:
        value = strict(data)
    except Malformed:
        return data[:_SHOWN_TEXT].hex()
    if not isinstance(value, dict):
        return plain(value)
    return {str(language): _language(entries) for language, entries in value.items()}


def _language(entries: object) -> Any:
    if not isinstance(entries, dict):
        return plain(entries)
    shown: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(key, tuple) and isinstance(value, dict):
            about = {_label(ComponentTextKey, one): plain(item) for one, item in value.items()}
            shown["/".join(_segment(part) for part in key)] = about
        else:
            shown[_label(TextKey, key)] = plain(value)
    return shown


def _label(labels: Any, number: object) -> str:
    """The name of a label in an enumeration, or the value itself when this version does not know it."""
    try:
        return _name(labels(number))
    except ValueError:
        return str(plain(number))


def _name(label: Any) -> str:
    return str(label.name).lower().replace("_", "-")


def _segment(part: object) -> str:
    """A part of a component identifier: its text where it is one, else hexadecimal."""
    if not isinstance(part, bytes):
        return str(plain(part))
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError:
        return part.hex()
    return text if text.isprintable() and text else part.hex()


def plain(value: object) -> Any:
    """A CBOR value as JSON: bytes in hexadecimal, map keys as text, tags as {"tag", "value"}."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, CBORTag):
        return {"tag": value.tag, "value": plain(value.value)}
    return value
