"""One thin file a command: compose, check, build, call."""
