"""Continual training: the trainer, methods, optimizers and outcomes."""
