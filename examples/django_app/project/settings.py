"""Settings of the example; without a database, so that there is nothing to set up."""

DEBUG = False
ALLOWED_HOSTS = ["*"]  # It is for your own machine; name your hosts in a real project.
SECRET_KEY = "an example's key is no secret; a real one comes from the environment"
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
TIME_ZONE = "UTC"
