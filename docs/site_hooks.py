"""Hooks of mkdocs: README is the first page, and links work that lead out of this folder.

The site loads nothing from other hosts, so it has no badges.

Pages link to each other as on GitHub. A link to a folder, or to a file outside of `docs/`, such as
`../config.yaml`, becomes its text, because the site has no such page.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
INDEX = "index.md"
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
BADGES = re.compile(r"^\[!\[.*\n", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = BADGES.sub("", text)
    text = re.sub(r'(\]\(|src=")docs/', r"\1", text)
    files.append(File.generated(config, INDEX, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links that have no target in the site by their text."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        target = link["target"]
        path = posixpath.normpath(posixpath.join(folder, target))
        if ":" in target or files.get_file_from_path(path):
            return link[0]
        source = ROOT if page.file.src_uri == INDEX else Path(config.docs_dir) / folder
        if (source / target).exists():
            return link["text"]
        return link[0]  # mkdocs says that the target is missing

    parts = []
    end = 0
    for block in CODE.finditer(markdown):
        parts += [LINK.sub(replace, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(replace, markdown[end:])])
