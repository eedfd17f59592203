"""A program that embeds the server, after the example in Gunicorn's documentation."""

import gunicorn.app.base


def application(environ, start_response):
    body = b"Works fine"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class StandaloneApplication(gunicorn.app.base.BaseApplication):
    def __init__(self, app, options=None):
        self.options = options or {}
        self.application = app
        super().__init__()

    def load_config(self):
        config = {key: value for key, value in self.options.items() if key in self.cfg.settings and value is not None}
        for key, value in config.items():
            self.cfg.set(key.lower(), value)

    def load(self):
        return self.application


if __name__ == "__main__":
    StandaloneApplication(application, {"bind": "127.0.0.1:0", "workers": 2, "unheard_of": 1}).run()
