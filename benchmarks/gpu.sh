#!/bin/sh
# Check and measure training and curvature on a GPU, in at most 6 minutes:
#
#     benchmarks/gpu.sh [--device cpu] [--output FILE]
#
# It needs Python 3.11 with torch, numpy, xarray and h5py. PYTHON chooses another interpreter.
# Results are in gpu.json. Without a GPU it runs a small part on the CPU, and says so.
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu" "$@"
