"""The exception whose message is meant for the user."""


class StudyError(Exception):
    """Report a mistake that the user can correct; entries print its message without a traceback.

    The message says what is wrong, where, and what to do now.
    """
