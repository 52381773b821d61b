"""One module for each line of the benchmark; a new file here is a new line.

A row's docstring begins with its title; `async def measure() -> list[Measured]` does the work.
"""
