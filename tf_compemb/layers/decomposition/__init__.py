"""Products of small factors: low rank, tensor trains, networks of hashes, anchors."""
