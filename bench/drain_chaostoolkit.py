"""Drains the scene's nodes with chaostoolkit-kubernetes; prints the seconds it took.

Runs in the competitor's environment, without gameday: `KUBECONFIG=... python drain_chaostoolkit.py SELECTOR`.
"""

import json
import sys
import time

from chaosk8s.node.actions import drain_nodes  # type: ignore[import-not-found]

if __name__ == "__main__":
    started = time.perf_counter()
    drain_nodes(label_selector=sys.argv[1], timeout=300)
    print(json.dumps({"seconds": time.perf_counter() - started}))
