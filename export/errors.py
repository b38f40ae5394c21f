"""The one kind of error that an export raises."""


class ExportError(ValueError):
    """What cannot be exported, or came out wrong; nothing was published.

    The message is one sentence with the numbers that differ and what to do.
    """
