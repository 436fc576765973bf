"""The one exception that is meant for a person."""


class StudyError(Exception):
    """A sentence that says what is wrong, where, and what to do; printed without a traceback."""
