"""Spec -> RuntimeConfig, and the ConfigMap that carries it."""

from __future__ import annotations

from typing import Any, Final

from chatbot_core import names, quantity
from chatbot_core.names import Component, Role
from chatbot_core.runtime_config import (
    ApiBoot,
    Boot,
    EraseBoot,
    InferenceProxyBoot,
    Ingest,
    IngestBoot,
    Live,
    MigrateBoot,
    Retrieval,
    RuntimeConfig,
    S3Store,
    SelfTest,
    acknowledged_hash,
    digest,
)
from chatbot_core.runtime_config import Inference as LiveInference
from chatbot_core.v1alpha1 import ChatbotClusterSpec
from chatbot_core.v1alpha1.inference import Endpoint, Inference, ManagedInference
from chatbot_core.v1alpha1.storage import Store
from chatbot_operator.desired import context, secrets, stated
from chatbot_operator.desired.context import Context
from chatbot_operator.model import Json

BUCKET: Final = "documents"
#: Roles whose processes report what they run; the others end by themselves.
LASTING_ROLES: Final = (Role.API, Role.SHARD, Role.INGEST, Role.INFERENCE_PROXY)


def boot(namespace: str, cluster: str, spec: ChatbotClusterSpec) -> Boot:
    """Return what processes read at start only."""
    stores = tuple(_store(namespace, cluster, spec, one) for one in spec.documents.stores)
    inference = spec.inference
    return Boot(
        api=ApiBoot(stores=stores, drain_s=inference.drain_seconds),
        ingest=IngestBoot(stores=stores),
        inference_proxy=_proxy_boot(inference),
        migrate=MigrateBoot(shards=spec.retrieval.shards),
        erase=_erase(namespace, cluster, spec),
        endpoints=tuple(endpoint_boot(inference, one) for one in inference.endpoints),
    )


def _erase(namespace: str, cluster: str, spec: ChatbotClusterSpec) -> EraseBoot:
    """Return what the end of the object erases: nothing unless the policy says so."""
    if spec.deletion_policy != "Delete":
        return EraseBoot()
    buckets = [one for one in spec.documents.stores if one.s3 is not None]
    return EraseBoot(
        stores=tuple(_store(namespace, cluster, spec, one) for one in buckets),
        database=spec.database.external is not None,
    )


def _proxy_boot(inference: Inference) -> InferenceProxyBoot:
    """Return what a proxy beside an Ollama of ours starts with.

    Pods of it may stand beside external endpoints while one takes the other's place, and start
    again meanwhile.
    """
    ollama = inference.ollama or ManagedInference()
    return InferenceProxyBoot(
        model=inference.model,
        pull=ollama.source == "Pull",
        parallel_requests=ollama.parallel_requests,
        context_tokens=ollama.context_tokens,
        keep_loaded=ollama.idle == "Keep",
        drain_s=inference.drain_seconds,
    )


def endpoint_boot(inference: Inference, endpoint: Endpoint) -> InferenceProxyBoot:
    """Return what the proxy before an external endpoint starts with."""
    return InferenceProxyBoot(
        endpoint=endpoint.name,
        ollama_url=endpoint.url,
        model=inference.model,
        parallel_requests=endpoint.parallel_requests,
        context_tokens=inference.context_tokens,
        drain_s=inference.drain_seconds,
    )


def _store(namespace: str, cluster: str, spec: ChatbotClusterSpec, store: Store) -> S3Store:
    folder = secrets.store_folder(spec.documents, store.name)
    if store.s3 is None:
        host = f"{names.store(cluster, store.name)}.{namespace}.svc"
        return S3Store(
            name=store.name,
            bucket=BUCKET,
            endpoint=f"http://{host}:{names.PORT_STORE}",
            path_style=True,
            create_bucket=True,
            folder=folder,
        )
    s3 = store.s3
    return S3Store(
        name=store.name,
        bucket=s3.bucket,
        endpoint=s3.endpoint or "",
        region=s3.region,
        prefix=s3.prefix,
        path_style=s3.path_style,
        server_side_encryption=s3.server_side_encryption or "",
        folder=folder,
    )


def live(spec: ChatbotClusterSpec, wanted: str) -> Live:
    """Return what every process re-reads while it runs; `wanted` names the self-test."""
    options = spec.inference.options
    return Live(
        ingest=Ingest(
            chunk_size_characters=spec.ingest.chunk_size_characters,
            chunk_overlap_characters=spec.ingest.chunk_overlap_characters,
            max_parallel_chunks=spec.ingest.max_parallel_chunks,
            max_document_size_bytes=quantity.to_bytes(spec.ingest.max_document_size),
        ),
        retrieval=Retrieval(
            shards=spec.retrieval.shards,
            replicas_per_shard=spec.retrieval.replicas_per_shard,
            min_coverage_percent=spec.retrieval.min_coverage_percent,
            min_passages=spec.retrieval.min_passages,
            max_passages=spec.retrieval.max_passages,
        ),
        inference=LiveInference(
            model=spec.inference.model,
            max_waiting=spec.inference.queue.max_waiting,
            max_wait_s=spec.inference.queue.max_wait_seconds,
            max_answer_s=spec.inference.max_answer_seconds,
            max_output_tokens=options.max_output_tokens,
            temperature_percent=options.temperature_percent,
            seed=options.seed,
            context_tokens=spec.inference.context_tokens,
        ),
        answer_mode=spec.answer.mode,
        self_test=SelfTest(wanted=wanted),
    )


def wanted_self_test(spec: ChatbotClusterSpec, templates: dict[str, Any]) -> str:
    """Return the digest of the pod templates and the model, "" where no test is wanted."""
    if spec.self_test == "Disabled":
        return ""
    hashes = {name: digest(template) for name, template in templates.items()}
    return digest({"templates": hashes, "model": spec.inference.model})


def document(ctx: Context, wanted: str) -> RuntimeConfig:
    """Return the whole document as the runtime reads it."""
    return RuntimeConfig(
        cluster=ctx.cluster,
        namespace=ctx.namespace,
        runtime_version=ctx.choice.version,
        boot=ctx.boot,
        live=live(ctx.spec, wanted),
    )


def acknowledgements(config: RuntimeConfig) -> dict[str, str]:
    """Return the hash that every process reports once it runs this document, by `told_as`.

    With external endpoints nobody has to report as a proxy beside an Ollama of ours.
    """
    boot, live, proxy = config.boot, config.live, Role.INFERENCE_PROXY
    hashes = {role.value: acknowledged_hash(boot, role, live) for role in LASTING_ROLES}
    for one in boot.endpoints:
        hashes.pop(proxy.value, None)
        own = acknowledged_hash(boot.of_endpoint(one.endpoint), proxy, live)
        hashes[told_as(proxy, one.endpoint)] = own
    return hashes


def told_as(role: str, endpoint: str) -> str:
    """Return what a process is expected as: its role, and the endpoint that it stands before."""
    return f"{role} {endpoint}" if endpoint else str(role)


def config_map(ctx: Context, config: RuntimeConfig) -> Json:
    """Return the ConfigMap: the document, and the choice that outlives the operator's version."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": context.owned(ctx, names.config_map(ctx.cluster), Component.CONFIG),
        "data": {
            names.CONFIG_KEY: config.to_json(),
            names.CHOICE_KEY: ctx.choice.to_json(),
        },
    }


def service_account(ctx: Context) -> Json:
    """Return the identity of every pod, without rights or token, and a copy of the choice."""
    metadata = context.owned(ctx, names.service_account(ctx.cluster), Component.CONFIG)
    annotations = {
        **stated.service_account_annotations(ctx.spec),
        names.ANNOTATION_CHOICE: ctx.choice.to_json(),
    }
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {**metadata, "annotations": annotations},
        "automountServiceAccountToken": False,
    }
