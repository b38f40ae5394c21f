"""The one kind of error that a user of the program can cause."""


class UserError(ValueError):
    """A mistake in what the user gave; its message is one sentence that says what to do."""
