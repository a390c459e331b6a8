"""Measurements of Lineshaft by itself and beside its peers: `python -m bench`."""
