"""Library of the workflow: curvature and the loss of plasticity (arXiv 2312.00246)."""
