"""Whether a build is possible, whether it fits, how fast it can be: decided before anything runs. Writes nothing."""
