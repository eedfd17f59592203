"""A program with a command line of its own: a setting that it declares, and an application made from it."""

import gunicorn.app.base
from gunicorn.arbiter import Arbiter
from gunicorn.config import Setting, validate_pos_int


class Repeat(Setting):
    name = "repeat"
    section = "Shop"
    cli = ["--repeat"]
    meta = "INT"
    validator = validate_pos_int
    type = int
    default = 1
    desc = """\
        How often the greeting is repeated.

        Once is enough for most.
        """


class Shop(gunicorn.app.base.Application):
    def init(self, parser, opts, args):
        return {"workers": 2, "proc_name": args[0] if args else "shop"}

    def load(self):
        body = b"hello " * self.cfg.repeat

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        return application


def post_fork(server, worker):
    print("server is an arbiter:", isinstance(server, Arbiter), "repeat:", worker.cfg.repeat, flush=True)


if __name__ == "__main__":
    Shop("%(prog)s [OPTIONS] [NAME]").run()
