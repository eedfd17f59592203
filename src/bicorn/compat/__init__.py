"""What code that was written for Gunicorn finds in a Bicorn process."""
