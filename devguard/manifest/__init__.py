"""Release descriptions, SUIT manifests and the envelopes that carry them.

A description (TOML, reviewed by people) becomes a SUIT manifest (draft-ietf-suit-manifest) in an envelope.
Nothing here decides trust: signatures are collected and shown to `devguard.verdict`.
"""
