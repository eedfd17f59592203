"""The TLS context that the settings describe.

Owns       the reading of the certificate's files, and the words when they cannot be read.
Never      touches a connection: the worker class that has TLS does.
Invariant  the ssl_context hook has the last word.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from bicorn.errors import ConfigError

if TYPE_CHECKING:
    from bicorn.config import Settings


def make_context(cfg: Settings) -> ssl.SSLContext:
    """Make the context of a server; raise ConfigError if a file of it cannot be used."""

    def default() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cfg.ca_certs)
        if cfg.certfile is None:
            raise ConfigError("certfile: a server with a keyfile needs the certificate as well")
        context.load_cert_chain(cfg.certfile, cfg.keyfile)
        context.verify_mode = ssl.VerifyMode(cfg.cert_reqs)
        if cfg.ciphers is not None:
            context.set_ciphers(cfg.ciphers)
        return context

    try:
        context: ssl.SSLContext = cfg.ssl_context(cfg, default)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        raise ConfigError(
            f"certfile = {cfg.certfile!r}, keyfile = {cfg.keyfile!r}, ca_certs = {cfg.ca_certs!r}: {error}"
        ) from error
    return context
