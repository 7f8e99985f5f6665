"""Writes the schema of the status anew: ``python tests/regenerate_status_schema.py``."""

import json

from seqd_client.status import Status

from tests.support.places import DOCS

SCHEMA = DOCS / "reference" / "status.schema.json"

SCHEMA.write_text(json.dumps(Status.model_json_schema(), indent=2) + "\n", "utf-8")
