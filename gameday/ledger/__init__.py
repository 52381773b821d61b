"""The ledger: every change to the world, written down with its undo before it is made.

Undo is data, not a closure, so another process on another machine can do it. It is conditional (it
restores only what is still ours), idempotent, and last-in-first-out for each object.
"""

from gameday.ledger.activity import Activity
from gameday.ledger.ledger import Entry, Ledger, StepLedger
from gameday.ledger.operations import Create, Delete, Edit, Evict, Operation, Patch, Refused

__all__ = [
    "Activity",
    "Create",
    "Delete",
    "Edit",
    "Entry",
    "Evict",
    "Ledger",
    "Operation",
    "Patch",
    "Refused",
    "StepLedger",
]
