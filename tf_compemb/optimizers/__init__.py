"""Row optimisers: the cost of a step grows with the batch, never with the table (see README.md).

The classes are imported on first use, so that their names can be listed without loading Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tf_compemb._first_use import names_on_first_use
from tf_compemb.optimizers.names import DEFAULT_LEARNING_RATES as DEFAULT_LEARNING_RATES
from tf_compemb.optimizers.names import DEFAULT_WARMUP_STEPS as DEFAULT_WARMUP_STEPS
from tf_compemb.optimizers.names import NAMES as NAMES
from tf_compemb.optimizers.names import get as get
from tf_compemb.optimizers.names import slots_per_parameter as slots_per_parameter

if TYPE_CHECKING:
    from tf_compemb.optimizers.adagrad import Adagrad as Adagrad
    from tf_compemb.optimizers.adam import Adam as Adam
    from tf_compemb.optimizers.adam import AMSGrad as AMSGrad
    from tf_compemb.optimizers.lazy_adam import LazyAdam as LazyAdam
    from tf_compemb.optimizers.row_wise_adagrad import RowWiseAdagrad as RowWiseAdagrad
    from tf_compemb.optimizers.sgd import SGD as SGD

_MODULES = {
    "SGD": "sgd",
    "Adagrad": "adagrad",
    "RowWiseAdagrad": "row_wise_adagrad",
    "Adam": "adam",
    "AMSGrad": "adam",
    "LazyAdam": "lazy_adam",
}

__getattr__, __dir__ = names_on_first_use(__name__, _MODULES)
