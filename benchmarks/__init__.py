"""Benchmarks: exact O(n²) definitions, speed goals and other libraries; `python -m benchmarks`."""
