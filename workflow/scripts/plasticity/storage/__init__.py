"""Files: the netCDF contract, checkpoints, restart states and the cache of finished results."""
