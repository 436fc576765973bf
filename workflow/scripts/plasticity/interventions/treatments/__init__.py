"""One treatment per file."""
