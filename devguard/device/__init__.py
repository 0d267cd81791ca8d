"""The far end: flash, bootloader, counters and therapy of a device, and the state directory that holds them.

The modules up to `bootloader` are pure over a `FlashBackend` and a `CounterStore`; only `storage` (and the
emulator) touch files. Nothing here knows the update conversation; the node that speaks it is built on top.
"""
