"""The ledger: every change to the world, written down with its undo before it is made.

Undo is data, not a closure, so another process on another machine can do it. It is conditional (it
restores only what is still ours), idempotent, and last-in-first-out for each object.
"""
