"""Benchmark and ablation suite for STPM, Student-Teacher Feature Pyramid Matching (BMVC 2021)."""

__version__ = "0.1.0"
