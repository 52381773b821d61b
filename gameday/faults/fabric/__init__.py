"""Faults of a node's network: its links (`nic`) and the virtual functions that pods use (`vf`)."""
