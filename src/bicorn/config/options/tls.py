"""TLS, which only Tornado's server has in this version: elsewhere these are refused unless they ask for nothing."""

from __future__ import annotations

from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import ANYTHING, CODE_NUMBER, FLAG, optional_text

TLS = Absent(
    "TLS",
    "which only the tornado worker class has in this version of Bicorn",
    frozenset({"tornado", "gunicorn.workers.gtornado.TornadoWorker", "bicorn.workers.tornado.TornadoWorker"}),
)


class TLSOptions(Options, section="SSL"):
    """Settings of TLS. The section has Gunicorn's name, by which `ssl_options` collects it."""

    keyfile = Setting(
        default=None, kind=optional_text("FILE"), cli=("--keyfile",), absent=TLS, doc="The file of the private key."
    )
    certfile = Setting(
        default=None, kind=optional_text("FILE"), cli=("--certfile",), absent=TLS, doc="The file of the certificate."
    )
    ssl_version = Setting[object](
        default=2,  # ssl.PROTOCOL_TLS, as a number so that a server without TLS need not import ssl
        kind=ANYTHING,
        cli=("--ssl-version",),
        absent=TLS,
        doc="Deprecated in Gunicorn, which ignores it: the ssl_context hook decides.",
    )
    cert_reqs = Setting(
        default=0,  # ssl.CERT_NONE
        kind=CODE_NUMBER,
        cli=("--cert-reqs",),
        absent=TLS,
        doc="Whether clients need certificates: 0 no, 1 if they have one, 2 yes.",
    )
    ca_certs = Setting(
        default=None,
        kind=optional_text("FILE"),
        cli=("--ca-certs",),
        absent=TLS,
        doc="The file of the authorities that clients' certificates are checked against.",
    )
    suppress_ragged_eofs = Setting(
        default=True,
        kind=FLAG,
        cli=("--suppress-ragged-eofs",),
        absent=TLS,
        doc="Take a connection that ends without TLS's own goodbye for a normal end.",
    )
    do_handshake_on_connect = Setting(
        default=False,
        kind=FLAG,
        cli=("--do-handshake-on-connect",),
        absent=TLS,
        doc="Do the handshake as soon as a connection is accepted.",
    )
    ciphers = Setting(
        default=None, kind=optional_text(), cli=("--ciphers",), absent=TLS, doc="The ciphers, as OpenSSL lists them."
    )
