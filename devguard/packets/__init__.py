"""Device packets: what a pump, a meter or a programmer said on its line, read and never sent.

One file a family in `families/`; `registry` names them, `decoder` reads records or a noisy stream through them.
Nothing in this room opens a port, and nothing of it is ever written to one.
"""
