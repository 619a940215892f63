"""Where `make test` asks for scikit-learn's array API checks, a skip of one is a failure."""

import os
import re

import pytest

# Libraries and devices that a machine may well lack.
ELSEWHERE = re.compile("cupy|dpnp|cuda|xpu|mps")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    asked = os.environ.get("SCIPY_ARRAY_API") == "1" and "check_array_api" in item.name
    if report.skipped and asked and not ELSEWHERE.search(item.name):
        report.outcome = "failed"
        report.longrepr = f"An array API check was skipped: {call.excinfo.value}"
    return report
