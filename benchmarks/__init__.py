"""Exact O(n²) definitions against the library, and the speed goals: ``python -m benchmarks``."""
