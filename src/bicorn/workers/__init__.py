"""The worker classes: one file a class, and the base that they share."""
