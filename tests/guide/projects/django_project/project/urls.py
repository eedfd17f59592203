"""URLs of the project."""

from django.urls import path
from visits import views

urlpatterns = [
    path("", views.index),
    path("echo", views.echo),
    path("visits", views.visits),
    path("slow", views.slow),
    path("stuck", views.stuck),
]
