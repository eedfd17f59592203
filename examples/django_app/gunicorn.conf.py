"""Bicorn reads this as Gunicorn does: in this directory, `bicorn` needs no arguments."""

wsgi_app = "project.wsgi"
workers = 2
accesslog = "-"
