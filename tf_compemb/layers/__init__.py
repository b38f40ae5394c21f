"""The embedding layers, one file a method; the catalogue is README.md beside this file."""

from tf_compemb.layers.base import CompressedEmbedding as CompressedEmbedding
from tf_compemb.layers.compositional.hash_trick import HashEmbedding as HashEmbedding
from tf_compemb.layers.compositional.k_partition import (
    CompositionalEmbedding as CompositionalEmbedding,
)
from tf_compemb.layers.compositional.path import PathEmbedding as PathEmbedding
from tf_compemb.layers.compositional.quotient_remainder import QREmbedding as QREmbedding
from tf_compemb.layers.decomposition.ant import ANTEmbedding as ANTEmbedding
from tf_compemb.layers.decomposition.dhe import DeepHashEmbedding as DeepHashEmbedding
from tf_compemb.layers.decomposition.fpd import FPDEmbedding as FPDEmbedding
from tf_compemb.layers.decomposition.low_rank import LowRankEmbedding as LowRankEmbedding
from tf_compemb.layers.decomposition.mlet import MLETEmbedding as MLETEmbedding
from tf_compemb.layers.decomposition.semi_tensor import STTEmbedding as STTEmbedding
from tf_compemb.layers.decomposition.tt_rec import TTEmbedding as TTEmbedding
from tf_compemb.layers.full_table import FullEmbedding as FullEmbedding
from tf_compemb.layers.hashing.binary_code import (
    BinaryCodeHashEmbedding as BinaryCodeHashEmbedding,
)
from tf_compemb.layers.hashing.cafe import CAFEEmbedding as CAFEEmbedding
from tf_compemb.layers.hashing.double_hash import (
    FrequencyDoubleHashEmbedding as FrequencyDoubleHashEmbedding,
)
from tf_compemb.layers.hashing.frequency_threshold import (
    FrequencyThresholdEmbedding as FrequencyThresholdEmbedding,
)
from tf_compemb.layers.hashing.hash_embeddings import HashEmbeddings as HashEmbeddings
from tf_compemb.layers.hashing.lma import LMAEmbedding as LMAEmbedding
from tf_compemb.layers.hashing.memcom import MEmComEmbedding as MEmComEmbedding
from tf_compemb.layers.hashing.robe import ROBEEmbedding as ROBEEmbedding
from tf_compemb.layers.hashing.unified import UnifiedEmbedding as UnifiedEmbedding
from tf_compemb.layers.registry import get_method as get_method
from tf_compemb.layers.registry import method as method
from tf_compemb.layers.registry import method_names as method_names
