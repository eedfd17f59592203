"""The parent process: which workers live, and what happens to them."""
