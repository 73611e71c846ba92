"""The local backend: a store, an HTTP API and a page."""
