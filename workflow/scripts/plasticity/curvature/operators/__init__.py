"""One curvature operator per file."""
