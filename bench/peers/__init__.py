"""The peers: each module drives one of them through the same measures, in an environment of its own."""
