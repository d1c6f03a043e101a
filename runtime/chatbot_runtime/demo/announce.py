"""Where the running demo is: for people on standard output, for programs in `demo.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from chatbot_runtime.demo import plan
from chatbot_runtime.demo.plan import Folders, Ports

_TEXT: Final = """
Embedded, no Kubernetes: ready after {took_s:.1f} s.
  URL       {url}
  login     {user}, password in {password_file}
  answers   {answers}
  log in    TOKEN=$(curl -s {url}/api/auth/login --json "{login}" | cut -d'"' -f4)
  upload    curl {url}/api/documents -H "Authorization: Bearer $TOKEN" -F file=@FILE
  ask       curl -N {url}/api/chat -H "Authorization: Bearer $TOKEN" --json '{question}'
  stop      Ctrl-C
"""


def announce(folders: Folders, ports: Ports, model: Path | None, took_s: float) -> None:
    """Write both; `took_s` is the time from the command to ready."""
    url = f"http://127.0.0.1:{ports.public}"
    name = plan.model_name(model) if model else ""
    stated = {
        "url": url,
        "internalUrl": f"http://127.0.0.1:{ports.internal}",
        "username": plan.ADMIN,
        "passwordFile": str(folders.admin_password),
        "model": name,
        "readyAfterSeconds": round(took_s, 1),
    }
    folders.announcement.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    login = json.dumps({"username": plan.ADMIN, "password": f"$(cat {folders.admin_password})"})
    sys.stdout.write(
        _TEXT.format(
            took_s=took_s,
            url=url,
            user=plan.ADMIN,
            password_file=folders.admin_password,
            answers=f"{name}, an embedded model" if name else "extracts: no model was given",
            login=login.replace('"', '\\"'),
            question='{"question": "..."}',
        )
    )
    sys.stdout.flush()
