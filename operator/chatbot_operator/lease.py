"""Which of several replicas may write: the rules of the lease, without clock, input or output.

The protocol is that of client-go (k8s.io/client-go/tools/leaderelection) on a Lease of
coordination.k8s.io/v1, with its usual 15, 10 and 2 seconds. Whether a holder has gone is judged
by how long its record has not changed on the observer's own monotonic clock; no two clocks are
ever compared. Stricter than client-go in three points:

- A renewal counts from the moment it was sent, and every write must be over before others may
  take the lease (`Candidate.write_left_s`).
- A missing Lease says nothing about who leads: whoever does not lead restores it with nobody as
  its holder and waits that record out like any other.
- `renewTime` always grows, whatever the wall clock does: a renewal is always a change.

All times named `now_s` and `sent_s` are seconds of the same monotonic clock of one process.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from chatbot_operator.kinds import Object, Ref, resource, uid_of

#: A record that has not changed for so long belongs to nobody.
DURATION_S: Final = 15.0
#: A leader that could not renew for so long begins no write any more and steps down.
RENEW_DEADLINE_S: Final = 10.0
#: A leader renews this often. Others look twice as often: a release is then taken within a second.
RENEW_EVERY_S: Final = 2.0
LOOK_EVERY_S: Final = 1.0
#: What a leader leaves unused at the end of its lease, for clocks that run at unlike speeds.
MARGIN_S: Final = 1.0
#: A leader restores a deleted Lease at its next renewal; the others let it go first.
MISSING_S: Final = 4.0
#: Holder of a restored Lease. Not empty: empty means released, free for anybody at once.
NOBODY: Final = "nobody"


class Decision(Enum):
    """What a process does about the lease now."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    RESTORE = "restore"
    WAIT = "wait"
    STEP_DOWN = "step down"


@dataclass(frozen=True, slots=True)
class Record:
    """Who holds which Lease; `renewed_at` is compared for equality only. Holder "" = released."""

    uid: str
    holder: str
    renewed_at: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One process: what it saw last and since when, and when its last renewal was sent.

    `renewed_s` None = it does not lead. `record` None = there is no Lease.
    """

    me: str
    record: Record | None = None
    unchanged_since_s: float = math.inf
    renewed_s: float | None = None

    @property
    def leads(self) -> bool:
        """Whether it leads; it may still be too late to write."""
        return self.renewed_s is not None

    def saw(self, record: Record | None, now_s: float) -> Candidate:
        """Return the candidate after a look that was answered now."""
        if record == self.record and math.isfinite(self.unchanged_since_s):
            return self
        return replace(self, record=record, unchanged_since_s=now_s)

    def renewed(self, record: Record, sent_s: float, now_s: float) -> Candidate:
        """Return the leader whose write of the Lease was sent then and accepted."""
        return replace(self, record=record, unchanged_since_s=now_s, renewed_s=sent_s)

    def stepped_down(self) -> Candidate:
        """Return the candidate that does not lead any more."""
        return replace(self, renewed_s=None)

    def write_left_s(self, now_s: float) -> float:
        """Return within how many seconds a write that begins now must be over; 0 = none may."""
        if self.renewed_s is None or now_s - self.renewed_s >= RENEW_DEADLINE_S:
            return 0.0
        return self.renewed_s + DURATION_S - MARGIN_S - now_s


def decide(candidate: Candidate, now_s: float) -> Decision:
    """Return what to do after a look, or before the next renewal. Pure."""
    if candidate.renewed_s is not None:
        taken = candidate.record is not None and candidate.record.holder != candidate.me
        late = now_s - candidate.renewed_s >= RENEW_DEADLINE_S
        return Decision.STEP_DOWN if taken or late else Decision.RENEW
    unchanged_s = now_s - candidate.unchanged_since_s
    if candidate.record is None:
        return Decision.RESTORE if unchanged_s >= MISSING_S else Decision.WAIT
    # Our own record after a step down: a write on its version succeeds only if nobody led since.
    free = candidate.record.holder in {"", candidate.me}
    return Decision.ACQUIRE if free or unchanged_s >= DURATION_S else Decision.WAIT


def record_of(live: Object) -> Record:
    """Return who holds a live Lease."""
    spec = live.get("spec") or {}
    holder, renewed_at = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
    return Record(uid_of(live), str(holder), str(renewed_at))


def missing(ref: Ref, holder: str = NOBODY) -> Object:
    """Return the Lease to create where there is none: by default nobody may take it at once."""
    return {
        "apiVersion": resource(ref.kind).api_version,
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": int(DURATION_S)},
    }


def held(live: Object, holder: str, wall_s: float, at_least: str) -> Object:
    """Return the Lease as `holder` writes it at a wall-clock time, in seconds since 1970.

    `at_least` is the last `renewTime` that the holder wrote; the new one is later than it and than
    the one in the Lease. People read it; no decision does.
    """
    spec = live.get("spec") or {}
    renewed_at = _after(wall_s, at_least, str(spec.get("renewTime") or ""))
    changed = {
        **spec,
        "holderIdentity": holder,
        "leaseDurationSeconds": int(DURATION_S),
        "renewTime": renewed_at,
    }
    if spec.get("holderIdentity") != holder:
        changed["acquireTime"] = renewed_at
        changed["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
    return {**live, "spec": changed}


def released(live: Object) -> Object:
    """Return the Lease without a holder: the next who looks may take it."""
    return {**live, "spec": {**(live.get("spec") or {}), "holderIdentity": ""}}


def _after(wall_s: float, *earlier: str) -> str:
    moment = datetime.fromtimestamp(wall_s, UTC)
    for text in filter(None, earlier):
        with contextlib.suppress(OverflowError):  # somebody wrote the last microsecond of 9999
            moment = max(moment, datetime.fromisoformat(text) + timedelta(microseconds=1))
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
