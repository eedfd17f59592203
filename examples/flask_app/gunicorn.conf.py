"""Bicorn reads this as Gunicorn does: in this directory, `bicorn` needs no arguments."""

wsgi_app = "run:app"
workers = 2
accesslog = "-"
