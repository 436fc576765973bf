"""Interventions: change a copy of a checkpoint, measure it, and train it for one task."""
