"""What the benchmarks of time share: turns, results, and the pages that show them.

It needs the standard library only.
"""
