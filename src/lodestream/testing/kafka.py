"""An Apache Kafka broker of one's own for tests and trials: KRaft, one node, loopback only, a child process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestream.errors import TransientError
from lodestream.testing.maven import CACHE, class_path
from lodestream.testing.pki import Authority, Identity

KAFKA = ("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
USER, PASSWORD = "alice", "alice-secret"
"""Who may come in through the SASL listener."""
CONNECTION_STRING = "Endpoint=sb://127.0.0.1/;SharedAccessKeyName=test;SharedAccessKey=c2VjcmV0"
"""A password of the user `$ConnectionString`, as Event Hubs has it."""

_CLUSTER = "bG9kZXN0cmVhbS10ZXN0cw"
_FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xms128m")
_START_S = 60.0
_STOP_S = 20.0
_END_WITH_PARENT = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Becomes the program in its arguments; the kernel (Linux) ends that when who started it is gone, for any reason.

A program of its own, for nothing may run between fork and exec in a process with threads and native libraries.
"""
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Ports:
    """The broker's ports on 127.0.0.1."""

    plain: int
    sasl: int
    tls: int
    controller: int


class KafkaBroker:
    """One broker in a folder; `start` it, and `stop` or `kill` it; its data and ports stay for the next start.

    Three doors: `plain` has no security, `sasl` is TLS with PLAIN or OAUTHBEARER, `tls` is TLS with a client
    certificate of `authority`. The addresses are `HOST:PORT`.

    Args:
        folder: gets data, configuration and log.
        authority: signs the broker and those who may come in through `tls`.
        quick: start fast, as tests want it; else the machine compiles hot code well, as measuring wants it.
        heap_mib: memory of the Java machine.
        properties: further broker settings.
    """

    def __init__(
        self, folder: Path, authority: Authority, *, quick: bool = True, heap_mib: int = 512,
        properties: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.authority = authority
        self._quick, self._heap_mib = quick, heap_mib
        self._more = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = Ports(*_free_ports(4))
        folder.mkdir(parents=True, exist_ok=True)
        self._server = authority.issue("broker")
        self._configuration = folder / "server.properties"
        self._configuration.write_text(self._properties())
        self.log = folder / "broker.log"

    @property
    def plain(self) -> str:
        """Address without security."""
        return f"127.0.0.1:{self._ports.plain}"

    @property
    def sasl(self) -> str:
        """Address of the SASL_SSL listener."""
        return f"127.0.0.1:{self._ports.sasl}"

    @property
    def tls(self) -> str:
        """Address of the SSL listener that wants a client certificate."""
        return f"127.0.0.1:{self._ports.tls}"

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> KafkaBroker:
        """Start it and wait until it answers.

        Raises:
            TransientError: it ended or did not answer in time; the message has the end of its log.
        """
        path = class_path(KAFKA)
        if not (self.folder / "data").exists():
            shutil.copytree(_formatted(path), self.folder / "data")
        flags = [*(_FAST_START if self._quick else ("-XX:+UseG1GC",)), f"-Xmx{self._heap_mib}m"]
        log4j = f"-Dlog4j2.configurationFile={_log_settings(self.folder)}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", _END_WITH_PARENT,
                 "java", *flags, log4j, "-cp", path, "kafka.Kafka", str(self._configuration)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise TransientError("the broker did not start", log=self.log.read_text()[-3000:])
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it in order; twice is harmless."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; twice is harmless."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """End it, in order or not, and start it again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Stop it from doing anything until `resume`; connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, name: str = "client", *, expired: bool = False) -> Identity:
        """A client certificate of the broker's authority."""
        return self.authority.issue(name, expired=expired)

    def cpu_s(self) -> float:
        """Seconds of CPU that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def _answers(self) -> bool:
        """Whether the broker serves its last listener; it opens them when it is ready."""
        for port in (self._ports.plain, self._ports.tls):
            with socket.socket() as connection:
                connection.settimeout(0.2)
                if connection.connect_ex(("127.0.0.1", port)):
                    return False
        return b"Kafka Server started" in self.log.read_bytes().rpartition(b"starting")[2]

    def _properties(self) -> str:
        ports, folder = self._ports, self.folder
        doors = {"PLAIN": ports.plain, "SASL": ports.sasl, "TLS": ports.tls}
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in doors.items())
        pem = folder / "broker-with-key.pem"
        pem.write_bytes(self._server.key.read_bytes() + self._server.certificate.read_bytes())
        pem.chmod(0o600)
        users = f'user_{USER}="{PASSWORD}" user_$ConnectionString="{CONNECTION_STRING}"'
        values = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": f"{addresses},CONTROLLER://127.0.0.1:{ports.controller}",
            "advertised.listeners": addresses,
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,TLS:SSL",
            "log.dirs": str(folder / "data"),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(pem),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.tls.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
            "listener.name.sasl.plain.sasl.jaas.config": f"{_LOGIN}.plain.PlainLoginModule required {users};",
            "listener.name.sasl.oauthbearer.sasl.jaas.config":
                f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
            "listener.name.sasl.oauthbearer.sasl.server.callback.handler.class":
                f"{_LOGIN}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler",
            "broker.session.timeout.ms": "1500",  # a killed broker may come back when its session is over
            "broker.heartbeat.interval.ms": "300",
            "group.min.session.timeout.ms": "1000",
            "num.partitions": "1",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "log.initial.task.delay.ms": "500",
            "log.retention.check.interval.ms": "500",
            "log.cleaner.backoff.ms": "500",
            "message.max.bytes": str(64 << 20),
            "socket.request.max.bytes": str(128 << 20),
        }  # fmt: skip
        return "".join(f"{key}={value}\n" for key, value in (values | self._more).items())


def _formatted(path: str) -> Path:
    """A data folder as the broker wants it at its first start; made once, for it takes a Java start."""
    template = CACHE / f"formatted-{KAFKA[0].rpartition(':')[2]}"
    if template.exists():
        return template
    part = CACHE / f"formatting-{os.getpid()}"
    part.mkdir(parents=True)
    try:
        settings = part / "format.properties"
        settings.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n"
            "controller.listener.names=CONTROLLER\nlisteners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:1\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:9\nlog.dirs={part / 'data'}\n"
        )
        subprocess.run(
            ["java", *_FAST_START, "-cp", path, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c",
             str(settings)],
            check=True, capture_output=True, timeout=_START_S, cwd=part,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # another process was first
            (part / "data").rename(template)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return template


def _log_settings(folder: Path) -> Path:
    """Log settings: what happened, to stdout."""
    file = folder / "log4j2.properties"
    file.write_text(
        "status=error\nappender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
        "appender.out.layout.pattern=%d %p %c{1}: %m%n\nrootLogger.level=info\nrootLogger.appenderRef.out.ref=out\n"
    )
    return file


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    """Run a broker until Ctrl-C: what `make kafka` does."""
    import datetime as dt
    import tempfile

    from lodestream.app import now_us

    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder, "pki"), dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC))
        broker = KafkaBroker(Path(folder, "kafka"), authority, quick=False).start()
        client = broker.client()
        sys.stdout.write(
            f"Apache Kafka is up; its data goes when it ends. Ctrl-C ends it.\n"
            f"  plain           {broker.plain}\n"
            f"  SASL_SSL PLAIN  {broker.sasl}  user {USER}, password {PASSWORD}\n"
            f"  mutual TLS      {broker.tls}\n"
            f"  authority       {authority.certificate}\n"
            f"  certificate     {client.certificate}\n"
            f"  key             {client.key}\n"
            f"try: lodestream demo --kafka {broker.plain}\n"
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        broker.stop()


if __name__ == "__main__":
    main()
