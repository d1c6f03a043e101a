"""One pass over one ChatbotCluster. The screen to read first: observe -> plan -> execute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chatbot_operator.execute import Executor, Outcome
from chatbot_operator.facts import SecretKey
from chatbot_operator.feeders import SECRET_AWAITED_S, SECRET_CALM_S, STATUS_BUSY_S
from chatbot_operator.model import Observed, OperatorSettings, Plan
from chatbot_operator.observe import World, observe
from chatbot_operator.poller import Poller
from chatbot_operator.store import OwnerKey
from chatbot_operator.telemetry import Telemetry

#: A name that is taken, or a write that was refused, is tried again this often: nobody tells us
#: when the reason went away.
REFUSED_AGAIN_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What a pass needs; `plan(observed, now_s)` is the pure half."""

    world: World
    settings: OperatorSettings
    plan: Callable[[Observed, float], Plan]
    executor: Executor
    secret_polls: Poller[SecretKey]
    status_polls: Poller[OwnerKey]
    telemetry: Telemetry
    now_s: Callable[[], float]

    async def reconcile(self, key: OwnerKey) -> float | None:
        """Make one pass; return in how many seconds to come back. Raises Unavailable."""
        observed = observe(self.world, key, self.settings)
        if observed is None:
            self._forget(key)
            return None
        started_s = self.now_s()
        plan = self.plan(observed, started_s)
        self._ask_for(key, plan)
        outcome = await self.executor.execute(observed, plan)
        if outcome.owner_gone:
            return self._gone(key, observed)
        self._tell(observed, plan, outcome, self.now_s() - started_s)
        return _again_s(plan, outcome)

    def _ask_for(self, key: OwnerKey, plan: Plan) -> None:
        wanted = {(key, secret.name): secret for secret in plan.wanted_secrets}
        former = {(key, secret.name) for secret in self.world.secrets.wanted(key)}
        self.world.secrets.want(key, plan.wanted_secrets)
        self.secret_polls.drop(former - wanted.keys())
        for secret, how in wanted.items():
            calm_s = SECRET_AWAITED_S if how.awaited else SECRET_CALM_S
            self.secret_polls.want(secret, calm_s if self.world.secrets.fact(secret).known else 0)
        self.status_polls.want(key, STATUS_BUSY_S)

    def _gone(self, key: OwnerKey, observed: Observed) -> float | None:
        newer = self.world.owner(key)
        if newer is not None and newer.uid != observed.owner.uid:
            # Made anew while the pass ran, and the watch has told already: it will not again.
            return 0.0
        self._forget(key)
        return None

    def _forget(self, key: OwnerKey) -> None:
        self.secret_polls.drop((key, secret.name) for secret in self.world.secrets.wanted(key))
        if not self.world.forget(key):
            # A child of an object that another operator takes care of has changed.
            return
        self.status_polls.drop([key])
        self.telemetry.passes.labels("gone").inc()
        _log.info("object gone", extra={"namespace": key[0], "cluster": key[1]})

    def _tell(self, observed: Observed, plan: Plan, outcome: Outcome, took_s: float) -> None:
        refusals = (*plan.refusals, *outcome.refused.values())
        for refusal in refusals:
            self.telemetry.refusals.labels(refusal.name).inc()
        self.telemetry.passes.labels("changed" if outcome.changed else "quiet").inc()
        self.telemetry.pass_seconds.observe(took_s)
        _log.log(
            logging.INFO if outcome.changed else logging.DEBUG,
            "pass",
            extra={
                "namespace": observed.owner.namespace,
                "cluster": observed.owner.name,
                "generation": observed.owner.generation,
                "writes": outcome.done,
                "status_written": outcome.status_written,
                "held_by": sorted({refusal.name for refusal in refusals}),
                "took_ms": round(took_s * 1000),
            },
        )


def _again_s(plan: Plan, outcome: Outcome) -> float | None:
    if outcome.refusals_changed:
        # The status of this pass did not know yet what could not be done.
        return 0.0
    if outcome.refused:
        return min(REFUSED_AGAIN_S, plan.requeue_after_s or REFUSED_AGAIN_S)
    return plan.requeue_after_s
