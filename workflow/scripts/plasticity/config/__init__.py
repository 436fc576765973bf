"""The config: typed models, validation, the study that it describes, and plug-ins. No torch."""
