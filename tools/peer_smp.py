"""The SMP peer of `bench_peers`: smpclient's upload as a program of its own, and a server for the other end.

The server has a buffer of 2048 bytes, the best of what was measured before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import select
import sys
import threading
import time
import tty
from pathlib import Path
from typing import Any

BUFFER = 2048


async def upload(port: str, baud: int, path: Path) -> float:
    """smpclient's own upload; seconds from before it connects to its end."""
    from smpclient import SMPClient
    from smpclient.transport.serial import SMPSerialTransport

    image, began = path.read_bytes(), time.monotonic()
    async with SMPClient(SMPSerialTransport(baudrate=baud), port) as client:
        async for _ in client.upload(image):
            pass
        return time.monotonic() - began


class SmpServer:
    """As much of an SMP server as an upload needs, on a port, in a thread: parameters and image upload, nothing else.
    What is damaged it drops, as a device does."""

    def __init__(self, port: str) -> None:
        self.image = bytearray()
        self._port = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._port, when=0)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="smp-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        os.close(self._port)

    def _serve(self) -> None:
        buffer, packet = bytearray(), bytearray()
        while self._stop not in (readable := select.select([self._stop, self._port], [], [])[0]):
            if not readable:
                continue
            with contextlib.suppress(BlockingIOError):
                buffer += os.read(self._port, 65_536)
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer = bytearray(rest)
                if line[:2] == b"\x06\x09":
                    packet.clear()
                with contextlib.suppress(binascii.Error):
                    packet += base64.b64decode(line[2:])
                if len(packet) > 2 and len(packet) - 2 >= int.from_bytes(packet[:2], "big"):
                    self._packet(bytes(packet[2:]))
                    packet.clear()

    def _packet(self, data: bytes) -> None:
        import cbor2
        from smp.packet import encode

        if binascii.crc_hqx(data, 0) or len(data) < 10:
            return
        operation, group, sequence, command = data[0], int.from_bytes(data[4:6], "big"), data[6], data[7]
        if (group, command) == (0, 6):
            answer: dict[str, Any] = {"buf_size": BUFFER, "buf_count": 4}
        elif (group, command) == (1, 1):
            request = cbor2.loads(data[8:-2])
            if request["off"] == len(self.image):
                self.image += request["data"]
            answer = {"off": len(self.image)}
        else:
            answer = {"rc": 8}
        body = cbor2.dumps(answer)
        header = bytes([operation + 1, 0]) + len(body).to_bytes(2, "big") + group.to_bytes(2, "big")
        for line in encode(header + bytes([sequence, command]) + body):
            view = memoryview(line)
            while view:
                select.select([], [self._port], [])
                view = view[os.write(self._port, view) :]


def main() -> int:
    """PORT BAUD FILE: upload, and print the seconds it took."""
    port, baud, path = sys.argv[1:]
    print(asyncio.run(upload(port, int(baud), Path(path))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
