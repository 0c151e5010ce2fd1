"""What the Snakefile asks before and during a run, and what a user asks of a config."""
