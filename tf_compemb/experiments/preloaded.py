"""Imported by the process that training runs are forked from: what each of them imports first.

Nothing here makes TensorFlow start its threads or look for devices, which a fork must not inherit.
"""

from __future__ import annotations

from tf_compemb._native_log import without_native_log
from tf_compemb.training.environment import prepare_tensorflow

with without_native_log():  # What it inherited tells TensorFlow to be quiet, which comes too late.
    prepare_tensorflow()

import tf_compemb.models
import tf_compemb.train
import tf_compemb.training.report
import tf_compemb.training.trainer  # noqa: F401
