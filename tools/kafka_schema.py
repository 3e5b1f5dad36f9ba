"""Prints docs/kafka.schema.json, the JSON Schema of what the Kafka sink writes.

python tools/kafka_schema.py > docs/kafka.schema.json
"""

from __future__ import annotations

import json
import sys

from tellmeter.sinks.kafka.message import schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
