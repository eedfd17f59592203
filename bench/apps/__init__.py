"""The applications that every server is asked to serve, one behaviour a file."""
