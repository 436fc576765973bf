"""Datasets, shifts, and the tasks that they define."""
