"""An MCUboot image, field by field, and what is wrong with it by the bootloader's own rules.

`inspect_mcuboot` hashes the image, compares every hash TLV, and with a public key checks the signatures as
the bootloader does: a signature counts only right behind a KEYHASH (or PUBKEY) TLV that names the key. It is
no verdict about a release: devguard's own signatures are judged elsewhere. An encrypted image is opened only with
the device's key. Only this module and its two helpers import construct.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, Malformed
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_compressed import check_compressed
from devguard.image.mcuboot_encryption import DeviceKey, plain_reader
from devguard.image.mcuboot_keys import ImageKey, PublicKey, image_key
from devguard.image.mcuboot_parse import MAX_PROBLEMS, Parsed, Tlv, hash_signed_part, parse
from devguard.image.mcuboot_trailer import check_tail
from devguard.image.places import Place, limited, place, places
from devguard.image.problem import Problem

_LENGTHS: Final = {
    layout.SECURITY_COUNTER: 4,
    layout.VENDOR_ID: 16,
    layout.CLASS_ID: 16,
    layout.DEPENDENCY_TYPE: 12,
    layout.SIG_PURE: 1,
}
_ONCE: Final = frozenset({layout.SECURITY_COUNTER, layout.VENDOR_ID, layout.CLASS_ID, layout.SIG_PURE})
# Keys of the boot record's map, TF-M's measured boot ("SW component").
_BOOT_RECORD: Final = {1: "type", 2: "measurement", 4: "version", 5: "signer_id", 6: "measurement_description"}
_MAX_RECORD: Final = 1024
# KEYHASH values (SHA-256, or the hash of the key's curve) of the key pairs that MCUboot publishes for tests.
PUBLISHED_TEST_KEYS: Final = {
    "fc5701dc6135e1323847bdc40f04d2e5bee5833b23c29f93593d00018cfa9994": "root-rsa-2048",
    "449793fb65cd7698753d5b3f35fab15f1e3a45111ff24e1d46741de5ae12d59e": "root-rsa-3072",
    "e30466f6b8470c1f29070b17f1e2d3e94d445e3f608087fdc711e4382bb538b6": "root-ec-p256",
    "85b7bd5f5dff9a03a99927adaf6ca6febde822c1a480928324a8e60323715c5779461c496a95aee8c4f90b99779f848a": "root-ec-p384",
    "c1907fa4eac7fae3840a78902b6f0710b037e9968e5c6274a12a28790c7d4e3c": "root-ed25519",
    "e3e129b49f1218e18e4614acb2523389c75852ebb98b4d2c6171a2fc65706ba3"
    "d1ddf85f52e71450c3e572e624695fafd41ce4d9354d6c2b19f7d6001a6ae8b0": "root-ed25519",
    "6754edab1e29affef4a05935adecbeb1a7b8b62397b31e39a61b5bfcaafd63af": "root-ed25519-2",
    "e11ed22583de283392266b917bd82e88486edf47bc58c7ce8e42f9fb90e1daa9"
    "00e72f172e4bd4fb19fc1870638e3a89c3f033ef4db6f6235d02ee623b4b2924": "root-ed25519-2",
}


@dataclass(frozen=True, slots=True)
class McubootReport:
    """Fields ready for JSON (integers, text, booleans, lists) and the problems found, in file order."""

    fields: dict[str, object]
    problems: tuple[Problem, ...]


def inspect_mcuboot(
    reader: BinaryIO, key: ImageKey | CoseKey | PublicKey | None = None, device_key: DeviceKey | None = None
) -> McubootReport:
    """Reports on the image in a seekable `reader`; with a public `key` its signature too.

    An encrypted image is hashed and its signature checked only with the `device_key` it is encrypted for; without it
    that is `image.format`.

    Problem codes: image.format (structure), image.digest (a hash is missing or wrong), image.trailing,
    signature.missing, key.unknown (no signature names the key), signature.algorithm, signature.invalid.
    Raises only `Refused("file.unreadable")`, and `Malformed("key.malformed")` for a key no bootloader takes.
    """
    wanted = key if key is None or isinstance(key, ImageKey) else image_key(key)
    parsed = parse(reader)
    problems = list(parsed.problems)
    fields: dict[str, object] = {"size": parsed.size}
    if parsed.header is not None:
        fields |= _header_fields(parsed)
    if parsed.complete:
        problems += _tlv_rules(parsed)
        fields |= _tlv_fields(parsed)
        plain, closed = _opened(reader, parsed, device_key, fields)
        problems += closed
        if plain is not None:
            digests, wrong = _hashes(plain, parsed)
            problems += wrong
            fields["digest"] = {layout.TLV_NAMES[number]: digest.hex() for number, digest in digests.items()}
            if wanted is not None:
                problems += _signatures(plain, parsed, wanted, digests, fields)
            unpacked, wrong = check_compressed(plain, parsed)
            problems += wrong
            if unpacked is not None:
                fields["decompressed_digest"] = unpacked.hex()
                problems += _unpacked_signature(parsed, wanted, unpacked, fields)
        trailer, tail = check_tail(reader, parsed)
        problems += tail
        if trailer is not None:
            fields["trailer"] = {
                "max_align": trailer.max_align,
                "image_ok": trailer.image_ok,
                "copy_done": trailer.copy_done,
                "swap_type": trailer.swap_type,
            }
    return McubootReport(fields, tuple(problems[:MAX_PROBLEMS]))


def _opened(
    reader: BinaryIO, parsed: Parsed, key: DeviceKey | None, fields: dict[str, object]
) -> tuple[BinaryIO | None, list[Problem]]:
    """The image in plain, and what keeps it closed. A body that was left in clear for the primary slot needs no key."""
    if not _is_encrypted(parsed):
        wrong = Problem("image.format", "a device key was given, and the image is not encrypted", 16)
        return reader, [] if key is None else [wrong]
    stated = parsed.of_type(*layout.HASH_TLVS)
    wrapped = parsed.of_type(*layout.ENCRYPTION_TLVS)
    in_clear = stated and wrapped and _hash_of(reader, parsed, stated[0].type) == stated[0].value
    fields["body_encrypted"] = not in_clear
    if not fields["body_encrypted"]:
        return reader, []
    if key is None:
        return None, [Problem("image.format", "encrypted, needs the device key", layout.HEADER_SIZE)]
    try:
        return plain_reader(reader, parsed, key), []
    except DevguardError as error:
        return None, [Problem(error.code, error.message, layout.HEADER_SIZE)]


def _hash_of(reader: BinaryIO, parsed: Parsed, tlv_type: int) -> bytes:
    return hash_signed_part(reader, parsed, layout.HASH_TLVS[tlv_type])


def _is_encrypted(parsed: Parsed) -> bool:
    return bool(parsed.header.flags & layout.ENCRYPTED_FLAGS) or bool(parsed.of_type(*layout.ENCRYPTION_TLVS))


def _header_fields(parsed: Parsed) -> dict[str, object]:
    header = parsed.header
    return {
        "byte_order": parsed.layouts.order,
        "version": f"{header.major}.{header.minor}.{header.revision}+{header.build}",
        "load_address": header.load_address,
        "header_size": header.header_size,
        "image_size": header.image_size,
        "protected_tlv_size": header.protected_size,
        "flags": [name for bit, name in layout.FLAGS.items() if header.flags & bit],
        "places": _header_places(parsed),
    }


def _header_places(parsed: Parsed) -> list[Place]:
    return places(parsed.layouts.header, parsed.header, 0, layout.HEADER_MEANINGS)


def _tlv_places(parsed: Parsed) -> Iterator[Place]:
    """The heads of the TLV areas and every TLV."""
    body_end = parsed.header.header_size + parsed.header.image_size
    if parsed.header.protected_size:
        total = f"{layout.PROTECTED_MAGIC:#x}, {parsed.header.protected_size} bytes"
        yield place(body_end, layout.INFO_SIZE, "protected area", total, "TLVs that the hash covers")
    for tlv in parsed.tlvs:
        if tlv.protected:
            yield _tlv_place(tlv)
    total = f"{layout.INFO_MAGIC:#x}, {parsed.end - parsed.signed_size} bytes"
    yield place(parsed.signed_size, layout.INFO_SIZE, "unprotected area", total, "TLVs that prove the image")
    for tlv in parsed.tlvs:
        if not tlv.protected:
            yield _tlv_place(tlv)


def _tlv_place(tlv: Tlv) -> Place:
    name = layout.tlv_name(tlv.type)
    return place(tlv.offset, 4 + len(tlv.value), name, tlv.value.hex()[:64], _meaning(name))


def _tlv_fields(parsed: Parsed) -> dict[str, object]:
    fields: dict[str, object] = {"end": parsed.end, "encrypted": _is_encrypted(parsed)}
    if parsed.swapped_types:
        fields["note"] = "TLV types are low byte first in a big-endian image, as imgtool writes them"
    fields["tlvs"] = [
        {
            "type": tlv.type,
            "name": layout.tlv_name(tlv.type),
            "length": len(tlv.value),
            "protected": tlv.protected,
            "offset": tlv.offset,
            "value": tlv.value[:64].hex(),
        }
        for tlv in parsed.tlvs[:256]
    ]
    fields["places"] = limited([*_header_places(parsed), *_tlv_places(parsed)])
    for tlv in parsed.tlvs:
        if tlv.protected and tlv.type == layout.BOOT_RECORD:
            fields["boot_record"] = _boot_record(tlv.value)
        elif tlv.protected and len(tlv.value) == _LENGTHS.get(tlv.type):
            if tlv.type == layout.SECURITY_COUNTER:
                fields["security_counter"] = int.from_bytes(tlv.value, parsed.layouts.order)
            elif tlv.type == layout.VENDOR_ID:
                fields["vendor_id"] = tlv.value.hex()
            elif tlv.type == layout.CLASS_ID:
                fields["class_id"] = tlv.value.hex()
            elif tlv.type == layout.DEPENDENCY_TYPE:
                _dependency(tlv, parsed.layouts, fields)
        elif tlv.type == layout.KEYHASH and tlv.value.hex() in PUBLISHED_TEST_KEYS:
            fields["published_test_key"] = PUBLISHED_TEST_KEYS[tlv.value.hex()]
    return fields


def _meaning(name: str) -> str:
    own = "a vendor's own" if name.startswith("vendor") else "not known here; the bootloader passes it over"
    return layout.TLV_MEANINGS.get(name, own)


def _boot_record(value: bytes) -> object:
    """What the bootloader will hand on as the measured boot's claims; None for anything but a small map of them."""
    try:
        claims = wire.decode(value[:_MAX_RECORD], deterministic=False)
    except Malformed:
        return None
    if not isinstance(claims, dict) or not claims.keys() <= _BOOT_RECORD.keys():
        return None
    return {_BOOT_RECORD[key]: one.hex() if isinstance(one, bytes) else str(one) for key, one in claims.items()}


def _dependency(tlv: Tlv, layouts: layout.Layouts, fields: dict[str, object]) -> None:
    needs = layouts.dependency.parse(tlv.value)
    version = f"{needs.major}.{needs.minor}.{needs.revision}+{needs.build}"
    known = fields.setdefault("dependencies", [])
    if isinstance(known, list):
        known.append({"image": needs.image, "version": version})


def _tlv_rules(parsed: Parsed) -> list[Problem]:
    problems: list[Problem] = []
    once: set[int] = set()
    for tlv in parsed.tlvs:
        name = layout.tlv_name(tlv.type)
        if not tlv.protected and tlv.type not in layout.UNPROTECTED_TLVS:
            detail = f"the TLV {name} stands in the unprotected area, where no hash covers it"
            problems.append(Problem("image.format", detail, tlv.offset))
        expected = _LENGTHS.get(tlv.type)
        if expected is not None and len(tlv.value) != expected:
            detail = f"the TLV {name} has {len(tlv.value)} bytes, expected {expected}"
            problems.append(Problem("image.format", detail, tlv.offset))
        elif tlv.type == layout.SIG_PURE and tlv.value != b"\x01":
            detail = f"the TLV {name} is {tlv.value.hex()}, a bootloader that wants a pure signature takes 01 only"
            problems.append(Problem("image.format", detail, tlv.offset))
        if tlv.type in _ONCE and tlv.type in once:
            detail = f"a second TLV {name}: bootloaders differ in which one they believe"
            problems.append(Problem("image.format", detail, tlv.offset))
        once.add(tlv.type)
        if len(problems) >= MAX_PROBLEMS:
            break
    return problems


def _hashes(reader: BinaryIO, parsed: Parsed) -> tuple[dict[int, bytes], list[Problem]]:
    """({hash TLV type: the image's digest}, problems): each algorithm that the image states, computed once."""
    stated = parsed.of_type(*layout.HASH_TLVS)
    pure = any(tlv.value == b"\x01" for tlv in parsed.of_type(layout.SIG_PURE))
    problems = []
    if not stated and not pure:
        problems.append(Problem("image.digest", "the image has no hash TLV", parsed.signed_size))
    digests: dict[int, bytes] = {}
    for tlv in stated:
        if tlv.type not in digests:
            digests[tlv.type] = _hash_of(reader, parsed, tlv.type)
        if tlv.value != digests[tlv.type] and len(problems) < MAX_PROBLEMS:
            detail = f"{layout.TLV_NAMES[tlv.type]} of the image is {digests[tlv.type].hex()}, the TLV says "
            problems.append(Problem("image.digest", detail + tlv.value[:64].hex(), tlv.offset))
    return digests, problems


def _unpacked_signature(
    parsed: Parsed, key: ImageKey | None, digest: bytes, fields: dict[str, object]
) -> list[Problem]:
    """The signature over the image that a compressed one unpacks to."""
    found = [tlv for tlv in parsed.of_type(layout.DECOMPRESSED_SIGNATURE) if tlv.protected]
    pure = bool(parsed.of_type(layout.SIG_PURE))
    fields["decompressed_signature"] = None if not found else "pure, not checked" if pure else "digest"
    if key is None or not found or pure:
        return []
    kind = {32: layout.SHA256, 48: layout.SHA384, 64: layout.SHA512}[len(digest)]
    problem = key.check_digests({kind: digest}, found[0])
    return [problem] if problem else []


def _signatures(
    reader: BinaryIO, parsed: Parsed, key: ImageKey, digests: dict[int, bytes], fields: dict[str, object]
) -> list[Problem]:
    """Walks the TLVs in order as the bootloader does: a key TLV selects, the next signature TLV is checked."""
    pure = any(tlv.value == b"\x01" for tlv in parsed.of_type(layout.SIG_PURE))
    problems: list[Problem] = []
    ours, others, checked = False, 0, 0
    for tlv in parsed.tlvs:
        if tlv.type == layout.KEYHASH:
            ours = tlv.value in key.hashes
        elif tlv.type == layout.PUBKEY:
            ours = tlv.value == key.encoded
        elif tlv.type in layout.SIGNATURE_TLVS:
            if ours and checked < 8:
                checked += 1
                problem = key.check(reader, parsed, tlv, digests, pure)
                problems += [problem] if problem else []
            others += not ours
            ours = False
    fields["signature"] = "pure" if pure else "digest"
    fields["signature_valid"] = checked > 0 and not problems
    if not checked and others:
        detail = f"{others} signature(s), none right behind a KEYHASH or PUBKEY that names {key.name}"
        problems.append(Problem("key.unknown", detail, parsed.signed_size))
    elif not checked:
        problems.append(Problem("signature.missing", "the image carries no signature", parsed.signed_size))
    return problems
