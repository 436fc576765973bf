"""Figures, tables in LaTeX, captions and pages."""
