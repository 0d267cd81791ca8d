"""The road: COBS frames, CRC-32, selective repeat with SACK, and the one driver that touches a serial port.

Everything but `driver` is sans-I/O: bytes and `now` go in, bytes and events come out. What the messages mean,
and how sealed frames are sealed, is the business of other rooms (`protector.Protector` is the seam).
"""
