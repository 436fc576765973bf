"""Curvature of checkpoints: operators, spectra and measures."""
