"""Orion Agent: metrics, supervision and logs of one Linux server."""

__version__ = "0.1.0"
