"""The training program behind `tf-compemb train`, in parts.

Nothing heavy is imported here: `options` and `run_directory` serve `--help` and the programs that
only read runs.
"""
