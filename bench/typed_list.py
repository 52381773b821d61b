"""Lists all nodes and pods with the official typed client: `python -m bench.typed_list KUBECONFIG`."""

from __future__ import annotations

import sys

from kubernetes import client, config

if __name__ == "__main__":
    config.load_kube_config(sys.argv[1])
    api = client.CoreV1Api()
    nodes, pods = api.list_node().items, api.list_pod_for_all_namespaces().items
    print(len(nodes), len(pods))
