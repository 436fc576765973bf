"""Pass a param to a job by a file, since settings and digests in a command fill the terminal."""

import hashlib
from pathlib import Path

from plasticity.atomic import atomic_write

FOLDER = Path(".snakemake", "params")  # in the folder in which Snakemake runs


class ParamFile(dict[str, str]):
    """A param of a rule: Snakemake compares and records its text, and commands have its path.

    It is a mapping, because Snakemake turns a param that is a str into a plain str.

    Args:
        text: JSON.
        is_written: whether the file is written when a command is built; not in a dry run.
    """

    def __init__(self, text: str, *, is_written: bool) -> None:
        super().__init__(text=text)
        self._is_written = is_written

    @property
    def path(self) -> Path:
        """The file. Its name is the digest of its text, so jobs with equal params share it."""
        digest = hashlib.sha256(self["text"].encode()).hexdigest()
        return FOLDER / f"{digest[:16]}.json"

    def __repr__(self) -> str:
        """Return what Snakemake compares and records: that of the text."""
        return repr(self["text"])

    def __format__(self, _: str) -> str:
        """Return what a command gets: the path."""
        if self._is_written and not self.path.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as part:
                part.write_text(self["text"], encoding="utf-8")
        return str(self.path)


def text_of(param: ParamFile | str) -> str:
    """Return the JSON of a param, which a rule passes by a file or as text."""
    return param["text"] if isinstance(param, ParamFile) else param
