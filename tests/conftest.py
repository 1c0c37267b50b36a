"""What all tests share."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code: time is for the benchmarks.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what was left out, and why."""
    if config.option.markexpr == "not slow":
        terminalreporter.write_line("tests marked slow left out, many hosts and many minutes: make test-slow")
