"""Approvals: who said yes to which plan, and until when.

An approval names the plan's digest, and so covers the cluster, the targets, the seed, the effects and the
expiry of just that plan. Who approved is never what a writer says of itself: see each source.
"""
