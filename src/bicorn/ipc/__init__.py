"""What workers tell the arbiter."""
