"""The two set-ups: of a server, and of an application on it."""
