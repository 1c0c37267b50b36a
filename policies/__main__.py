"""The policy pack's entry point: `pulumi preview --policy-pack policies` runs this file."""

import sys
from pathlib import Path

from pulumi_policy import PolicyPack

# The engine puts this folder on the path; the package is imported by its own name, as the tests do.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policies import config
from policies.catalog import RULES
from policies.pack import to_policy

try:
    config.check_files(RULES)
    policies = [to_policy(rule) for rule in RULES]
except config.ConfigError as error:
    sys.exit(str(error))

PolicyPack(name="edge-inference", policies=policies)
