"""What all tests rely on."""

import signal

# A run in the background starts with interruptions ignored, and so would every program that a test
# starts; the tests of interruptions need them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
