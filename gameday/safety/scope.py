"""The scope of a run, from its experiment and its plan: recorded with its ledger, it bounds every undo."""

from __future__ import annotations

from gameday.experiment.model import Experiment
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.scope import Scope
from gameday.platform.permission import Permission
from gameday.safety.plan import Plan


def scope_of(experiment: Experiment, plan: Plan) -> Scope:
    """The namespaces of the target and of what the faults need permissions in; the objects of no namespace.

    Programs on nodes run in a namespace of their own.
    """
    target = experiment.spec.target
    program = target.node_program.namespace if target.node_program else NAMESPACE
    namespaces, objects = {*target.namespaces, program}, set()
    for step in plan.steps.values():
        fault = step.fault
        for ref in [*(v.ref for v in fault.victims), *(e.ref for e in fault.effects)]:
            if ref.namespace:
                namespaces.add(ref.namespace)
            else:
                objects.add(f"{ref.kind}/{ref.name}")
        objects |= {f"Node/{v.node}" for v in fault.victims if v.node}
        namespaces |= {p.namespace for p in map(Permission.parse, fault.needs) if p.namespace}
    return Scope(frozenset(namespaces), frozenset(objects))
