"""Starts a peer that has no command line of its own (or whose command line cannot say what we need).

Run as `python -m bench.launch <server> <module:attribute> <port>` inside the peers' environment.
"""

from __future__ import annotations

import importlib
import sys

HOST = "127.0.0.1"
BODY_BYTES_MAX = 64 * 1024 * 1024


def main(server_name: str, app_uri: str, port: int) -> None:
    module_name, _, attribute = app_uri.partition(":")
    app = getattr(importlib.import_module(module_name), attribute)
    server = importlib.import_module(server_name)
    if server_name == "waitress":
        server.serve(app, host=HOST, port=port)
    else:
        if server_name == "fastpysgi":
            # It refuses bodies over 10,000,000 bytes otherwise.
            server.server.max_content_length = BODY_BYTES_MAX
        # bjoern, fastwsgi and fastpysgi share this signature and keep connections alive by default.
        server.run(app, HOST, port)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
