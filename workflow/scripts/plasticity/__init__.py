"""Curvature and the loss of plasticity (arXiv 2312.00246).

`plasticity.curvature` is a library for any network. The other packages run studies.
"""

from pathlib import Path

# Not in this file, because code digests include it. So a new version reruns nothing.
__version__ = Path(__file__).with_name("VERSION").read_text(encoding="utf-8").strip()
