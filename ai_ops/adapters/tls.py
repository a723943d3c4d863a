"""The TLS contexts that connections share: making one costs some 30 ms of CPU, and a probe must not."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

import httpx


class CAFileError(Exception):
    """A CA file can't be used here; the message names it and says why."""


def ssl_context(*, verify: bool = True, ca_file: str = "") -> ssl.SSLContext:
    """Return the one context with these settings.

    Args:
        verify: Whether certificates are verified.
        ca_file: Path of a PEM file with the CAs to trust instead of the usual ones, which are those of the
            agents' client too (SSL_CERT_FILE is honoured). A file that changes is read anew.

    Raises:
        CAFileError: The file can't be read or holds no certificate.
    """
    if not verify or not ca_file:
        return _context(verify, "", 0)
    try:
        return _context(True, ca_file, os.stat(ca_file).st_mtime_ns)
    except OSError as error:  # ssl.SSLError is one
        raise CAFileError(f"the CA file {ca_file} can't be used ({error.strerror or error})") from error


@lru_cache(maxsize=64)
def _context(verify: bool, ca_file: str, modified_ns: int) -> ssl.SSLContext:
    if ca_file:
        return ssl.create_default_context(cafile=ca_file)
    return httpx.create_ssl_context(verify=verify)
