"""Benchmarks: ratios within one run, against peers and the machine's own limit."""
