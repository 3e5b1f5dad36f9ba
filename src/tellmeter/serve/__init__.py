"""SHOW: the page of metrics, as an ASGI or WSGI application, as a server of its own, or as bytes."""
