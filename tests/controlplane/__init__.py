"""A real Kubernetes control plane as child processes, because a fake proves only our own beliefs."""
