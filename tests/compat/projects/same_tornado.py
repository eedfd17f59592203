"""The same small site as its neighbours, in Tornado."""

from tornado.web import Application, RequestHandler


class Page(RequestHandler):
    def get(self):
        self.write({"url": self.request.full_url(), "agent": self.request.headers["X-Agent"]})


class Echo(RequestHandler):
    def post(self):
        self.write(self.request.body)


class Stream(RequestHandler):
    async def get(self):
        for number in range(1000):
            self.write(f"{number}\n")
            await self.flush()


class Cookies(RequestHandler):
    def get(self):
        self.set_cookie("a", "1")
        self.set_cookie("b", "2")
        self.redirect("/")


class Broken(RequestHandler):
    def get(self):
        raise ValueError("broken on purpose")


app = Application([("/", Page), ("/echo", Echo), ("/stream", Stream), ("/cookies", Cookies), ("/broken", Broken)])
