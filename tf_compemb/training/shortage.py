"""A full disk and too little memory as one sentence, from whichever library meets them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from tf_compemb.training.errors import UserError
from tf_compemb.training.run_directory import RunDirectory

# TensorFlow and HDF5 raise errors of their own kinds, with the system's words in them.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_MEMORY = ("OOM when allocating", "failed to allocate memory", "Unable to allocate")


@contextlib.contextmanager
def told_in_one_sentence(run: RunDirectory | None = None) -> Iterator[None]:
    """Raises what stops a program for want of disk or memory as an error for its user.

    Args:
        run: A training run's directory; where its configuration is written, the run can go on.

    Raises:
        UserError: In place of such an error; others stay as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _full_disk(error)
        if reason is not None:
            raise UserError(f"{reason}: free some space{_advice(run)}.") from error
        if _out_of_memory(error):
            raise UserError(
                "There is too little memory for this model: take a smaller --batch-size or --dim, "
                "or a method with fewer parameters (`tf-compemb train --dry-run` tells them)."
            ) from error
        raise


def _advice(run: RunDirectory | None) -> str:
    if run is None or not run.config.exists():
        return ""
    return f", then `tf-compemb train --resume --out {run.path}` goes on with the run"


def _full_disk(error: BaseException) -> str | None:
    """The system's words, and the file where they are known; None for another error."""
    for one in _chain(error):
        for number in _FULL:
            words = os.strerror(number)
            if isinstance(one, OSError) and one.errno == number and one.filename is not None:
                return f"{words}: {one.filename2 or one.filename}"
            if words in str(one) or (isinstance(one, OSError) and one.errno == number):
                return words
    return None


def _out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(one, MemoryError) or any(words in str(one) for words in _NO_MEMORY)
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from or after."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
