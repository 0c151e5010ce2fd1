"""Metrics: arrays in, a float or a curve out; no torch, no files."""
