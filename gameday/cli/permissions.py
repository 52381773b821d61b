"""`gameday rbac`: the Roles that an experiment needs, as YAML for kubectl."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.options import (
    REFUSED,
    Context,
    File,
    Kubeconfig,
    ReachPrometheus,
    Set,
    Slurm,
    Values,
    asks_prometheus,
    fail,
    plainly,
    read,
)
from gameday.platform import shield

if TYPE_CHECKING:
    from gameday.experiment.loader import Loaded
    from gameday.platform.kube import Kube
    from gameday.platform.objects import Object, Ref
    from gameday.run.session import Options


@asks_prometheus
def rbac(
    file: File,
    sets: Set = None,
    values: Values = None,
    account: Annotated[
        str, typer.Option(help="Whom the Roles are for: NAMESPACE/NAME of a ServiceAccount.")
    ] = "gameday/gameday",
    seed: Annotated[int | None, typer.Option(help="Choose the targets as the run with this seed.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: ReachPrometheus = None,
    slurmrestd: Slurm = None,
) -> None:
    """Print the Roles and bindings that an experiment needs, for `kubectl apply -f -`, and no more.

    The namespaces of gameday and of the account, and the account, come first where they are not there yet.
    The names of objects are in them, so that a run with another seed may need others: plan both with --seed.
    """
    import yaml

    from gameday.experiment.names import dns_label, dns_subdomain
    from gameday.run.session import Options
    from gameday.safety.rbac import UNNAMED

    namespace, _, name = account.partition("/")
    try:
        dns_label(namespace)
        dns_subdomain(name)
    except ValueError as error:
        fail(f"--account {account}: expected NAMESPACE/NAME; {error}", 2)
    with plainly():
        loaded = read(file, sets, values)
        options = Options(kubeconfig, context, prometheus, seed, Path("reports"), None, slurmrestd)
        made = shield.run(_rbac(loaded, options, (namespace, name)))
    print(f"{UNNAMED}{yaml.safe_dump_all(made, sort_keys=False)}", end="")


async def _rbac(loaded: Loaded, options: Options, account: tuple[str, str]) -> list[Object]:
    from gameday.cli.patience import asking
    from gameday.run.session import connected, other_reads, planned
    from gameday.safety import targets
    from gameday.safety.preflight import PERMISSIONS, refusals
    from gameday.safety.rbac import manifests, needed

    async with connected(loaded, options) as world:
        with asking(world.kube), world.kube.listening() as heard:
            plan, findings = await planned(loaded, world)
            heard |= await other_reads(loaded.experiment, plan, world)
        # Missing permissions are what this command is about; anything else makes the list untrue.
        refused = [f for f in refusals(findings) if f.check not in (PERMISSIONS, targets.CHECK)]
        for finding in refused:
            print(f"gameday: {finding.check}: {finding.message}", file=sys.stderr)
        if refused:
            raise typer.Exit(REFUSED)
        made = manifests(needed(plan, heard), f"gameday-{loaded.experiment.metadata.name}", account)
        return [*await _not_there(world.kube, account), *made]


async def _not_there(kube: Kube, account: tuple[str, str]) -> list[Object]:
    """The namespaces and the account that the Roles name, of those that do not exist yet.

    An object that may not be read is taken to exist.
    """
    from gameday.ledger.keeping import NAMESPACE
    from gameday.platform.objects import Ref

    wanted = [Ref("v1", "Namespace", name) for name in dict.fromkeys((NAMESPACE, account[0]))]
    wanted.append(Ref("v1", "ServiceAccount", account[1], account[0]))
    blind: list[Ref] = []
    found = await asyncio.gather(*(kube.find_readable(ref, blind) for ref in wanted))
    return [
        {"apiVersion": r.api_version, "kind": r.kind, "metadata": _metadata(r)}
        for r, there in zip(wanted, found, strict=True)
        if there is None and r not in blind
    ]


def _metadata(ref: Ref) -> Object:
    return {"name": ref.name} | ({"namespace": ref.namespace} if ref.namespace else {})
