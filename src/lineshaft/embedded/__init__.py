"""The coordinator inside the process: `App` and what joins it to the SDK without a socket."""
