"""The documentation, played: every block that can run does, and answers as it says."""
