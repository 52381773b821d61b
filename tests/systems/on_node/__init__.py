"""Other people's controllers whose work is done on a node: beside the real one."""
