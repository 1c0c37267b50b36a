"""All rules of the pack."""

from policies import availability, hosts, limits, naming, security, signatures, workloads
from policies.rules import AnyRule

RULES: list[AnyRule] = [
    limits.RULE,
    *naming.RULES,
    signatures.RULE,
    *workloads.RULES,
    *security.RULES,
    availability.RULE,
    *hosts.RULES,
]
