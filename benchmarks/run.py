"""Run the benchmarks and print one JSON line for each. See README.md.

    python benchmarks/run.py                      # everything, with every peer that is set up
    python benchmarks/run.py --quick --no-peers   # a look, not a result
    python benchmarks/run.py --only chain_100 'durable_*'

Every bench runs in an interpreter of its own, so that none inherits another's heap, caches or
crash.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from fnmatch import fnmatch

from setup import HERE, PEERS, SERVERS

GROUPS = {
    "startup": ["import", "import_used_over_pydantic", "import_used"],
    "memory": [
        "one_step",
        "chain_10",
        "chain_100",
        "chain_1000",
        "loop_10000",
        "loop_linear",
        "loop_memory",
        "fan_out_1000",
        "fan_out_linear",
        "sleeps_5000",
        "sleeps_memory",
        "stream_10000",
    ],
    "durable": [
        "durable_chain_100",
        "durable_100x10",
        "durable_growth",
        "durable_loop_lag",
        "durable_hold_16_mib",
        "durable_event_16_mib",
        "recover_10000",
        "recover_10000_answered",
    ],
    "postgres": ["postgres_chain_100", "postgres_100x10", "postgres_hold_16_mib"],
    "on_redis": ["redis_chain_100", "redis_100x10", "redis_everysec_100x10"],
    "service": [
        "service_tool",
        "service_memory",
        "service_memory_cpu",
        "service_memory_p50",
        "service_memory_p99",
        "service_sqlite",
        "service_sqlite_cpu",
        "service_sqlite_p50",
        "service_sqlite_p99",
        "service_document_memory",
        "service_document_memory_cpu",
        "service_document_sqlite",
        "service_document_sqlite_cpu",
        "service_signal_memory_p50",
        "service_signal_memory_p99",
        "service_signal_sqlite_p50",
        "service_signal_sqlite_p99",
    ],
    "pipeline": ["pipeline_chain_1000", "pipeline_group_1000", "pipeline_group_linear"],
    "machine": [
        "machine_goto",
        "machine_goto_plain",
        "machine_resume_p50",
        "machine_resume_p99",
        "machine_late_p50",
        "machine_late_p99",
        "machine_held_memory",
        "machine_start_waiting",
        "machine_waiting_bytes",
        "machine_sleep_30_days",
    ],
}
"""Names by module: the list can be printed, and chosen from, without importing what it measures."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three turns instead of seven")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names or patterns to run")
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="measure the peers too"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--here", metavar="GROUP:NAME", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_here(group: str, name: str, options: argparse.Namespace) -> None:
    harness = importlib.import_module("harness")
    benches = {bench.name: bench for bench in importlib.import_module(group).BENCHES}
    peers = list(SERVERS if group == "service" else PEERS) if options.peers else []
    line = harness.measure(benches[name], quick=options.quick, peers=peers)
    print(json.dumps(line, ensure_ascii=False), flush=True)


def run_apart(group: str, name: str, options: argparse.Namespace) -> bool:
    flags = [*(["--quick"] if options.quick else []), *([] if options.peers else ["--no-peers"])]
    command = [sys.executable, str(HERE / "run.py"), "--here", f"{group}:{name}", *flags]
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        error = (done.stderr.strip().splitlines() or ["died without a word"])[-1]
        print(json.dumps({"bench": name, "median": None, "ok": False, "error": error}), flush=True)
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    return done.returncode == 0


def main() -> int:
    options = arguments()
    if options.here:
        group, name = options.here.split(":")
        run_here(group, name, options)
        return 0
    chosen = [
        (group, name)
        for group, names in GROUPS.items()
        for name in names
        if not options.only or any(fnmatch(name, pattern) for pattern in options.only)
    ]
    if not chosen:
        print("nothing matches; --list prints the names", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(name for _, name in chosen))
        return 0
    broken = [name for group, name in chosen if not run_apart(group, name, options)]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
