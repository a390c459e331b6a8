"""A misspelt argument fails in mypy, and a result has the handler's type: mypy's own word on `cases.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("cases.py")
ROOT = Path(__file__).parents[2]
ERROR = re.compile(r"^[^:]+:(\d+): error: (.*?)(?:  \[[a-z-]+\])?$")


def test_mypy_sees_what_it_should_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    checked = subprocess.run(
        [*command, f"--cache-dir={tmp_path}", str(CASES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        check=False,
    )
    seen: dict[int, str] = {}
    for line in checked.stdout.splitlines():
        if found := ERROR.match(line):
            seen[int(found[1])] = f"{seen.get(int(found[1]), '')}{found[2]}\n"
    wanted = {
        number: line.partition("# E: ")[2].strip()
        for number, line in enumerate(CASES.read_text().splitlines(), 1)
        if "  # E: " in line
    }
    missed = {number: text for number, text in wanted.items() if text not in seen.get(number, "")}
    surplus = {number: text for number, text in seen.items() if number not in wanted}
    assert (missed, surplus) == ({}, {}), checked.stdout + checked.stderr
