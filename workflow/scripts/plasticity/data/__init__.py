"""Datasets, and the tasks that a problem makes of them."""
