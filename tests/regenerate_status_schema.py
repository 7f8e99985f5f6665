"""Writes the schema of the status anew: ``python tests/regenerate_status_schema.py``."""

import json
from pathlib import Path

from seqd_client.status import Status

SCHEMA = Path(__file__).parents[1] / "docs" / "status.schema.json"

SCHEMA.write_text(json.dumps(Status.model_json_schema(), indent=2) + "\n", "utf-8")
