"""A local server with TensorFlow Serving's API, its clients, and comparisons of served models."""

if __name__ != "tf_compemb.serving":
    raise ImportError(
        "import tf_compemb.serving; the top-level folder serving/ is part of the package"
    )
