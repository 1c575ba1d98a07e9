"""Tracking: run records on disk, W&B, progress, and metering of device time."""
