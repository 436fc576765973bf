"""Suggest what a user may have meant by an unknown word."""

import difflib
from collections.abc import Sequence


def hint(word: object, known: Sequence[str]) -> str:
    """Suggest the known word that is closest, and list all."""
    if not known:
        return "Remove it."
    close = difflib.get_close_matches(str(word), known, n=1)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}Known: {', '.join(known)}."
