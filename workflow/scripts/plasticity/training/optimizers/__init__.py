"""One optimizer per file."""
