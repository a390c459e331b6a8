"""Lineshaft on each of its stores, beside what else runs on the same servers: `python -m bench.stores`."""
