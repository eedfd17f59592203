"""`gunicorn.app`: running the server from a program."""
