"""Statistics: how arms perform, and what is associated with the loss of plasticity.

A row is one comparison: its estimate, its interval over seeds, its p value and the number of seeds
and tasks. Seeds are the unit of resampling, because the tasks of a run depend on each other.
"""
