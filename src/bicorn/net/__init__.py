"""Addresses and the listening sockets made from them."""
