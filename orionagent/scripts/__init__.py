"""The life of the managed applications."""
