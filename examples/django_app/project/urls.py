"""What is where."""

from django.urls import path

from project import views

urlpatterns = [path("", views.index), path("json", views.json)]
