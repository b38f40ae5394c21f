"""Hashing and partitions: ids share rows of small tables."""
