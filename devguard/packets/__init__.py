"""Device packets: what a pump, a meter or a programmer said on its line, read and never sent.

One file a family in `families/`; `registry` names them, `stream` finds packets in a noisy stream. Nothing in this
room opens a port, and nothing of it is ever written to one.
"""
