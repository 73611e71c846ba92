"""The local backend: receives what agents and SDKs send, keeps it in SQLite, shows it on a page."""
