"""What routed experts cost, side by side with the bare base and with peers on torch (docs/PERFORMANCE.md).

`make bench` runs all parts; `python -m benchmarks --parts layer` runs one.
"""
