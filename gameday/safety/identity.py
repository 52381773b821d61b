"""A run's own identity: a ServiceAccount with the Roles that the run needs, and a short-lived token.

Whoever starts the run makes it, through the ledger, and it is gone when the run ends; what it may do is what
`gameday rbac` prints. The API server lets nobody give rights that they do not hold themselves. What is left
when the run dies is undone as any other change is, by whoever recovers it.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterable, Sequence

from gameday.events import Emit, Preflight, Warn
from gameday.experiment.model import Experiment
from gameday.ledger.keeping import NAMESPACE, name_of
from gameday.ledger.ledger import IDENTITY, Ledger
from gameday.ledger.operations import Create
from gameday.platform import answers
from gameday.platform.apiserver import ApiServer
from gameday.platform.bearer import BearerToken, with_token
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Resource
from gameday.platform.permission import Permission, missing
from gameday.safety.plan import Plan
from gameday.safety.rbac import manifests

ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")
CHECK = "identity"
LIFETIME = 900  # seconds of one token; the API server gives none for less than 600
RENEW_AT = 0.5  # of its lifetime
RENEW_AGAIN = 15.0  # seconds after a renewal that failed
SEEN_WITHIN = 15.0  # seconds until the API server's authorizer knows new Roles


class RunIdentity:
    """The identity of one run. `refs` are the objects that it consists of."""

    def __init__(self, kube: Kube, run: str, permissions: Iterable[Permission]) -> None:
        self._kube, self._run = kube, run
        self._caller = copy.copy(kube)  # goes on being ourselves
        self._permissions = list(permissions)
        self._lifetime = float(LIFETIME)
        self._acting: ApiServer | None = None
        self._token: BearerToken | None = None
        name = name_of(run)
        meta = {"name": name, "namespace": NAMESPACE}
        account: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        made = [account, *manifests(self._permissions, name, (NAMESPACE, name))]
        self._creates = [Create.of(manifest, run) for manifest in made]
        self.refs = frozenset(create.ref for create in self._creates)

    @property
    def user(self) -> str:
        """The name that the API server gives it."""
        return f"system:serviceaccount:{NAMESPACE}:{name_of(self._run)}"

    async def assume(self, ledger: Ledger, emit: Emit) -> None:
        """Make it, and be it. Raises PlatformError, Refused or OSError; the ledger undoes what was made."""
        entries = await ledger.intend(IDENTITY, self._creates)
        await asyncio.gather(*map(ledger.make, entries))
        self._acting, self._token = await with_token(self._caller, self._request)
        self._kube.act_as(self._acting)
        await self._until_allowed()
        text = f"from here on everything is done as {self.user}, with {len(self._permissions)} permissions"
        emit(Preflight(check=CHECK, level="ok", message=text))

    async def keep(self, emit: Emit, at: float = RENEW_AT) -> None:
        """Renew the token `at` this share of its lifetime, for as long as it is needed."""
        assert self._token is not None
        while True:
            await asyncio.sleep(self._lifetime * at)
            ends = time.monotonic() + self._lifetime * (1 - at)
            while True:
                try:
                    await self._token.renew(self._token.mark)
                    break
                except PlatformError as error:
                    left = ends - time.monotonic()
                    emit(Warn(source=CHECK, message=f"its token ends in {left:.0f} s, not renewed: {error}"))
                    await asyncio.sleep(RENEW_AGAIN)

    def drop(self) -> None:
        """Be ourselves again, so that it can be removed."""
        self._kube.act_as(None)

    async def close(self) -> None:
        """Close its connections, once nobody uses them any more."""
        self.drop()
        if self._acting is not None:
            await self._acting.close()

    async def _request(self) -> str:
        """A token by TokenRequest (k8s.io/api/authentication/v1): for as long as the server likes."""
        name = name_of(self._run)
        body: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        path = ACCOUNTS.path(NAMESPACE, name, "token")
        what = f"token of ServiceAccount {NAMESPACE}/{name}"
        body |= {"spec": {"expirationSeconds": LIFETIME}}
        answer = await self._caller.ask("POST", path, verb="create", what=what, body=body)
        seconds = answers.part(answer, "spec", what).get("expirationSeconds")
        self._lifetime = float(seconds) if isinstance(seconds, int) else float(LIFETIME)
        return answers.text(answer, "status.token", what)

    async def _until_allowed(self) -> None:
        """Wait until the API server allows it what its Roles say. Raises PlatformError."""
        deadline = time.monotonic() + SEEN_WITHIN
        left: Sequence[Permission] = self._permissions
        while left := await missing(self._kube, left):
            if time.monotonic() > deadline:
                raise PlatformError(f"{self.user} is not allowed to {left[0].words}, though its Roles say so")
            await asyncio.sleep(0.1)


def unfit(experiment: Experiment, plan: Plan) -> list[Preflight]:
    """Why the run can't have an identity of its own, if it can't."""
    spec = experiment.spec
    asking = [f"step {s.path}" for s in plan.steps.values() if s.kind == "chaostoolkit"]
    asking += [f"“{c.name}”" for c in (*spec.steady_state, *spec.abort_if) if c.kind == "chaostoolkit"]
    if not asking:
        return []
    text = f"{', '.join(asking)} asks the cluster by itself, with credentials and for permissions of its own"
    return [Preflight(check=CHECK, level="refused", message=text, hint="run it without --as-run-identity")]
