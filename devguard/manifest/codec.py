"""The manifest map and its command sequences as values, and back to the same bytes.

draft-ietf-suit-manifest-37 section 8.4. Decoding bounds depth and shape and keeps what it does not know (commands,
parameters, extension members) as values: only the interpreter decides what may run. Encoding a decoded manifest gives
the bytes it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cbor2 import CBORTag

from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.suit import CODE, SEVERABLE, Command, CommonKey, Digest, ManifestKey, Section, strict

MAX_NESTING: Final = 8
MAX_COMPONENTS: Final = 64
MAX_COMMANDS: Final = 4096
MANIFEST_VERSION: Final = 1
MANIFEST_TAG: Final = 1070

ComponentId = tuple[bytes, ...]
# (command code, argument). run-sequence holds a CommandSequence, try-each a tuple of them (None stands for nil).
CommandSequence = tuple[tuple[int, object], ...]


@dataclass(frozen=True, slots=True)
class Common:
    """suit-common: component ids by index, the shared sequence, members of extensions kept as values."""

    components: tuple[ComponentId, ...]
    shared: CommandSequence | None = None
    extensions: Mapping[int, object] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """suit-manifest. A severed section or text is its `Digest`; `text` otherwise is the encoded text map."""

    sequence_number: int
    common: Common
    reference_uri: str | None = None
    sections: Mapping[Section, CommandSequence | Digest] | None = None
    text: bytes | Digest | None = None
    extensions: Mapping[int, object] | None = None

    def section(self, section: Section) -> CommandSequence | Digest | None:
        """The section's commands, its digest while severed, None where the manifest has none."""
        return (self.sections or {}).get(section)


def decode_sequence(data: bytes, depth: int = MAX_NESTING) -> CommandSequence:
    """The commands of an encoded SUIT_Command_Sequence; `Malformed` when nested deeper than `depth`."""
    if depth < 0:
        raise Malformed(CODE, f"command sequences nested deeper than {MAX_NESTING}")
    value = strict(data)
    if not isinstance(value, list) or len(value) % 2 or not value:
        raise Malformed(CODE, "a command sequence is a non-empty array of commands and arguments in pairs")
    if len(value) > 2 * MAX_COMMANDS:
        raise Malformed(CODE, f"a command sequence of more than {MAX_COMMANDS} commands")
    return tuple(_command(value[i], value[i + 1], depth) for i in range(0, len(value), 2))


def _command(code: object, argument: object, depth: int) -> tuple[int, object]:
    if type(code) is not int:
        raise Malformed(CODE, "a command code is an integer")
    if code == Command.DIRECTIVE_RUN_SEQUENCE:
        return code, _nested(argument, depth)
    if code == Command.DIRECTIVE_TRY_EACH:
        if not isinstance(argument, list) or not argument:
            raise Malformed(CODE, "try-each takes an array of command sequences")
        last = argument[-1] is None
        branches = [_nested(item, depth) for item in (argument[:-1] if last else argument)]
        return code, tuple(branches) + ((None,) if last else ())
    if code == Command.DIRECTIVE_OVERRIDE_PARAMETERS and not _is_parameters(argument):
        raise Malformed(CODE, "override-parameters takes a map of parameters by integer")
    return code, argument


def _is_parameters(argument: object) -> bool:
    return isinstance(argument, Mapping) and bool(argument) and all(type(key) is int for key in argument)


def _nested(argument: object, depth: int) -> CommandSequence:
    if not isinstance(argument, bytes):
        raise Malformed(CODE, "a nested command sequence is a byte string")
    return decode_sequence(argument, depth - 1)


def encode_sequence(sequence: CommandSequence) -> bytes:
    """The deterministic encoding of a command sequence."""
    flat: list[object] = []
    for code, argument in sequence:
        flat += [code, _encode_argument(code, argument)]
    return wire.encode(flat)


def _encode_argument(code: int, argument: object) -> object:
    if code == Command.DIRECTIVE_RUN_SEQUENCE and isinstance(argument, tuple):
        return encode_sequence(argument)
    if code == Command.DIRECTIVE_TRY_EACH and isinstance(argument, tuple):
        return [None if branch is None else encode_sequence(branch) for branch in argument]
    return argument


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in `data` (the content of envelope member 3).

    Raises `Malformed`: envelope.malformed, envelope.not-deterministic, envelope.version (a version other than 1).
    """
    value = strict(data)
    if not isinstance(value, dict) or not all(type(key) is int for key in value):
        raise Malformed(CODE, "a manifest is a map by integer")
    version = value.pop(ManifestKey.VERSION, None)
    if type(version) is not int or version != MANIFEST_VERSION:
        raise Malformed("envelope.version", f"manifest version {version!r}, this devguard reads {MANIFEST_VERSION}")
    number = value.pop(ManifestKey.SEQUENCE_NUMBER, None)
    if type(number) is not int or not 0 <= number < 1 << 64:
        raise Malformed(CODE, "the sequence number is an unsigned integer of at most 64 bits")
    common = _decode_common(value.pop(ManifestKey.COMMON, None))
    uri = value.pop(ManifestKey.REFERENCE_URI, None)
    if uri is not None and not isinstance(uri, str):
        raise Malformed(CODE, "the reference URI is a text")
    sections = {section: _member(section, value.pop(section)) for section in Section if section in value}
    text = _text_member(value.pop(ManifestKey.TEXT, None))
    manifest = Manifest(number, common, uri, sections, text, value)
    if encode_manifest(manifest) != data:
        raise Malformed(CODE, "the manifest has a member that is present but empty")
    return manifest


def read_manifest(data: bytes) -> Manifest:
    """A manifest that stands alone (SUIT_Manifest_Tagged, tag 1070), for display: nobody has signed it."""
    head = wire.encode(CBORTag(MANIFEST_TAG, 0))[:-1]
    if not data.startswith(head):
        raise Malformed(CODE, f"a manifest that stands alone has CBOR tag {MANIFEST_TAG}")
    return decode_manifest(data[len(head) :])


def _decode_common(data: object) -> Common:
    if not isinstance(data, bytes):
        raise Malformed(CODE, "suit-common is a byte string")
    value = strict(data)
    if not isinstance(value, dict) or not all(type(key) is int for key in value):
        raise Malformed(CODE, "suit-common is a map by integer")
    components = value.pop(CommonKey.COMPONENTS, [])
    if not isinstance(components, list) or len(components) > MAX_COMPONENTS:
        raise Malformed(CODE, f"components are an array of at most {MAX_COMPONENTS} identifiers")
    shared = value.pop(CommonKey.SHARED_SEQUENCE, None)
    if shared is not None and not isinstance(shared, bytes):
        raise Malformed(CODE, "the shared sequence is a byte string")
    ids = tuple(component_id(item) for item in components)
    if len(set(ids)) != len(ids):
        raise Malformed(CODE, "a component is listed twice")
    return Common(ids, None if shared is None else decode_sequence(shared), value)


def component_id(value: object) -> ComponentId:
    """A SUIT_Component_Identifier: an array of byte strings."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, bytes) for item in value):
        raise Malformed(CODE, "a component identifier is an array of byte strings")
    return tuple(value)


def _member(section: Section, value: object) -> CommandSequence | Digest:
    if isinstance(value, bytes):
        return decode_sequence(value)
    if section not in SEVERABLE:
        raise Malformed(CODE, f"member {section.value} may not be severed")
    return Digest.from_value(value)


def _text_member(value: object) -> bytes | Digest | None:
    return value if value is None or isinstance(value, bytes) else Digest.from_value(value)


def encode_manifest(manifest: Manifest) -> bytes:
    """The deterministic encoding of a manifest."""
    value: dict[int, object] = dict(manifest.extensions or {})
    value[ManifestKey.VERSION.value] = MANIFEST_VERSION
    value[ManifestKey.SEQUENCE_NUMBER.value] = manifest.sequence_number
    value[ManifestKey.COMMON.value] = _encode_common(manifest.common)
    if manifest.reference_uri is not None:
        value[ManifestKey.REFERENCE_URI.value] = manifest.reference_uri
    for section, content in (manifest.sections or {}).items():
        value[section.value] = content.value_list() if isinstance(content, Digest) else encode_sequence(content)
    if manifest.text is not None:
        text = manifest.text
        value[ManifestKey.TEXT.value] = text.value_list() if isinstance(text, Digest) else text
    return wire.encode(value)


def _encode_common(common: Common) -> bytes:
    value: dict[int, object] = dict(common.extensions or {})
    if common.components:
        value[CommonKey.COMPONENTS.value] = common.components
    if common.shared is not None:
        value[CommonKey.SHARED_SEQUENCE.value] = encode_sequence(common.shared)
    return wire.encode(value)


def resolve(manifest: Manifest, severable: Mapping[int, bytes]) -> Manifest:
    """The manifest with every severed member that is at hand put back, after its digest was checked.

    `severable` is `Envelope.severable`. A member without a digest in the manifest is `Malformed` (nobody signed it), as
    is one whose digest differs; a digest without its member stays a `Digest`.
    """
    sections = dict(manifest.sections or {})
    text = manifest.text
    extensions = dict(manifest.extensions or {})
    for key, member in severable.items():
        if key == ManifestKey.TEXT:
            text = checked_member(text, member, key)
        elif key in SEVERABLE and key in sections:
            section = Section(key)
            sections[section] = decode_sequence(checked_member(sections[section], member, key))
        elif key in SEVERABLE and key in extensions:
            extensions[key] = checked_member(Digest.from_value(extensions[key]), member, key)
        else:
            raise Malformed(CODE, f"envelope member {key} is not in the signed manifest")
    return replace(manifest, sections=sections, text=text, extensions=extensions)


def checked_member(digest: object, member: bytes, key: int) -> bytes:
    """`member` when the manifest's digest for it holds, else `Malformed`."""
    if not isinstance(digest, Digest):
        raise Malformed(CODE, f"envelope member {key} is not in the signed manifest")
    if Digest.of_member(member, digest.algorithm) != digest:
        raise Malformed(CODE, f"severed member {key} is not the one that was signed")
    return member
