"""What the tests use to run real servers and to speak bytes to them."""
