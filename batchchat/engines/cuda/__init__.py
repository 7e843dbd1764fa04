"""Attention over a paged KV cache for accelerators, behind one small interface of plain tensors.

`backend` states the interface and picks who serves it: `paged` (Triton kernels), `varlen` (torch's own flash attention)
or `gathered` (torch's operators, for any device). `layers` has the kernels for what lies between attentions; the pages
themselves and what is asked of all of them are in `continuous.paged`. Nothing here needs Triton to be imported.
"""
