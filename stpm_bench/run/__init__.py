"""What the Snakefile needs before and during a run, and what users ask about a config."""
