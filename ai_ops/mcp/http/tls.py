"""The TLS contexts that connections share, and the certificates of servers."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import httpx
from cryptography import x509

# Four times the size of all default CAs.
MAX_CA_FILE_BYTES = 1024 * 1024

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


class CAFileError(Exception):
    """A CA file can't be used; the message names it without its content."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the CA file {path} can't be used (it must be a readable file of at most {MAX_CA_FILE_BYTES // 1024:,} "
            "KiB, with certificates as PEM, in one of the folders of ca_directories)"
        )


def ssl_context(*, verify: bool = True, ca_file: str = "", directories: Sequence[str] | None = None) -> ssl.SSLContext:
    """Return the shared context with these settings. Creating one takes about 30 ms of CPU, too long for a probe.

    This reads a file: do not call it on an event loop.

    Args:
        verify: Whether certificates are verified.
        ca_file: Path of a PEM file with the CAs to trust instead of the default CAs, which are those of the agents'
            client (SSL_CERT_FILE applies). A changed file is read again.
        directories: Folders that may contain the file; None for any folder.

    Raises:
        CAFileError: The file can't be used. All reasons have the same message, so that a user can't use paths to
            explore this machine.
    """
    if not verify or not ca_file:
        return _context(verify)
    try:
        path = _resolved(ca_file, directories)
        return _context_trusting(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CAFileError(ca_file) from error


def _resolved(ca_file: str, directories: Sequence[str] | None) -> str:
    """Resolve the path; a link to a file outside the folders is refused."""
    path = Path(ca_file).resolve(strict=True)
    if directories is not None and not any(path.is_relative_to(Path(each).resolve()) for each in directories):
        raise ValueError("outside the folders")
    return str(path)


@lru_cache(maxsize=2)
def _context(verify: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(verify=verify)


@lru_cache(maxsize=64)
def _context_trusting(path: str, modified_ns: int) -> ssl.SSLContext:
    certificates = b"\n".join(_CERTIFICATE.findall(_content(path)))
    if not certificates:
        raise ValueError("no certificate")
    return ssl.create_default_context(cadata=certificates.decode("ascii"))


def _content(path: str) -> bytes:
    """Read a regular file without waiting, because opening a FIFO or a device can block for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_CA_FILE_BYTES:
            raise ValueError("not a file, or too large")
        return file.read(MAX_CA_FILE_BYTES)


def certificate_end(connection: ssl.SSLObject) -> datetime | None:
    """Return the expiry of the server's certificate; None if it can't be read."""
    shown = connection.getpeercert(binary_form=True)
    try:
        return x509.load_der_x509_certificate(shown).not_valid_after_utc if shown else None
    except (ValueError, x509.InvalidVersion):
        return None
