"""The config: typed models, the study that it describes, and plug-ins by file name. Nothing here imports torch."""
