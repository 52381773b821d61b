"""What is said of nodes is proved on one: kubelet, containerd and runc, with links and processes to break."""
