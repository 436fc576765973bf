"""Write pages of tables that can be sorted and searched, and that load nothing from the network.

A report shows a page as one address, which browsers limit to 2 MB. Long tables therefore show only
their first and last rows, with a note.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

import itables
import pandas as pd
from itables.javascript import generate_init_offline_itables_html

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #222 }
section { margin-bottom: 3rem; max-width: 100% }
section > div:first-of-type { max-width: 60rem }
nav a { margin-right: 1rem; white-space: nowrap }
table.dataTable { font-size: 12px; font-variant-numeric: tabular-nums }
"""
SIGNIFICANT_DIGITS = 4
MAX_TABLE_BYTES = 200_000  # all tables of a page together


class Section(NamedTuple):
    """A table of the page.

    Attributes:
        name: of the table; its anchor on the page.
        title: its heading.
        caption: as HTML.
        table: its rows.
    """

    name: str
    title: str
    caption: str
    table: pd.DataFrame


def page(title: str, sections: Sequence[Section]) -> str:
    """Write the page as HTML."""
    escaped_title = html.escape(title)
    links = " ".join(
        f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections
    )
    max_bytes = MAX_TABLE_BYTES // len(sections)
    bodies = "\n".join(_section_html(section, max_bytes) for section in sections)
    head = f'<meta charset="utf-8"><title>{escaped_title}</title><style>{STYLE}</style>'
    scripts = generate_init_offline_itables_html(itables.options.dt_bundle)
    body = f"<h1>{escaped_title}</h1><nav>{links}</nav>{scripts}\n{bodies}"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _section_html(section: Section, max_bytes: int) -> str:
    """Write a section: heading, caption and table."""
    heading = f"<h2>{html.escape(section.title)}</h2>"
    caption = f"<div>{section.caption}</div>"
    table = _interactive_table(section, max_bytes)
    return f'<section id="{section.name}">{heading}{caption}{table}</section>'


def _interactive_table(section: Section, max_bytes: int) -> str:
    """Write a table that sorts and searches; equal tables give equal text."""
    html_table = itables.to_html_datatable(
        section.table.map(_round_number),
        connected=False,
        table_id=f"table_{section.name}",
        showIndex=False,
        maxBytes=max_bytes,
        scrollX=True,
        display_logo_when_loading=False,
    )
    return str(html_table)


def _round_number(value: object) -> object:
    """Round floats for display; return everything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value
