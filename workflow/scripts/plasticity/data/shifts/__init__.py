"""One way in which tasks differ per file."""
