"""Figures, one file each: `draw(datasets, tables, style)` gives a matplotlib figure, from files alone: torch is never imported.

A new figure is one file here, and one caption in workflow/report. The file's `CATEGORY` and `TITLE` are its place in the report, its
`TABLES` the tables that it is given.
"""
