"""Write pages of tables that can be sorted and searched, and that load nothing from the network.

A report shows a page as one address, which browsers limit to 2 MB. Long tables therefore show only
their first and last rows, with a note.
"""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import itables
import pandas as pd
from itables.javascript import generate_init_offline_itables_html

from plasticity.report.reader_tables import for_readers

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #222 }
section { margin-bottom: 3rem; max-width: 100% }
section > div:first-of-type { max-width: 60rem }
nav a { margin-right: 1rem; white-space: nowrap }
table.dataTable { font-size: 12px; font-variant-numeric: tabular-nums }
"""
NO_ROWS = "<p>This study has no values for this table.</p>"
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


def page(title: str, sections: Sequence[Section], titles: Mapping[str, str]) -> str:
    """Write the page as HTML.

    Args:
        title: its heading.
        sections: tables, as read from their files.
        titles: of settings, by name.
    """
    escaped_title = html.escape(title)
    links = " ".join(
        f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections
    )
    max_bytes = MAX_TABLE_BYTES // len(sections)
    bodies = "\n".join(_section_html(section, titles, max_bytes) for section in sections)
    head = f'<meta charset="utf-8"><title>{escaped_title}</title><style>{STYLE}</style>'
    scripts = generate_init_offline_itables_html(itables.options.dt_bundle)
    body = f"<h1>{escaped_title}</h1><nav>{links}</nav>{scripts}\n{bodies}"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _section_html(section: Section, titles: Mapping[str, str], max_bytes: int) -> str:
    """Write a section: heading, caption and table."""
    heading = f"<h2>{html.escape(section.title)}</h2>"
    caption = f"<div>{section.caption}</div>"
    table = for_readers(section.name, section.table, titles)
    shown = NO_ROWS if table is None else _interactive_table(section.name, table, max_bytes)
    return f'<section id="{section.name}">{heading}{caption}{shown}</section>'


def _interactive_table(name: str, table: pd.DataFrame, max_bytes: int) -> str:
    """Write a table that sorts and searches; equal tables give equal text."""
    html_table = itables.to_html_datatable(
        table,
        connected=False,
        table_id=f"table_{name}",
        showIndex=False,
        maxBytes=max_bytes,
        scrollX=True,
        display_logo_when_loading=False,
    )
    return str(html_table)
