"""What the benchmarks share: a scratch cluster, real WAL, peers found on PATH, interleaved rounds, tables.

Every comparison is made within one run: the rounds of all variants are interleaved, so that a machine that gets slower does so
for all of them. Nothing here fails because of a timing.
"""

import atexit
import contextlib
import datetime
import glob
import os
import pwd
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PORT = 54398
STANZA = "bench"


def server_user():
    """The user servers run as: postgres when we are root."""
    return dict(user="postgres", group="postgres", extra_groups=[]) if os.geteuid() == 0 else {}


def postgres_bin():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench"), key=lambda p: int(p.split("/")[4]))
    if not found:
        sys.exit("no PostgreSQL with pgbench found: apt-get install postgresql")
    return os.path.dirname(found[-1])


PG = postgres_bin()
PGBACKREST = shutil.which("pgbackrest")


class Scratch:
    """A folder of the server's user, removed at exit unless KEEP is set."""

    def __init__(self, name):
        self.path = tempfile.mkdtemp(prefix=f"walden-bench-{name}-", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
        os.chmod(self.path, 0o755)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.path, owner.pw_uid, owner.pw_gid)
        if not os.environ.get("KEEP"):
            atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        self.bin = self.join("bin")
        sh(f"mkdir -p '{self.bin}'")
        build = os.path.join(ROOT, "target", "release")
        for program in ("walden", "archive-command", "restore-command"):
            if not os.path.exists(os.path.join(build, program)):
                sys.exit("build first: cargo build --release")
            shutil.copy(os.path.join(build, program), self.bin)

    def join(self, *parts):
        return os.path.join(self.path, *parts)

    def fresh(self, name):
        """An empty folder of the server's user."""
        path = self.join(name)
        shutil.rmtree(path, ignore_errors=True)
        sh(f"mkdir -p '{path}'")
        return path

    def write(self, name, text):
        path = self.join(name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path


def environment(extra=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "WALDEN_"))}
    return {**clean, "LC_ALL": "C", "HOME": "/nonexistent", **(extra or {})}


def sh(command, check=True, env=None, cwd="/", quiet=True):
    """Runs a shell command as the server's user."""
    sink = subprocess.DEVNULL if quiet else None
    done = subprocess.run(["sh", "-c", command], cwd=cwd, env=environment(env), stdout=sink, stderr=subprocess.PIPE, **server_user())
    if check and done.returncode:
        sys.exit(f"failed ({done.returncode}): {command}\n{done.stderr.decode(errors='replace')}")
    return done.returncode


class Cluster:
    """A scratch PostgreSQL cluster."""

    def __init__(self, scratch, settings=""):
        self.scratch, self.data, self.socket = scratch, scratch.join("data"), scratch.path
        sh(f"{PG}/initdb -D '{self.data}' -U bench -A trust -k -N --locale=C")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write(
                f"port={PORT}\nlisten_addresses=''\nunix_socket_directories='{self.socket}'\nshared_buffers=512MB\n"
                f"autovacuum=off\n{settings}\n"
            )
        atexit.register(self.stop)

    def start(self):
        sh(f"{PG}/pg_ctl -D '{self.data}' -l '{self.scratch.join('pg.log')}' -w start")

    def stop(self):
        sh(f"{PG}/pg_ctl -D '{self.data}' -m fast -w stop", check=False)

    def sql(self, text):
        done = subprocess.run(
            [f"{PG}/psql", "-XqAt", "-h", self.socket, "-p", str(PORT), "-U", "bench", "-d", "postgres", "-c", text],
            env=environment(), capture_output=True, text=True, cwd="/", **server_user())
        if done.returncode:
            sys.exit(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def pgbench(self, arguments):
        sh(f"{PG}/pgbench -h '{self.socket}' -p {PORT} -U bench {arguments} postgres")

    def dsn(self):
        return f"host={self.socket} port={PORT} user=bench dbname=postgres"


def load_with_wal(scratch, segments, scale=50):
    """A stopped cluster, a tar of its base backup, and the names of `segments` WAL segments that follow it. The segments lie in
    `<scratch>/wal`."""
    wal = scratch.fresh("wal")
    cluster = Cluster(scratch, f"archive_mode=on\narchive_command='cp %p {wal}/%f'")
    cluster.start()
    cluster.pgbench(f"-i -q -s {scale}")
    cluster.sql("create table notes(id serial, at timestamptz default now(), note text)")
    cluster.sql("select pg_switch_wal()")
    sh(f"{PG}/pg_basebackup -D '{scratch.join('base')}' -X none -c fast --no-manifest -h '{cluster.socket}' -p {PORT} -U bench")
    before = set(os.listdir(wal))
    script = scratch.write(
        "notes.sql", "insert into notes(note) select string_agg(md5(random()::text), '') from generate_series(1, 120);\n")
    while True:
        names = sorted(name for name in os.listdir(wal) if len(name) == 24 and name not in before)
        if len(names) >= segments + 1:
            break
        cluster.pgbench(f"-n -c 4 -j 2 -T 5 -b tpcb-like@8 -f '{script}@2'")
    # The first one was cut short by the base backup's end: nearly empty.
    names = names[1 : segments + 1]
    cluster.stop()
    return cluster, names


def offer(scratch, cluster, names):
    """The data directory as after an outage: all segments there, all .ready."""
    pg_wal = os.path.join(cluster.data, "pg_wal")
    sh(f"rm -rf '{pg_wal}' && mkdir -p '{pg_wal}/archive_status'")
    for name in names:
        sh(f"cp '{scratch.join('wal', name)}' '{pg_wal}/{name}' && : > '{pg_wal}/archive_status/{name}.ready'")


def drain(cluster, names, command):
    """The archiver's loop; seconds, and milliseconds of each call."""
    status, calls = os.path.join(cluster.data, "pg_wal", "archive_status"), []
    env, began = environment(), time.perf_counter()
    for name in names:
        call = time.perf_counter()
        line = command.replace("%p", f"pg_wal/{name}").replace("%f", name)
        subprocess.run(["sh", "-c", line], cwd=cluster.data, env=env, check=True, **server_user())
        os.rename(f"{status}/{name}.ready", f"{status}/{name}.done")
        calls.append((time.perf_counter() - call) * 1000)
    return time.perf_counter() - began, sorted(calls)


def redo_seconds(log):
    """From the server's own log lines."""
    stamp = r"^(\d+-\d+-\d+ \d+:\d+:\d+\.\d+) \S+ \[\d+\] LOG:  "
    with open(log) as file:
        text = file.read()
    begin = re.search(stamp + "redo starts", text, re.M)
    end = re.search(stamp + "redo done", text, re.M)
    if not begin or not end:
        raise SystemExit(f"no redo in the log:\n{text[-2000:]}")
    parse = lambda match: datetime.datetime.strptime(match.group(1), "%Y-%m-%d %H:%M:%S.%f")
    return (parse(end) - parse(begin)).total_seconds()


@contextlib.contextmanager
def service(scratch, config, env=None):
    """`walden serve`, ready to answer."""
    socket = scratch.join("hook.sock")
    log = open(scratch.join("serve.log"), "a")
    child = subprocess.Popen([f"{scratch.bin}/walden", "--config", config, "serve"], env=environment(env), stderr=log, cwd="/", **server_user())
    STARTED.append(child.pid)
    while not os.path.exists(socket):
        if child.poll() is not None:
            sys.exit(f"walden serve ended: see {log.name}\n" + open(log.name).read())
        time.sleep(0.01)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def walden_config(scratch, dsn, url=None, **settings):
    """A configuration file; settings as section__key."""
    lines = [f'repository.url = "{url or "file://" + scratch.join("repository")}"', f'postgresql.dsn = "{dsn}"',
             f'service.socket = "{scratch.join("hook.sock")}"', 'log.level = "warn"', 'http.listen = ""']
    for name, value in settings.items():
        lines.append(f"{name.replace('__', '.')} = {value}")
    return scratch.write("walden.toml", "\n".join(lines) + "\n")


def pgbackrest_config(scratch, data, level=3, processes=2, asynchronous=True, repository=""):
    repository = repository or f"repo1-path={scratch.join('pgbackrest')}"
    return scratch.write("pgbackrest.conf", f"""[global]
{repository}
spool-path={scratch.join('spool')}
lock-path={scratch.join('lock')}
log-path={scratch.join('log')}
log-level-console=error
log-level-file=off
compress-type=zst
compress-level={level}
archive-async={'y' if asynchronous else 'n'}
process-max={processes}
repo1-bundle=y
start-fast=y
[{STANZA}]
pg1-path={data}
pg1-port={PORT}
pg1-socket-path={scratch.path}
pg1-user=bench
pg1-database=postgres
""")


def timed(command, env=None):
    """Seconds of a command that must succeed, its peak memory, and the machine's busy seconds."""
    busy, began = machine_busy(), time.perf_counter()
    child = subprocess.Popen(["sh", "-c", "exec " + command], cwd="/", env=environment(env), stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, **server_user())
    STARTED.append(child.pid)
    errors = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"failed: {command}\n{errors.decode(errors='replace')}")
    return {"s": seconds, "machine CPU s": machine_busy() - busy, "its CPU s": used.ru_utime + used.ru_stime,
            "peak MiB": used.ru_maxrss / 1024}


@contextlib.contextmanager
def s3_server(latencies):
    """A fresh radosgw: its settings, and for each latency in milliseconds a port that adds it to each request. Objects are in memory."""
    env = {**os.environ, "WALDEN_TEST_S3_BYTES": str(6 << 30)}
    server = subprocess.Popen([os.path.join(ROOT, "tests", "s3-start"), "radosgw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    found = dict(line.strip().removeprefix("WALDEN_TEST_S3_").split("=", 1) for line in server.stdout)
    if "TLS_ENDPOINT" not in found:
        sys.exit("no S3 server: tests/s3-servers installs it")
    target, proxies, ports = found["TLS_ENDPOINT"].rsplit(":", 1)[1], [], {}
    for latency in latencies:
        proxy = subprocess.Popen([os.path.join(ROOT, "tests", "bench", "latency"), target, str(latency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ports[latency] = int(proxy.stdout.readline())
        proxies.append(proxy)
    try:
        yield found, ports
    finally:
        for child in [*proxies, server]:
            child.stdin.close()
            child.wait(60)


def cpu_of(pid):
    """User and system seconds of a process so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


# What symbols say of the processor's time; those of the kernel begin with "k ".
PARTS = {
    "kernel: content of files and sockets": r"^k .*copy_(to|from|folio|page|mc)",
    "kernel: rest": r"^k ",
    "compression": r"ZSTD|HUF_|FSE_|HIST_|XXH",
    "digests": r"blake3|sha256|sha2::",
    "summaries of WAL": r"postgres::wal|crc32c",
    "copies in memory": r"^u (__)?mem(cpy|move|set)",
    "rest": r"",
}
# Processes of Walden that were started.
STARTED = []


def by_part(title, work, unit="s", per=1):
    """Runs `work` once more under perf, and prints what Walden spent its processor time on. Only here: perf takes time, too."""
    if not shutil.which("perf"):
        return print(f"\n{title}: no perf on PATH, which tells where the time goes")
    with tempfile.NamedTemporaryFile() as samples:
        perf = subprocess.Popen(["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "997", "-o", samples.name],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        STARTED.clear()
        work()
        perf.send_signal(signal.SIGINT)
        perf.wait()
        listed = subprocess.run(["perf", "script", "-i", samples.name, "-F", "pid,ip,sym"], capture_output=True, text=True).stdout
    spent = dict.fromkeys(PARTS, 0)
    for pid, address, symbol in re.findall(r"^ *(\d+) +([0-9a-f]+) (.*)$", listed, re.M):
        symbol = ("k " if address.startswith("ffff") else "u ") + symbol
        if int(pid) in STARTED:
            spent[next(part for part, names in PARTS.items() if re.search(names, symbol))] += 1
    if not spent["compression"]:
        return print(f"\n{title}: no symbols: build with --config 'profile.release.strip=false'")
    total, scale = sum(spent.values()), (1000 if unit.startswith("ms") else 1) / 997 / per
    print(f"\n{title}\n\n| part | {unit} | share |\n|---|---|---|")
    for part, count in [*spent.items(), ("all", total)]:
        print(f"| {part} | {count * scale:.3g} | {count / total:.0%} |")
    sys.stdout.flush()


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine_busy():
    """Seconds that all processors were busy, kernel included."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def rounds(variants, run):
    """Calls run(variant) in interleaved rounds after one warm-up; variant -> list of results (dicts)."""
    results = {variant: [] for variant in variants}
    for number in range(ROUNDS + 1):
        for variant in variants:
            outcome = run(variant)
            if number:
                results[variant].append(outcome)
            print(f"  round {number} {variant}: {outcome}", file=sys.stderr, flush=True)
    return results


def table(title, results, columns, ratio_of, against):
    """Prints medians with [min..max], and the ratio of medians of one figure against one variant."""
    print(f"\n{title}\n")
    head = ["variant"] + list(columns) + [f"{ratio_of}, ratio to {against}"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    base = statistics.median(r[ratio_of] for r in results[against]) if against in results else None
    for variant, outcomes in results.items():
        cells = [variant]
        for column in columns:
            values = [outcome[column] for outcome in outcomes if outcome.get(column) is not None]
            cells.append(f"{statistics.median(values):.3g} [{min(values):.3g}..{max(values):.3g}]" if values else "")
        ratio = statistics.median(o[ratio_of] for o in outcomes) / base if base else float("nan")
        print("| " + " | ".join(cells + [f"{ratio:.2f}"]) + " |")
    sys.stdout.flush()


def machine():
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "?")
    pg = subprocess.run([f"{PG}/postgres", "--version"], capture_output=True, text=True).stdout.split()[2]
    peer = subprocess.run([PGBACKREST, "version"], capture_output=True, text=True).stdout.strip() if PGBACKREST else "no pgBackRest"
    print(f"{os.cpu_count()} x {model}, Linux {os.uname().release}; PostgreSQL {pg}; {peer}; {ROUNDS} rounds after one warm-up")
