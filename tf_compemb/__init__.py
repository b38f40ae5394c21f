"""Memory-efficient embeddings for recommender systems in TensorFlow and Keras."""

__version__ = "0.1.0.dev0"
