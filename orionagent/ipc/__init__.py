"""Talk between the orion command and the daemon."""
