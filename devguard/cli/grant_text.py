"""A grant, or a request for one, as plain values and as lines for people. What it says, not whether it holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from devguard.cli.times import iso, left

if TYPE_CHECKING:
    from devguard.grant.claims import Grant
    from devguard.grant.request import GrantRequest
    from devguard.grant.scope import Scope


def digest(one: Grant) -> bytes:
    """What names a grant in records and approvals: SHA-256 over its untagged form."""
    return hashlib.sha256(one.untagged).digest()


def names(members: frozenset[str]) -> str:
    """A set of the scope on one line."""
    return ", ".join(sorted(members)) or "none"


def as_dict(one: Grant) -> dict[str, Any]:
    """A grant as plain values."""
    scope = one.scope
    return {
        "issuer": one.issuer,
        "technician": one.subject,
        "holder": one.holder.fingerprint,
        "cti": one.cti.hex(),
        "issued": iso(one.issued),
        "not_before": iso(one.not_before),
        "expires": iso(one.expires),
        "models": sorted(scope.models),
        "serials": sorted(scope.serials),
        "sites": sorted(scope.sites),
        "actions": sorted(scope.actions),
        "release": "*" if scope.any_release else None if scope.release_digest is None else scope.release_digest.hex(),
        "sequences": None if scope.sequences is None else list(scope.sequences),
        "hours": "*" if scope.hours is None else hours_text(scope.hours),
        "max_uses": "*" if scope.max_uses is None else scope.max_uses,
        "trained_until": "*" if scope.trained_until is None else iso(scope.trained_until),
        "epoch": scope.epoch,
        "device_nonce": None if scope.device_nonce is None else scope.device_nonce.hex(),
        "delegated": one.parent is not None,
        "any": list(scope.wide),
    }


def hours_text(hours: tuple[int, int]) -> str:
    """Minutes of the day as HH:MM-HH:MM."""
    return "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in hours)


def release_text(scope: Scope) -> str:
    """Which releases."""
    if scope.any_release:
        return "any"
    if scope.release_digest is not None:
        return scope.release_digest.hex()
    return "none" if scope.sequences is None else f"number {scope.sequences[0]} to {scope.sequences[1]}"


def text(one: Grant, now: int) -> str:
    """A grant for people."""
    scope = one.scope
    lines = [
        f"{one.subject} may {names(scope.actions)} {names(scope.models)}, serial {names(scope.serials)}, "
        f"site {names(scope.sites)}",
        f"  from {iso(one.not_before)} until {iso(one.expires)} ({left(one.expires - now)} left), "
        f"release {release_text(scope)}",
        f"  key {one.holder.fingerprint}, granted by {one.issuer}",
    ]
    bounds = [] if scope.hours is None else [f"at {hours_text(scope.hours)} UTC"]
    bounds += [] if scope.max_uses is None else [f"for {scope.max_uses} release{'s' if scope.max_uses > 1 else ''}"]
    bounds += [] if scope.trained_until is None else [f"trained until {iso(scope.trained_until)}"]
    lines += [f"  {', '.join(bounds)}"] if bounds else []
    if scope.device_nonce is not None:
        lines.append(f"  bound to device nonce {scope.device_nonce.hex()}: good for one release")
    if scope.wide:
        lines.append(f"  WIDE: any {', any '.join(scope.wide)}")
    return "\n".join(lines)


def request_dict(one: GrantRequest) -> dict[str, Any]:
    """A request as plain values; null where nothing was asked for."""
    wish = one.wish
    return {
        "person": one.person,
        "holder": one.holder.fingerprint,
        "issued": iso(one.issued),
        "models": sorted(wish.models) or None,
        "serials": sorted(wish.serials) or None,
        "sites": sorted(wish.sites) or None,
        "actions": sorted(wish.actions) or None,
        "release": wish.release_digest.hex() if wish.release_digest else None,
        "sequences": None if wish.sequences is None else list(wish.sequences),
        "hours": hours_text(wish.hours) if wish.hours not in (None, (0, 0)) else None,
        "max_uses": wish.max_uses or None,
        "device_nonce": None if wish.device_nonce is None else wish.device_nonce.hex(),
        "life": one.life,
        "reason": one.reason or None,
    }


def request_text(one: GrantRequest, now: int) -> str:
    """A request for people: who asks, with which key, for what."""
    asked = [
        f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in request_dict(one).items()
        if value is not None and name not in ("person", "holder", "issued", "life", "reason")
    ]
    if one.life is not None:
        asked.append(f"for {left(one.life)}")
    return "\n".join(
        [
            f"{one.person} asks for a grant, {left(max(0, now - one.issued))} ago: {'; '.join(asked) or 'no wish'}",
            *([f"  reason: {one.reason}"] if one.reason else []),
            f"  key {one.holder.fingerprint}, proved by its signature; the name is what the request says",
        ]
    )
