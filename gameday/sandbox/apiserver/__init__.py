"""The sandbox's Kubernetes API: a small kube-apiserver on aiohttp, in memory, for one process's lifetime.

It behaves as the real one does in everything that gameday and kubectl rely on (tests/platform checks the same
behaviours on both), and it can be told to fail (see failures.py).
"""

from __future__ import annotations

from gameday.sandbox.apiserver.access import Denial
from gameday.sandbox.apiserver.kubeconfig import write_kubeconfig
from gameday.sandbox.apiserver.server import ApiServer

__all__ = ["ApiServer", "Denial", "write_kubeconfig"]
