"""Examples: see README.md."""
