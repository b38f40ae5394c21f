"""DCN and DLRM on tensorflow-recommenders."""

if __name__ != "tf_compemb.models":
    raise ImportError("import tf_compemb.models; the top-level folder models/ is part of the package")
