"""Running an experiment: the engine, the watch beside it, the log, and the verdict."""
