"""A web page, and a service, that color photographs."""
