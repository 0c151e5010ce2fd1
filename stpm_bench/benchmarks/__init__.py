"""Benchmarks of the suite's own code: each module has a `run` that returns one table."""
