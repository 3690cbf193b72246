"""Train one big supernet, slice any child out of it without retraining, ship it as TFLite.

After Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage
Models", ECCV 2020.
"""

__version__ = "0.1.0"
