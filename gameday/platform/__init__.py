"""Thin async clients of the systems that a run talks to; each knows one system and nothing of chaos."""
