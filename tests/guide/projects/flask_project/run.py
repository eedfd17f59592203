"""A user's Flask project; the name of this file and its `app` are what the guide says."""

import os

from flask import Flask, Response, jsonify, request
from views import pages

app = Flask(__name__)
app.register_blueprint(pages)

LOADED_BY = os.getpid()


@app.after_request
def name_the_processes(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    response.headers["X-Loaded-By"] = str(LOADED_BY)
    return response


@app.post("/echo")
def echo() -> Response:
    return jsonify(request.get_json())
