"""The document: what an experiment file may say, and how a wrong one is refused.

Imports nothing of gameday, and nothing heavy: `gameday validate` must feel instant.
"""
