"""Sweeps: runs of several variants and seeds one after the other, into one CSV."""
