"""A logger class as projects write them: another error format, an access line of its own, an atom more."""

import logging

from gunicorn import glogging


class JsonLogger(glogging.Logger):
    error_fmt = "E|%(levelname)s|%(message)s"

    def setup(self, cfg):
        super().setup(cfg)
        self._set_handler(self.access_log, cfg.accesslog, logging.Formatter("A|%(message)s"))

    def atoms(self, resp, req, environ, request_time):
        atoms = super().atoms(resp, req, environ, request_time)
        atoms["shop"] = environ.get("HTTP_X_SHOP", "-")
        return atoms

    def access(self, resp, req, environ, request_time):
        if req.path != "/health":
            super().access(resp, req, environ, request_time)
