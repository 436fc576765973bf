"""One shift per file."""
