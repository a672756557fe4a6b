#!/usr/bin/env python3
"""zind beside the bare system calls and beside other tools, interleaved in one run. See README.md."""
import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import report
from contenders import Measurement, all_contenders
from cgroups import GroupGates
from execs import ExecGates
from filesystem import FileSystemGates
from gates import Gates
from many import ManyGates
from policy import PolicyGates
from workshop import HERE, Workshop


def machine():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}"


def versions():
    return ", ".join(version(name) for name in ("bwrap", "crun", "runc", "unshare") if shutil.which(name))


def version(name):
    return subprocess.run([name, "--version"], stdout=subprocess.PIPE, text=True).stdout.partition("\n")[0]


def run(shop, options):
    tables = []
    for payload in shop.payloads:
        contenders = [c for c in all_contenders(shop, payload) if chosen(options, c.name)]
        measurement = Measurement(contenders)
        measurement.run(shop, options.rounds, options.starts)
        tables.append({"title": payload.title, "note": measurement.note(), "results": measurement.results()})
    gates = Gates(shop, tables[0]["results"], options).all()
    if options.filesystem:
        gates += FileSystemGates(shop, options).all()
    if options.execs:
        gates += ExecGates(shop, options).all()
    if options.many:
        gates += ManyGates(shop, options).all()
    if options.policy:
        gates += PolicyGates(shop, options).all()
    if options.cgroups:
        gates += GroupGates(shop, options).all()
    return tables, [gate.result() for gate in gates if chosen(options, gate.key, gate.key[0])]


def chosen(options, *names):
    return not options.only or any(name in options.only for name in names)


def as_text(tables, bars):
    parts = [f"zind benchmark, {time.strftime('%Y-%m-%d')}", machine(), versions(), "start to exit in ms", ""]
    for entry in tables:
        parts += [report.table(entry["title"], entry["results"], ("full", "bwrap", "crun")), f"({entry['note']})", ""]
    return "\n".join([*parts, report.bars(bars), ""])


def as_json(tables, bars):
    plain = [{**entry, "results": [asdict(result) for result in entry["results"]]} for entry in tables]
    document = {"machine": machine(), "versions": versions(), "tables": plain, "bars": [asdict(bar) for bar in bars]}
    return json.dumps(document, indent=2) + "\n"


def write_results(tables, bars, options):
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "latest.txt").write_text(as_text(tables, bars))
    (results / "latest.svg").write_text(report.svg([(entry["title"], entry["results"]) for entry in tables]))
    if options.json:
        Path(options.json).write_text(as_json(tables, bars))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of short batches (40)")
    parser.add_argument("--quick", action="store_true", help="few rounds: about 20 seconds, not for publication")
    parser.add_argument("--only", metavar="NAME,...", help="contenders by name, and bars by letter")
    parser.add_argument("--filesystem", action="store_true", help="the bars of the file system too: a minute and a half more")
    parser.add_argument("--cgroups", action="store_true", help="the bars of control groups too: half a minute more")
    parser.add_argument("--execs", action="store_true", help="the bars of programs in running containers too: half a minute more")
    parser.add_argument("--many", action="store_true", help="the bars of many containers and of the command too: a minute more")
    parser.add_argument("--policy", action="store_true", help="the bars of the default policy too: a minute more")
    parser.add_argument("--wheel", help="the built wheel, for its size")
    parser.add_argument("--launcher", help="the built launcher, for its size (default: zind.LAUNCHER_SIZE)")
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else None
    options.rounds = options.rounds or (5 if options.quick else 40)
    options.starts = 5 if options.quick else 10
    return options


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse_options()
    with Workshop() as shop:
        tables, bars = run(shop, options)
    print(as_text(tables, bars), end="")
    write_results(tables, bars, options)
    return int(options.check and any(bar.met is False for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
