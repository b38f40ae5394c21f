"""Partitions of the ids, and the families that are complementary by construction.

A partition maps every id in `[0, input_dim)` to one of its classes. A set of partitions is
*complementary* when no two ids share their class in all of them (Shi et al. 2020, section 3,
https://arxiv.org/abs/1909.02107), so that the tuple of classes names the id.
"""

from tf_compemb.partitions.complementary import check_complementary as check_complementary
from tf_compemb.partitions.complementary import find_collision as find_collision
from tf_compemb.partitions.families import balanced as balanced
from tf_compemb.partitions.families import chinese_remainder as chinese_remainder
from tf_compemb.partitions.families import for_parameters as for_parameters
from tf_compemb.partitions.families import mixed_radix as mixed_radix
from tf_compemb.partitions.families import smallest_moduli as smallest_moduli
from tf_compemb.partitions.families import smallest_modulus as smallest_modulus
from tf_compemb.partitions.partition import Codes as Codes
from tf_compemb.partitions.partition import Digit as Digit
from tf_compemb.partitions.partition import Function as Function
from tf_compemb.partitions.partition import Naive as Naive
from tf_compemb.partitions.partition import Partition as Partition
from tf_compemb.partitions.partition import Quotient as Quotient
from tf_compemb.partitions.partition import Remainder as Remainder
from tf_compemb.partitions.partition import UniversalHash as UniversalHash
from tf_compemb.partitions.partition import deserialize as deserialize
from tf_compemb.partitions.partition import partition_list as partition_list
