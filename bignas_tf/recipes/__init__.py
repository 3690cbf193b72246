"""Runnable recipes: `bignas train --recipe=NAME`."""
