"""Creating a binding of a Role that was made a moment ago.

Unless its maker may `bind`, the API server holds a binding against the rules of its Role. A cache
has those, and knows a new Role a little later (k8s.io/kubernetes, pkg/registry/rbac/rolebinding/policybased).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.objects import Object

KNOWN_WITHIN = 5.0  # seconds


async def create(kube: Kube, manifest: Object) -> Object:
    """The object as it was stored; a binding is created again while its Role is not known.

    Raises PlatformError.
    """
    deadline = time.monotonic() + KNOWN_WITHIN
    while True:
        try:
            return await kube.create(manifest)
        except ApiError as error:
            unknown = error.status == 404 and manifest["kind"] in ("RoleBinding", "ClusterRoleBinding")
            if not unknown or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)
