"""What all tests share: how hard Hypothesis tries."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Fixed seeds by default, so that a red run is a change of ours and not luck; `make fuzz` looks for new examples.
settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=["epoll", "portable"])
def either_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs on the engine of Linux, and on that for every system."""
    if request.param == "portable":
        monkeypatch.setattr("trioproxy.relay.engines.HAS_EPOLL", False)
    return str(request.param)
