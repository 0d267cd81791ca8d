"""COSE: public keys, single and multiple signatures, algorithms (RFC 9052, 9053, 9596, 9679, 9864, 9964).

Pure: bytes in, values or coded errors out. Private keys are not here but in `custody`; who may sign what is
decided by `trust`, `verdict` and `grant`. Import from the modules: `algorithms`, `keys`, `roles`, `sign`.
"""
