"""Figures, one file each: `draw(datasets, tables, style)` returns a matplotlib figure.

A new figure is one file here and one caption in workflow/report. Its `CATEGORY` and `TITLE` say
where it stands in the report, and `TABLES` names the tables that it is given. If it declares
`SETTINGS_PER_PAGE`, more settings go to further pages: `draw` is called once per page, with the
datasets of that page. Figures never import torch.
"""
