"""Speed against the peers: ``python -m benchmarks`` prints tables of ratios."""
