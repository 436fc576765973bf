"""Curvature operators, one file each: `gram_blocks` gives matrices with an operator's nonzero spectrum, layer by layer."""
