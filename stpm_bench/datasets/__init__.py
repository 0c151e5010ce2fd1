"""Data sets: MVTec-style folders, the embedded demo, pretraining sources, downloads."""
