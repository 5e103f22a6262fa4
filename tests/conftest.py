"""What all tests rely on."""

import signal

import pytest

from sim.runner import workspace

# A run in the background starts with interruptions ignored, and so would every program that a test
# starts; the tests of interruptions need them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared():
    """Workspace of simulations; Verilator compiles its run-time files in the first one."""
    with workspace() as folder:
        yield folder
