"""Files: the netCDF contract, checkpoints, restart files and the cache of finished ensembles."""
