"""DLRM and DCN on tensorflow-recommenders."""

if __name__ != "tf_compemb.models":
    raise ImportError(
        "import tf_compemb.models; the top-level folder models/ is part of the package"
    )

from tf_compemb._keras import LEGACY
from tf_compemb.missing_packages import require

if LEGACY:
    require("tf_compemb.models", ("tensorflow_recommenders",), "train")
else:
    raise ImportError(
        "tf_compemb.models is built on tensorflow-recommenders, which needs tf_keras. Set "
        "TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
    )

from tf_compemb.models.click_model import ClickModel as ClickModel
from tf_compemb.models.dcn import DCN as DCN
from tf_compemb.models.dlrm import DLRM as DLRM
from tf_compemb.models.dot_interaction import DotInteraction as DotInteraction
from tf_compemb.models.vector_cross import VectorCross as VectorCross
