"""Directions of curvature and the loss of plasticity (arXiv 2312.00246): the library behind the workflow."""
