"""Orion Agent: metrics, supervision and logs of one Linux server."""

__version__ = "0.1.0"
# How this program was packaged, in one line; init/freeze.py fills it in.
__build__ = ""
