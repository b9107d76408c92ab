"""The reading room: a web page, and a service, that colors photographs."""
