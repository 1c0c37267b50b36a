"""The policy pack's entry point: `pulumi preview --policy-pack policies` runs this file."""

import sys
from pathlib import Path
from typing import Any

from pulumi_policy import PolicyPack

# The engine puts this folder on the path; the package is imported by its own name, as the tests do.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policies import limits, rules, signatures, stated

RULES: list[rules.Rule[Any]] = [limits.RULE, signatures.RULE]

try:
    stated.check_files(RULES)
except stated.ConfigError as error:
    sys.exit(str(error))

PolicyPack(name="edge-inference", policies=[rules.to_policy(rule) for rule in RULES])
