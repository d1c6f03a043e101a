"""The closed enums of condition types and reasons; schema, code, docs and tests read them here."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    """The types of `status.conditions`."""

    READY = "Ready"
    SPEC_VALID = "SpecValid"
    STORAGE_READY = "StorageReady"
    DATABASE_READY = "DatabaseReady"
    RETRIEVAL_READY = "RetrievalReady"
    INFERENCE_READY = "InferenceReady"
    API_READY = "APIReady"
    SELF_TEST_PASSED = "SelfTestPassed"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SCALING_CONTESTED = "ScalingContested"


#: Present only while True (kstatus): their absence means False.
ONLY_WHILE_TRUE: Final = frozenset(
    {ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.SCALING_CONTESTED}
)


class Reason(StrEnum):
    """Why a condition has its status. `SENTENCES` holds what each means and what to do."""

    AVAILABLE = "Available"
    VALID = "Valid"
    SPEC_INVALID = "SpecInvalid"
    ROLLING_OUT = "RollingOut"
    WAITING_FOR_PODS = "WaitingForPods"
    WAITING_FOR_VOLUME = "WaitingForVolume"
    WAITING_FOR_SECRET = "WaitingForSecret"  # noqa: S105 - a reason, not a password
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105 - a reason, not a password
    WAITING_FOR_DATABASE = "WaitingForDatabase"
    WAITING_FOR_MIGRATION = "WaitingForMigration"
    MIGRATION_FAILED = "MigrationFailed"
    WAITING_FOR_MODEL = "WaitingForModel"
    WAITING_FOR_ENDPOINT = "WaitingForEndpoint"
    WAITING_FOR_CONFIG = "WaitingForConfig"
    WAITING_FOR_SELF_TEST = "WaitingForSelfTest"
    SELF_TEST_PASSED = "SelfTestPassed"
    SELF_TEST_FAILED = "SelfTestFailed"
    SELF_TEST_DISABLED = "SelfTestDisabled"
    IMAGE_NOT_PULLABLE = "ImageNotPullable"
    POD_CRASHING = "PodCrashing"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    PODS_REFUSED = "PodsRefused"
    FOREIGN_OBJECT = "ForeignObject"
    WAITING_FOR_CLEANUP = "WaitingForCleanup"
    VERSION_STEP_TOO_LARGE = "VersionStepTooLarge"
    DATA_NEWER_THAN_VERSION = "DataNewerThanVersion"
    NO_ROOM_FOR_SURGE = "NoRoomForSurge"
    WAITING_FOR_SLOTS = "WaitingForSlots"
    VOLUME_CANNOT_GROW = "VolumeCannotGrow"
    VOLUME_CANNOT_SHRINK = "VolumeCannotShrink"
    STORE_HOLDS_DOCUMENTS = "StoreHoldsDocuments"
    WRITE_REFUSED = "WriteRefused"
    AUTOSCALER_FOUND = "AutoscalerFound"
    DRAINING = "Draining"
    ERASING = "Erasing"
    ERASE_FAILED = "EraseFailed"
    ERASE_OVERDUE = "EraseOverdue"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    STATUS_UNKNOWN = "StatusUnknown"
    SUSPENDED = "Suspended"


SENTENCES: Final[dict[Reason, str]] = {
    Reason.AVAILABLE: "Everything this condition speaks of is there and answers.",
    Reason.VALID: "The object's spec holds no contradiction.",
    Reason.SPEC_INVALID: "The spec contradicts itself; the message names the field.",
    Reason.ROLLING_OUT: "New pod templates are being rolled out.",
    Reason.WAITING_FOR_PODS: "Pods of this tier are not ready yet.",
    Reason.WAITING_FOR_VOLUME: "A claim is not bound yet; check its storage class.",
    Reason.WAITING_FOR_SECRET: "A Secret the spec names does not exist; create it.",
    Reason.SECRET_KEY_MISSING: "A Secret the spec names lacks a key, or the key is empty.",
    Reason.WAITING_FOR_DATABASE: "The database does not answer yet.",
    Reason.WAITING_FOR_MIGRATION: "The migration Job has not completed yet.",
    Reason.MIGRATION_FAILED: "The migration Job failed; read its log.",
    Reason.WAITING_FOR_MODEL: "The model is not loaded in every inference pod yet.",
    Reason.WAITING_FOR_ENDPOINT: "An external endpoint gives no answer or lacks the model.",
    Reason.WAITING_FOR_CONFIG: "Not every process runs the current configuration yet.",
    Reason.WAITING_FOR_SELF_TEST: "The self-test of this combination has not passed yet.",
    Reason.SELF_TEST_PASSED: "A question about built-in documents was answered and cited.",
    Reason.SELF_TEST_FAILED: "The self-test failed three times in a row; the message says where.",
    Reason.SELF_TEST_DISABLED: "spec.selfTest is Disabled; nobody asked a question.",
    Reason.IMAGE_NOT_PULLABLE: "A pod's image cannot be pulled; check name and credentials.",
    Reason.POD_CRASHING: "A container ends again and again; read its log.",
    Reason.POD_UNSCHEDULABLE: "No node has room for a pod; the message says what lacks.",
    Reason.PODS_REFUSED: "The API server lets no more pods be made; the message quotes it.",
    Reason.FOREIGN_OBJECT: "A child's name is taken by an object that is not ours; remove it.",
    Reason.WAITING_FOR_CLEANUP: "Children of a deleted object of this name are being removed.",
    Reason.VERSION_STEP_TOO_LARGE: "spec.version skips a minor release; go there one by one.",
    Reason.DATA_NEWER_THAN_VERSION: "A newer release wrote the data; spec.version cannot read it.",
    Reason.NO_ROOM_FOR_SURGE: "No node has room for one more pod of a roll-out; nothing was ended.",
    Reason.WAITING_FOR_SLOTS: "A shard that is to go still owns slots; it goes when they moved.",
    Reason.VOLUME_CANNOT_GROW: "A claim did not grow; its storage class must allow it.",
    Reason.VOLUME_CANNOT_SHRINK: "A claim is larger than the spec says; state its size or more.",
    Reason.STORE_HOLDS_DOCUMENTS: "A store was taken off the spec with documents in it; list it.",
    Reason.WRITE_REFUSED: "The API server refused a write; the message quotes it.",
    Reason.AUTOSCALER_FOUND: "Somebody else scales a child; the message names who. Delete that.",
    Reason.DRAINING: "The object is being deleted; what writes ends before anything is erased.",
    Reason.ERASING: "The object is being deleted; what it left outside is being erased.",
    Reason.ERASE_FAILED: "The erase Job failed; the message names why and what is left.",
    Reason.ERASE_OVERDUE: "Nothing was erased in time; the message names what is left.",
    Reason.NAMESPACE_TERMINATING: "The namespace is being deleted; nothing can be made in it.",
    Reason.SUSPENDED: "spec.suspend is true: nothing but the status is written until it is false.",
    Reason.STATUS_UNKNOWN: "The runtime could not be asked; the last known state stands.",
}

#: Reasons that time alone does not cure: they make `Stalled` true (kstatus Failed).
STALLING: Final = frozenset(
    {
        Reason.SPEC_INVALID,
        Reason.SECRET_KEY_MISSING,
        Reason.MIGRATION_FAILED,
        Reason.SELF_TEST_FAILED,
        Reason.IMAGE_NOT_PULLABLE,
        Reason.POD_CRASHING,
        Reason.POD_UNSCHEDULABLE,
        Reason.PODS_REFUSED,
        Reason.FOREIGN_OBJECT,
        Reason.VERSION_STEP_TOO_LARGE,
        Reason.DATA_NEWER_THAN_VERSION,
        Reason.NO_ROOM_FOR_SURGE,
        Reason.VOLUME_CANNOT_GROW,
        Reason.VOLUME_CANNOT_SHRINK,
        Reason.STORE_HOLDS_DOCUMENTS,
        Reason.WRITE_REFUSED,
        Reason.ERASE_FAILED,
        Reason.ERASE_OVERDUE,
        Reason.NAMESPACE_TERMINATING,
        Reason.SUSPENDED,
    }
)
