"""The pod that stands in the API for one which a kubelet runs from a file."""

from __future__ import annotations

import zlib

from gameday.platform.objects import MIRROR_POD, Object


def mirror_pod(node: Object, name: str, full: str) -> Object:
    source = f"{zlib.crc32(full.encode()):032x}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": full,
            "namespace": "kube-system",
            "labels": {"component": name, "tier": "node"},
            "annotations": {
                MIRROR_POD: source,
                "kubernetes.io/config.hash": source,
                "kubernetes.io/config.source": "file",
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": node["metadata"]["name"],
                    "uid": node["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {
            "nodeName": node["metadata"]["name"],
            "hostNetwork": True,
            "tolerations": [{"effect": "NoExecute", "operator": "Exists"}],
            "containers": [{"name": name, "image": f"example.com/{name}:1"}],
        },
    }
