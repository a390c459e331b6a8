"""The command line: parses, calls the coordinator, shows; one module per group of commands."""
