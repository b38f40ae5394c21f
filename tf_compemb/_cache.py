"""Where this package keeps what can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$TF_COMPEMB_CACHE`, or the package's folder in the user's cache folder."""
    if "TF_COMPEMB_CACHE" in os.environ:
        return Path(os.environ["TF_COMPEMB_CACHE"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tf_compemb"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tf_compemb"
