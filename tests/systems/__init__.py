"""Experiments against other people's real controllers, on the real control plane."""
