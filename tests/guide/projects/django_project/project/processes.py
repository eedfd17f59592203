"""A middleware that says which process answered, and which one loaded the project."""

import os

LOADED_BY = os.getpid()


def name_the_processes(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Worker"] = str(os.getpid())
        response["X-Loaded-By"] = str(LOADED_BY)
        return response

    return middleware
