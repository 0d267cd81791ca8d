"""Firmware images: recognise a file by its content, read it, measure it, say what is wrong with it.

This room reads from an open binary reader that it is handed; it opens no path, repairs nothing and judges
no trust. What is signed is always the flat image (`flat.flatten`), measured by `measure.measure`.
"""
