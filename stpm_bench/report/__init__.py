"""From one long table to numbers, tables, claims, figures: all that a reader sees."""
