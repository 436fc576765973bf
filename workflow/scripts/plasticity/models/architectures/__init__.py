"""One network architecture per file."""
