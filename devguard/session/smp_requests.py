"""The questions devguard asks of an MCUmgr device, as the `smp` package encodes them (extra `smp`). Pure.

Only what an update needs: no command that erases by itself, none that reads or writes files or settings.
"""

from __future__ import annotations

from typing import Final

from smp import image_management, message, os_management

from devguard.session.smp_frame import HEADER, Operation, Request

SHA_SIZE: Final = 32


def _request(made: message.Request, *, slow: bool = False) -> Request:
    header = made.header
    return Request(
        Operation(int(header.op)), int(header.group_id), int(header.command_id), made.BYTES[HEADER:], slow=slow
    )


def parameters() -> Request:
    """What the server takes."""
    return _request(os_management.MCUMgrParametersReadRequest())


def image_state() -> Request:
    """What stands in the slots."""
    return _request(image_management.ImageStatesReadRequest())


def try_image(digest: bytes) -> Request:
    """Start the image with this hash at the next reset, on trial."""
    return _request(image_management.ImageStatesWriteRequest(hash=digest, confirm=False))


def confirm_image(digest: bytes) -> Request:
    """Keep the image with this hash."""
    return _request(image_management.ImageStatesWriteRequest(hash=digest, confirm=True))


def reset() -> Request:
    """Start anew. Asked once: a second one would end the trial."""
    return _request(os_management.ResetWriteRequest())


def begin_upload(image: int, length: int, sha: bytes | None, data: bytes) -> Request:
    """The first piece, with what makes an upload that was broken off go on: the SHA-256 of the whole file."""
    made = image_management.ImageUploadWriteRequest(off=0, data=data, image=image, len=length, sha=sha)
    return _request(made, slow=True)


def go_on_upload(offset: int, data: bytes) -> Request:
    """A further piece."""
    return _request(image_management.ImageUploadWriteRequest(off=offset, data=data))
