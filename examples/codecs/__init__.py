"""Real upstream codecs as plugins: see README.md."""
