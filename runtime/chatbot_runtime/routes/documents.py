"""Documents: upload, list, content, progress, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from chatbot_core.errors import ChatbotError
from chatbot_core.retry import Deadline
from chatbot_runtime.domain.model import Document, DocumentState
from chatbot_runtime.routes import problems, sse
from chatbot_runtime.routes.bodies import Upload
from chatbot_runtime.routes.context import CallerDependency, Services

router = APIRouter(prefix="/api/documents")

#: A progress stream ends after this long; the client asks again.
_PROGRESS_S: Final = 600.0
_UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


class DocumentShown(BaseModel):
    """A document; `createdAt` in Unix seconds, `error` says why it failed."""

    id: str
    name: str
    mediaType: str  # noqa: N815 - JSON's own case
    sizeBytes: int  # noqa: N815 - JSON's own case
    state: DocumentState
    error: str
    chunks: int
    createdAt: float  # noqa: N815 - JSON's own case


class Accepted(BaseModel):
    """An upload; the same bytes in a workspace are the same document (then status 200)."""

    id: str
    state: DocumentState
    statusURL: str  # noqa: N815 - JSON's own case
    consistency: str = ""


class Deleted(BaseModel):
    """A deletion, in force for every question asked from now on."""

    id: str
    consistency: str = ""


class DocumentList(BaseModel):
    """A page, newest first; an empty cursor ends the list."""

    items: list[DocumentShown]
    cursor: str


@router.post("", status_code=202, openapi_extra=_UPLOAD_BODY)
async def upload(
    request: Request,
    response: Response,
    caller: CallerDependency,
    services: Services,
    name: Annotated[str, Query(max_length=255)] = "",
    idempotency_key: Annotated[str, Header(max_length=255, pattern="^[ -~]*$")] = "",
) -> Accepted:
    """Upload a text, Markdown or PDF file as a raw body with ?name=, or as multipart.

    The same bytes in a workspace are the same document (200); one that failed is tried again.
    Under an `Idempotency-Key` other bytes are refused for a day (422), and a repetition does not
    bring back what was deleted in between (404).
    """
    limit = services.live().ingest.max_document_size_bytes
    received = await Upload.of(request, name, limit)
    document, created = await services.documents.upload(
        caller.workspace, received.name, received.content, upload_key=idempotency_key
    )
    response.status_code = 202 if created else 200
    url = f"/api/documents/{document.doc_id}"
    response.headers["Location"] = url
    return Accepted(id=document.doc_id, state=document.state, statusURL=url)


@router.get("")
async def list_documents(
    caller: CallerDependency,
    services: Services,
    cursor: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    q: Annotated[str, Query(max_length=200)] = "",
    state: DocumentState | None = None,
) -> DocumentList:
    """List the workspace's documents; `q` matches names."""
    page = await services.documents.page(caller.workspace, cursor, limit, q, state)
    return DocumentList(items=[_shown(document) for document in page.items], cursor=page.cursor)


@router.get("/{doc_id}")
async def get_document(doc_id: str, caller: CallerDependency, services: Services) -> DocumentShown:
    """Return one document; Searchable means that questions find it."""
    return _shown(await services.documents.get(caller.workspace, doc_id))


@router.delete("/{doc_id}")
async def delete_document(doc_id: str, caller: CallerDependency, services: Services) -> Deleted:
    """Delete a document, its passages and its bytes."""
    await services.documents.delete(caller.workspace, doc_id)
    return Deleted(id=doc_id)


@router.get("/{doc_id}/content", response_class=StreamingResponse)
async def content(doc_id: str, caller: CallerDependency, services: Services) -> StreamingResponse:
    """Return the original bytes."""
    document, blocks = await services.documents.content(caller.workspace, doc_id)
    headers = {
        "Content-Length": str(document.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(document.name, safe='')}",
        # A stranger's file must never run as a page of this service.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(blocks, media_type=document.media_type, headers=headers)


@router.get("/{doc_id}/events", response_class=StreamingResponse)
async def events(
    doc_id: str, request: Request, caller: CallerDependency, services: Services
) -> StreamingResponse:
    """Stream `state` events until the document is Searchable or Failed."""
    await services.documents.get(caller.workspace, doc_id)
    deadline = Deadline.after(services.clock.monotonic_s(), _PROGRESS_S)

    async def wire() -> AsyncIterator[bytes]:
        try:
            async for document in services.documents.progress(caller.workspace, doc_id, deadline):
                yield sse.event("state", _shown(document).model_dump(mode="json"))
        except ChatbotError as error:
            yield sse.event("error", problems.problem(error))

    return sse.stream(wire())


def _shown(document: Document) -> DocumentShown:
    return DocumentShown(
        id=document.doc_id,
        name=document.name,
        mediaType=document.media_type,
        sizeBytes=document.size_bytes,
        state=document.state,
        error=document.error,
        chunks=document.chunks,
        createdAt=document.created_at_s,
    )
