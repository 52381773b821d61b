"""The probes: one module per family, each a way to ask how the platform is."""
