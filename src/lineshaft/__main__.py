"""`python -m lineshaft` is the `lineshaft` command."""

from __future__ import annotations

from lineshaft.cli.main import main

if __name__ == "__main__":
    main()
