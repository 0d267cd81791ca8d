"""The severable text of a manifest (draft-ietf-suit-manifest-37 section 8.4.4), as devguard's profile writes it.

For people only: no decision of a device may rest on it. Language "en"; the update's summary, and for each component
vendor domain, model name, the model/revision list its class ids were made from, the version and, as its description,
until when the release is supported, where that is said.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.codec import ComponentId
from devguard.manifest.suit import CODE, ComponentTextKey, TextKey, strict

LANGUAGE: Final = "en"
SEPARATOR: Final = ", "
_SUPPORTED: Final = "supported until "
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class TextFacts:
    """The human-readable part, present only where it was not severed and its digest matches the manifest.

    `supported_until`: epoch seconds at which the release's support ends, None where it does not say."""

    vendor: str
    model: str
    version: str
    summary: str
    revisions: tuple[str, ...]
    supported_until: int | None = None


def encode_text(text: TextFacts, components: Sequence[ComponentId]) -> bytes:
    """The encoded SUIT_Text_Map, the same text for every component."""
    about: dict[int, str] = {
        ComponentTextKey.MODEL_NAME.value: text.model,
        ComponentTextKey.VENDOR_DOMAIN.value: text.vendor,
        ComponentTextKey.MODEL_INFO.value: SEPARATOR.join(f"{text.model}/{name}" for name in text.revisions),
        ComponentTextKey.COMPONENT_VERSION.value: text.version,
    }
    if text.supported_until is not None:
        about[ComponentTextKey.COMPONENT_DESCRIPTION.value] = _SUPPORTED + _written(text.supported_until)
    language: dict[object, object] = dict.fromkeys(components, about)
    language[TextKey.UPDATE_DESCRIPTION.value] = text.summary
    return wire.encode({LANGUAGE: language})


def decode_text(data: bytes, components: Sequence[ComponentId]) -> TextFacts:
    """The inverse of `encode_text`; `Malformed` for a text outside the profile (other languages, keys, components)."""
    value = strict(data)
    language = value.get(LANGUAGE) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(language, dict):
        raise Malformed(CODE, f"the text is a map with the one language {LANGUAGE!r}")
    about = language.get(components[0])
    model = _field(about, ComponentTextKey.MODEL_NAME)
    names = _field(about, ComponentTextKey.MODEL_INFO).split(SEPARATOR)
    facts = TextFacts(
        vendor=_field(about, ComponentTextKey.VENDOR_DOMAIN),
        model=model,
        revisions=tuple(name.removeprefix(f"{model}/") for name in names),
        version=_field(about, ComponentTextKey.COMPONENT_VERSION),
        summary=_field(language, TextKey.UPDATE_DESCRIPTION),
        supported_until=_supported(about),
    )
    if encode_text(facts, components) != data:
        raise Malformed(CODE, "the text is not in the form devguard writes")
    return facts


def _field(value: object, key: int) -> str:
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise Malformed(CODE, f"the text lacks field {key}")
    return text


def _written(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(_TIME)


def _supported(about: object) -> int | None:
    """From a component's description; None where it has none. Any other description is outside the profile."""
    if not isinstance(about, dict) or ComponentTextKey.COMPONENT_DESCRIPTION.value not in about:
        return None
    said = _field(about, ComponentTextKey.COMPONENT_DESCRIPTION)
    try:
        return int(datetime.datetime.strptime(said, f"{_SUPPORTED}{_TIME}").replace(tzinfo=datetime.UTC).timestamp())
    except (ValueError, OverflowError):
        raise Malformed(CODE, "a component's description is not until when it is supported") from None
