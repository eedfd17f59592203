"""The user's application: found, loaded, told apart (WSGI or ASGI) and watched for changes."""
