"""The benchmarks themselves: contestants agree, and reports say what was measured."""
