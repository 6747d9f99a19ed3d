"""Engine bundle to model repository to server; `chat` is pure and usable alone."""
