"""SavedModels that TF-Serving loads, and TFLite models, from trained click models and others.

The names load on first use, so that `--help` imports no TensorFlow.
"""

if __name__ != "tf_compemb.export":
    raise ImportError(
        "import tf_compemb.export; the top-level folder export/ is part of the package"
    )

from typing import TYPE_CHECKING

from tf_compemb._first_use import names_on_first_use

if TYPE_CHECKING:
    from tf_compemb.export.errors import ExportError as ExportError
    from tf_compemb.export.exporter import saved_model as saved_model
    from tf_compemb.export.lite_exporter import tflite as tflite

__getattr__, __dir__ = names_on_first_use(
    __name__,
    {"ExportError": "errors", "saved_model": "exporter", "tflite": "lite_exporter"},
)
