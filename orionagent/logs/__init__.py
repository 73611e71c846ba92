"""The way of a log entry from memory over the disk to the backend."""
