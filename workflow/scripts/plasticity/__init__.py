"""Library of the workflow: directions of curvature and the loss of plasticity (arXiv 2312.00246)."""
