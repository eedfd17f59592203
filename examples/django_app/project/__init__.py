"""A Django project small enough to read in a minute."""
