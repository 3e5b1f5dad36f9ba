"""`tellmeter rules`: the rules that a Prometheus needs for the guides' queries, dashboards and alerts."""

from __future__ import annotations

import sys
from typing import Any

from .. import __version__
from ..serve.rules import Limits, rule_groups
from ..serve.rules_text import rules_text


def rules(*, alerts: bool = True, **limits: Any) -> int:
    """Print the rules with these limits (fields of `Limits`); what is None is left at its default."""
    chosen = Limits(**{name: value for name, value in limits.items() if value is not None})
    heading = f"Rules of tellmeter {__version__}, for rule_files in prometheus.yml. Made by `tellmeter rules`."
    sys.stdout.write(rules_text(rule_groups(chosen, with_alerts=alerts), heading=heading))
    return 0
