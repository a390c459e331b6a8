"""An authority of the tests' own, and the certificates that it signs; made by `openssl`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers import run

NAMES = ("node", "admin")


def subject(name: str) -> str:
    """Return the distinguished name of a certificate, as a server spells it."""
    return f"CN={name},O=tests"


def make(folder: Path) -> None:
    """Make `ca.pem`, and a certificate and key for each of `NAMES`, once; servers listen on 127.0.0.1."""
    if folder.exists():
        return
    folder.mkdir()
    _openssl(
        folder, *_request("ca"), "-x509", "-out", "ca.pem", "-addext", "basicConstraints=critical,CA:TRUE"
    )
    for name in NAMES:
        _openssl(folder, *_request(name), "-out", f"{name}.csr")
        (folder / "extensions").write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
        _openssl(
            folder,
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            *signing,
            "-extfile",
            "extensions",
            "-out",
            f"{name}.pem",
        )


def _request(name: str) -> list[str]:
    return [
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{name}.key",
        "-subj",
        f"/O=tests/CN={name}",
    ]


def _openssl(folder: Path, *arguments: str) -> None:
    if shutil.which("openssl") is None:
        run.missing("openssl is missing here: apt-get install openssl")
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
