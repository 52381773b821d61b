"""The guards between an experiment and a cluster: the plan, its bounds, and the checks before it runs."""
