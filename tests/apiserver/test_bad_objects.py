"""Objects that people write by mistake are refused with the path, the value and what is allowed."""

from __future__ import annotations

import copy
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from chatbot_core import names
from localkube.testserver import LoopbackServer

ROOT = Path(__file__).resolve().parents[2]
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "bad_objects.yaml").read_text())
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples" / "questions.yaml"})
OBJECTS = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/default/{names.PLURAL}"
VALID: dict[str, Any] = {"inference": {"model": "smollm2:135m"}}


@pytest.fixture
def api(server: LoopbackServer) -> Iterator[httpx.Client]:
    """A client without rights missing; what it created is gone before an operator may see it."""
    context = ssl.create_default_context(cafile=server.certificates / "ca.crt")
    context.load_cert_chain(server.certificates / "admin.crt", server.certificates / "admin.key")
    with httpx.Client(base_url=server.url, verify=context, timeout=30) as client:
        yield client
        client.delete(OBJECTS).raise_for_status()


def _merged(base: Any, change: Any) -> Any:
    """Return `base` with `change` over it: objects merge, null removes, all else replaces."""
    if not isinstance(change, dict):
        return change
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _object(row: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    name = row.get("name", f"t-{row['id']}"[: names.NAME_MAX_LENGTH])
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": _merged(VALID, change),
    }


def _create(api: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    return api.post(OBJECTS, params={"fieldValidation": "Strict"}, json=body)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_a_bad_object_is_refused_by_name(api: httpx.Client, row: dict[str, Any]) -> None:
    answer = _create(api, _object(row, row.get("spec", {})))
    if "then" in row:
        answer.raise_for_status()
        stored = answer.json()
        edited = stored | {"spec": _object(row, row["then"])["spec"]}
        answer = api.put(f"{OBJECTS}/{stored['metadata']['name']}", json=edited)
    message = answer.json()["message"]
    missing = [text for text in [row["path"], *row["says"]] if text not in message]
    assert (answer.status_code in {400, 422}, missing) == (True, []), message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_an_example_is_accepted_and_not_healthy_before_anybody_looked(
    api: httpx.Client, path: Path
) -> None:
    bodies = [body for body in yaml.safe_load_all(path.read_text()) if body["kind"] == names.KIND]
    assert bodies
    for body in bodies:
        created = _create(api, body)
        status = created.json().get("status")
        assert (created.status_code, status) == (201, {"observedGeneration": -1}), created.text
