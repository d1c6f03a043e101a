"""The last words: where the service is, how to come in, how to stop it. Pure."""

from __future__ import annotations

import json
import shlex

from firstrun.asking import Access
from firstrun.questions import Question
from firstrun.state import DEFAULT_NAME

JSONPATH = "jsonpath='{.data.password}'"


def text(access: Access, question: Question, name: str) -> str:
    """Return what a person can copy into a plain shell."""
    named = "" if name == DEFAULT_NAME else f"--name {name} "
    read_password = f"kubectl get secret quickstart-admin -o {JSONPATH} | base64 -d"
    credentials = f'{{\\"username\\":\\"{access.username}\\",\\"password\\":\\"$PASSWORD\\"}}'
    body = shlex.quote(json.dumps({"question": question.text, "stream": True}))
    read_token = "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"token\"])'"  # noqa: S105 - a command
    return f"""the cluster keeps running

API       {access.url}   (description: {access.url}/openapi.json)
kubectl   eval "$(hack/cluster {named}env)"
          kubectl get cbc -o wide
          kubectl wait --for=condition=Ready cbc/quickstart --timeout=300s
login     user {access.username}, password: {read_password}
ask       PASSWORD=$({read_password})
          TOKEN=$(curl -s {access.url}/api/auth/login -H 'Content-Type: application/json' \\
            -d "{credentials}" \\
            | {read_token})
          curl -sN {access.url}/api/chat -H "Authorization: Bearer $TOKEN" \\
            -H 'Content-Type: application/json' -d {body}
stop      hack/quickstart {named}--down"""
