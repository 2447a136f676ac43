"""Input that nobody should send, generated."""
