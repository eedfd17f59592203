"""What the project keeps."""

from django.db import models


class Visit(models.Model):
    """Somebody was here."""

    at = models.DateTimeField(auto_now_add=True)
