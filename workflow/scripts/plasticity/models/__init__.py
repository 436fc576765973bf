"""Networks, their layers and losses, and ensembles of networks."""
