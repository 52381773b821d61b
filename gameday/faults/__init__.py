"""The faults: one module per family, each a way to break something and to see that it is broken."""
