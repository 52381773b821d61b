"""The proof that nothing is left behind: whatever dies, whenever, in whatever weather.

`make torture` runs it (BUDGET seconds, SEED a number or `random`, TORTURE_PLATFORM cluster or sandbox).
Nothing in here imports `gameday`, but for the process that runs the program itself: the world is read by code
that shares nothing with the code under test.
"""
