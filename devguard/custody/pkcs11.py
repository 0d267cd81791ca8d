"""Tokens through PKCS#11: find the module and the token, log in, and always leave again.

The `python-pkcs11` package (extra `[pkcs11]`) is imported when a token is used. A module is native code, so it is
loaded only from a file that nobody but its owner can change. A login is one attempt: nothing here tries twice, a PIN
that a token did not take is not sent to it again, and the last attempt before a token locks is never spent. What
PKCS#11 answers leaves this module as `key.token`, `key.pin` or `key.pin-locked`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from devguard.custody.uri import TokenUri
from devguard.errors import Refused

MODULE_VARIABLE: Final = "DEVGUARD_PKCS11_MODULE"
EXTRA: Final = "install devguard with its extra: pip install 'devguard[pkcs11]'"
MAX_PIN: Final = 255
_PIN: Final = {
    "PinIncorrect": "the token did not take the PIN; this attempt counts on the token and devguard makes no other",
    "PinInvalid": "the token did not take the PIN: it has characters that cannot be in one",
    "PinLenRange": "the token did not take the PIN: it is too short or too long",
    "PinExpired": "the PIN has expired; set a new one with the token's own tool",
    "UserPinNotInitialized": "no user PIN has been set on the token",
}
_GONE: Final = frozenset({"DeviceRemoved", "TokenNotPresent", "SlotIDInvalid", "SessionClosed", "TokenNotRecognised"})
_in_use: Final[dict[str, int]] = {}
_refused: Final[set[bytes]] = set()  # digests of tokens with PINs they did not take, under a key of this process
_SALT: Final = os.urandom(32)


def library() -> Any:
    """The `pkcs11` package; `Refused("key.token")` where it is not installed."""
    try:
        import pkcs11
    except ImportError:
        raise Refused("key.token", "keys on tokens need the python-pkcs11 package, which is not here", EXTRA) from None
    return pkcs11


def refusal(error: Exception, what: str) -> Refused:
    """The coded form of an error of the `pkcs11` package about `what`."""
    name = type(error).__name__
    if name in _PIN:
        return Refused("key.pin", f"{what}: {_PIN[name]}")
    if name == "PinLocked":
        return Refused("key.pin-locked", f"{what}: the PIN is locked")
    if name in _GONE:
        return Refused("key.token", f"{what} is not there any more")
    said = f"{name}: {error}" if str(error) else name
    return Refused("key.token", f"{what} answers {said[:200]}")


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Whatever PKCS#11 answers inside leaves as a coded refusal about `what`."""
    pkcs11 = library()
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise refusal(error, what) from None
    except (NotImplementedError, UnicodeDecodeError) as error:  # attributes the package cannot read
        raise Refused("key.token", f"{what} answers with what cannot be read: {error}") from None


def module_path(uri: TokenUri) -> Path:
    """The module a URI means: its module-path, else DEVGUARD_PKCS11_MODULE; checked before anything loads it.

    Absolute, a regular file, owned by root or by us, and not writable by others: `Refused("key.token")` otherwise.
    """
    named = uri.module_path or os.environ.get(MODULE_VARIABLE)
    if not named:
        raise Refused("key.token", "no PKCS#11 module is named", f"add ?module-path=FILE or set {MODULE_VARIABLE}")
    path = Path(named)
    if not path.is_absolute():
        raise Refused("key.token", f"the PKCS#11 module {named} is not an absolute path")
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Refused("key.token", f"the PKCS#11 module {named}: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Refused("key.token", f"the PKCS#11 module {named} is not a regular file")
    if os.name != "nt" and (found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid())):
        raise Refused("key.token", f"the PKCS#11 module {named} can be changed by others, so it is not loaded")
    return path


@contextlib.contextmanager
def module(uri: TokenUri) -> Iterator[Any]:
    """The loaded module; finalised when its last user leaves, which closes every session left behind."""
    path = str(module_path(uri))
    with translated(f"the PKCS#11 module {path}"):
        loaded = library().lib(path)
    _in_use[path] = _in_use.get(path, 0) + 1
    try:
        yield loaded
    finally:
        _in_use[path] -= 1
        if not _in_use[path]:
            with contextlib.suppress(library().PKCS11Error):
                loaded.finalize()


def tokens(loaded: Any, uri: TokenUri) -> list[Any]:
    """The initialised tokens that a URI fits, in slot order."""
    pkcs11 = library()
    found = []
    with translated("the PKCS#11 module"):
        for slot in loaded.get_slots(token_present=True):
            if uri.slot_id is not None and slot.slot_id != uri.slot_id:
                continue
            try:
                token = slot.get_token()
            except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                continue
            if token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED and _fits(token, uri):
                found.append(token)
    return found


def _fits(token: Any, uri: TokenUri) -> bool:
    asked = (
        (uri.token, token.label),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.serial, serial_of(token)),
    )
    return all(wanted is None or wanted == found for wanted, found in asked)


def serial_of(token: Any) -> str:
    """The token's serial number as text."""
    return bytes(token.serial).decode("utf-8", "backslashreplace").strip(" \0")


def one_token(loaded: Any, uri: TokenUri) -> Any:
    """The one token a URI means; `Refused("key.token")` for none or several."""
    found = tokens(loaded, uri)
    if len(found) != 1:
        asked = TokenUri(uri.token, uri.manufacturer, uri.model, uri.serial, uri.slot_id)
        there = ", ".join(repr(token.label) for token in found)
        raise Refused("key.token", f"{f'several tokens fit {asked}: {there}' if found else f'no token fits {asked}'}")
    return found[0]


def check_attempts(token: Any) -> None:
    """Refuse a login that could lock the token: `Refused("key.pin-locked")`."""
    flags = library().TokenFlag
    if token.flags & flags.USER_PIN_LOCKED:
        raise Refused("key.pin-locked", f"token {token.label!r}: the PIN is locked")
    if token.flags & flags.USER_PIN_FINAL_TRY:
        raise Refused("key.pin-locked", f"token {token.label!r}: one more wrong PIN would lock it")


def pin_text(pin: bytes) -> str:
    """A PIN as the text it is; one that cannot be right is refused here, before it costs an attempt: `key.pin`."""
    try:
        text = pin.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("key.pin", "the PIN is not UTF-8 text; no attempt was made") from None
    if not 0 < len(pin) <= MAX_PIN or "\0" in text:
        raise Refused("key.pin", f"a PIN has 1 to {MAX_PIN} bytes; no attempt was made")
    return text


def asks_itself(token: Any) -> bool:
    """Whether the token has a keypad or reader of its own for the PIN."""
    return bool(token.flags & library().TokenFlag.PROTECTED_AUTHENTICATION_PATH)


@contextlib.contextmanager
def _one_attempt(token: Any, secret: Any, what: str) -> Iterator[None]:
    """A login with a PIN that this token has not refused in this process: a second attempt with the same one (for
    another key, for a step that is begun again) would only come nearer to a lock."""
    if not isinstance(secret, str):
        yield
        return
    attempt = hmac.digest(_SALT, repr((token.label, bytes(token.serial), secret)).encode(), hashlib.sha256)
    if attempt in _refused:
        raise Refused("key.pin", f"{what} did not take this PIN before; no other attempt was made")
    try:
        yield
    except Refused as error:
        if error.code == "key.pin":
            _refused.add(attempt)
        raise


@contextlib.contextmanager
def session(uri: TokenUri, pin: Callable[[], bytes] | None = None, *, write: bool = False) -> Iterator[tuple[Any, Any]]:
    """(token, session) of the one token a URI means, logged in once when `pin` is given; closed whatever happens.

    `pin` is asked only when the token can take it, and not at all when the token asks by itself.
    """
    with module(uri) as loaded:
        token = one_token(loaded, uri)
        what = f"token {token.label!r}"
        secret: Any = None
        if pin is not None:
            check_attempts(token)
            secret = library().PROTECTED_AUTH if asks_itself(token) else pin_text(pin())
        with _one_attempt(token, secret, what), translated(what):
            opened = token.open(rw=write, user_pin=secret)
        try:
            with translated(what):
                yield token, opened
        finally:
            with contextlib.suppress(library().PKCS11Error):
                opened.close()
