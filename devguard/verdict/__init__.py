"""The verdict on a release: the only place that says yes or no to firmware.

`devguard.verdict.judge` has everything: `judge`, its arguments and results. Pure: the host and the device run
the same code over their own trust document, clock and counters.
"""
