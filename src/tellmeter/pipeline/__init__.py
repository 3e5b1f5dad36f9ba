"""CARRY: from the moment a call ended to the sinks, bounded and accounted for.

router (hand-off) -> select (filters, sampling) -> lane (one a sink) -> Outcome, and the ledger that adds it all up.
"""
