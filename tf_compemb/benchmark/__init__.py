"""Speed and memory beside the stock layers, torch, FBGEMM, torchrec and keras-rs.

`tf-compemb benchmark SUITE...`; what each suite measures and how is in `suites`.
"""
