"""Pages of tables, each to be sorted and searched; they need no network.

A report shows a page as one address, which browsers limit to 2 MB: long tables show their first and last rows, and say so.
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
DIGITS = 4  # of a number that is shown
ROOM = 200_000  # bytes of all tables of a page, about


class Section(NamedTuple):
    """A table of the page.

    Attributes:
        name: of the table, and of its anchor.
        title: its heading.
        caption: as HTML.
        table: what is shown.
    """

    name: str
    title: str
    caption: str
    table: pd.DataFrame


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    links = " ".join(f'<a href="#{one.name}">{html.escape(one.title)}</a>' for one in sections)
    room = ROOM // len(sections)
    bodies = "\n".join(
        f'<section id="{one.name}"><h2>{html.escape(one.title)}</h2><div>{one.caption}</div>{_interactive(one, room)}</section>'
        for one in sections
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    scripts = generate_init_offline_itables_html(itables.options.dt_bundle)
    body = f"<h1>{html.escape(title)}</h1><nav>{links}</nav>{scripts}\n{bodies}"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _interactive(section: Section, room: int) -> str:
    """A table that sorts and searches; the same table, the same text."""
    shown = section.table.map(
        lambda value: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
    )
    return str(
        itables.to_html_datatable(
            shown,
            connected=False,
            table_id=f"table_{section.name}",
            showIndex=False,
            maxBytes=room,
            scrollX=True,
            display_logo_when_loading=False,
        )
    )
