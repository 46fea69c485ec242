"""Reads files of the kit, and checks them before use."""

import gzip
import hashlib
import os
import zlib

from .errors import Damaged


def verified(path, sha256):
    """Return the bytes of a file after a check of their hash. Raises `Damaged`.

    The content of a file that ends in .gz is decompressed. The runtime gets these bytes, so the file cannot change
    between check and run.
    """
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None)  # None if the content is no gzip
        words = "cannot be read: %s" % why if why else "is damaged: %s" % error
        raise Damaged("%s %s" % (os.path.basename(path), words)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Damaged("%s is damaged: its SHA-256 is %s, not %s" % (os.path.basename(path), found, sha256))
    return data
