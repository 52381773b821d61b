"""The dead-man's switch: when a change on a node has to end, whoever is still there to say so.

It asks the API server, with an account that may read the run's Lease and the program's own pod and nothing
else. All times are the node's monotonic clock, in seconds: no two machines have to agree on the time.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from gameday.node.task import DELETING, POD_GONE, Task

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ASK_EVERY = 1.0
ANSWER_WITHIN = 4.0
NAP = 0.05
FRESH = 10.0  # seconds in which a pod's creation counts as its run's sign of life, as a renewal does


class Gone(Exception):
    """The API server answered that there is no such object."""


class Api:
    """Reads objects with the pod's own account. Raises OSError (no usable answer) or Gone.

    `date`: the API server's clock when it answered last, in Unix seconds; 0 when it did not say.
    """

    def __init__(self, server: str = "", account: str = ACCOUNT) -> None:
        self.date = 0.0
        self.server = server.rstrip("/") or in_cluster()
        self._account = Path(account)
        certificate = self._account / "ca.crt"
        self._tls = ssl.create_default_context(cafile=str(certificate)) if certificate.exists() else None

    def get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self.server + path, headers={"Accept": "application/json"})
        token = self._account / "token"
        if token.exists():  # read each time: it is replaced before it expires
            request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
        opener = urllib.request.build_opener(  # no proxy: the environment's is none of the cluster's
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._tls)
        )
        try:
            with opener.open(request, timeout=ANSWER_WITHIN) as answer:
                self.date = _unix(answer.headers.get("Date") or "")
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise Gone(path) from None
            raise
        except (ValueError, http.client.HTTPException) as error:
            raise OSError(f"no answer that can be read: {error!r}") from None


def _unix(date: str) -> float:
    """A time as HTTP or as Kubernetes writes it; 0 for none."""
    try:
        if date[:1].isdigit():
            return datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp()
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError):
        return 0.0


def in_cluster() -> str:
    """The API server's URL as the kubelet tells every container."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class DeadMan:
    """Says why to stop, as soon as there is a reason. `watch` asks the API server until `close`."""

    def __init__(self, task: Task, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._task, self._api, self._clock = task, api, clock
        self._closed = threading.Event()
        self._why = ""
        self._deadline = float("inf")
        self._answered = clock()
        self._failure = ""
        self._renewed: object = None
        self._owner: tuple[object, object] | None = None  # holder and epoch of the Lease, as first seen
        self._stale = 0.0  # seconds of the Lease not being renewed, as far as we were told
        self._alive = False  # the run gave a sign of life while we looked
        self._begin_by = float("inf")

    def until_alive(self) -> str:
        """Wait until the run is seen alive: its pod is new, or its Lease is renewed. Why it is not, or "".

        A pod may start long after its run has died, when its image came slowly.
        """
        while not self._alive and not self.why and not self._late():
            self.wait(ASK_EVERY)
            self.ask()
        return self.why or self._late()

    def begin(self) -> None:
        """The change is about to be made: from now on its time runs. Too late, there is a reason to stop."""
        self._deadline = self._clock() + self._task.seconds
        if late := self._late():
            self.tell(late)

    def _late(self) -> str:
        if self._clock() <= self._begin_by:
            return ""
        within = self._task.begin_within
        return f"too late: the change was to be made within {within:g} s of the pod's creation, or not at all"

    def tell(self, why: str) -> None:
        """Stop now. The first reason is the one that counts; also called from a signal's handler."""
        self._why = self._why or why

    def wait(self, seconds: float) -> None:
        """Sleep, but not long beyond a reason to stop.

        By naps: a signal's handler can wake nobody without a lock that the thread it interrupts may hold
        (`threading.Event`), and `queue.SimpleQueue` of Python 3.11 waits for ever where its time runs out
        before it begins to wait.
        """
        end = time.monotonic() + min(seconds, self._deadline - self._clock())
        while not self._why and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, NAP))

    @property
    def why(self) -> str:
        """The reason to stop; "" while there is none."""
        if not self._why and self._clock() >= self._deadline:
            self.tell(f"its {self._task.seconds:g} s are over")
        silent = self._clock() - self._answered
        if not self._why and silent > self._task.patience:
            self.tell(f"the API server did not answer for {silent:.0f} s ({self._failure or 'no answer'})")
        return self._why

    def watch(self) -> None:
        """Ask in a thread of its own: an answer that does not come must not keep the program from acting."""
        threading.Thread(target=self._watch, name="dead-man's switch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self.ask()
            self._closed.wait(ASK_EVERY)

    def ask(self) -> str:
        """Ask once; what went wrong, or ""."""
        try:
            lease = self._get("/apis/coordination.k8s.io/v1", "leases", self._task.lease)
            pod = self._get("/api/v1", "pods", self._task.pod)
        except OSError as error:
            self._failure = f"{self._api.server}: {getattr(error, 'reason', None) or error}"
            return self._failure
        self._judge(lease, pod)
        return ""

    def _get(self, group: str, plural: str, name: tuple[str, str]) -> dict[str, Any] | None:
        try:
            return self._api.get(f"{group}/namespaces/{name[0]}/{plural}/{name[1]}")
        except Gone:
            return None

    def _judge_age(self, now: float, created: float) -> None:
        """By the API server's clock alone, and from the first answer on by our own, which nobody sets."""
        if created and self._api.date and self._begin_by == float("inf"):
            age = max(0.0, self._api.date - created)
            self._begin_by = now + self._task.begin_within - age
            self._alive = age <= FRESH

    def _judge(self, lease: dict[str, Any] | None, pod: dict[str, Any] | None) -> None:
        now = self._clock()
        # While there was no answer nobody can say whether the Lease was renewed: such a gap counts little.
        gap = min(now - self._answered, 2 * ASK_EVERY)
        self._answered, self._failure = now, ""
        if pod is None:
            self.tell(POD_GONE)
        elif pod["metadata"].get("deletionTimestamp"):
            self.tell(DELETING)
        else:
            self._judge_age(now, _unix(pod["metadata"].get("creationTimestamp") or ""))
        if lease is None:
            self.tell("the run's Lease is gone")
            return
        spec = lease.get("spec") or {}
        owner = (spec.get("holderIdentity"), spec.get("leaseTransitions"))
        self._owner = self._owner or owner
        if owner != self._owner:
            self.tell("the run was given back" if not owner[0] else "another process took the run over")
        renewed = spec.get("renewTime")
        self._alive = self._alive or (self._renewed is not None and renewed != self._renewed)
        self._stale = self._stale + gap if renewed == self._renewed else 0.0
        self._renewed = renewed
        duration = float(spec.get("leaseDurationSeconds") or 15)
        if self._stale > duration:
            self.tell(f"the run's Lease was not renewed for {duration:g} s: whoever runs it is gone")
