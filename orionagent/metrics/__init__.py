"""What the machine is doing, and telling the backend so."""
