"""Which devices a payload may use: a list on version 1, a program of the kernel's on version 2."""

from __future__ import annotations

import errno

import groups
import kit
import pytest
from groups import on_v2, run

import zind

FUSE = zind.Device("/dev/fuse")
TRY = """
import os, sys
for name, flags in (("null", os.O_RDWR), ("fuse", os.O_RDONLY), ("fuse", os.O_WRONLY)):
    try:
        os.close(os.open("/dev/" + name, flags))
        print("yes", end=" ")
    except OSError as error:
        print(error.errno, end=" ")
"""
NO = errno.EPERM


def tried(*rules, **options) -> list[str]:
    options.setdefault("user", 0)
    result = run(["/usr/bin/python3", "-S", "-c", TRY], devices=list(rules), devices_=[FUSE], capabilities=["dac_override"], **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def needs_root() -> None:
    kit.needs_root("device rules")


def test_nothing_but_what_rules_allow():
    needs_root()
    assert tried(zind.DeviceRule("a", allow=False)) == ["yes", f"{NO}", f"{NO}"]
    assert tried("c 10:229 r") == ["yes", "yes", f"{NO}"]
    assert tried("c 10:229 w") == ["yes", f"{NO}", "yes"]
    assert tried("c 10:* rw") == ["yes", "yes", "yes"]
    assert tried("b *:* rwm") == ["yes", f"{NO}", f"{NO}"], "block devices are others"
    assert tried("a") == ["yes", "yes", "yes"]


def test_the_last_rule_that_fits_decides():
    needs_root()
    assert tried("c 10:229 rw", zind.DeviceRule("c 10:229 w", allow=False)) == ["yes", "yes", f"{NO}"]
    assert tried(zind.DeviceRule("a", allow=False), "c 10:229 r", "c 10:229 w") == ["yes", "yes", "yes"]
    narrower = ("c 10:* rw", zind.DeviceRule("c 10:229 r", allow=False))
    if on_v2("devices"):
        assert tried(*narrower) == ["yes", f"{NO}", "yes"]
    else:
        error = kit.refused(zind.UnsupportedError, lambda: tried(*narrower))
        assert "wider rule" in str(error)


def test_rules_change_while_it_runs():
    needs_root()
    source = "while :; do if (: </dev/fuse) 2>/dev/null; then echo yes; else echo no; fi; sleep 0.02; done"
    process = zind.Popen(
        ["sh", "-c", source],
        stdin=zind.DEVNULL,
        stdout=zind.PIPE,
        devices=[FUSE],
        resources=zind.Resources(devices=["c 10:229 rw"]),
    )
    with process:
        assert process.stdout.readline() == b"yes\n"
        process.update(zind.Resources(devices=[zind.DeviceRule("a", allow=False)]))
        assert b"no\n" in [process.stdout.readline() for _ in range(50)]
        process.update(zind.Resources(devices=["c 10:229 r"]))
        assert b"yes\n" in [process.stdout.readline() for _ in range(50)]
        process.kill()


def test_rules_of_oci_are_the_same():
    needs_root()
    document = {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}]}
    limits = zind.Resources.from_oci(document)
    result = zind.run(
        ["/usr/bin/python3", "-S", "-c", TRY], capture_output=True, text=True, devices=[FUSE], resources=limits
    )
    assert result.stdout.split() == ["yes", "yes", f"{NO}"]


@pytest.mark.parametrize("rule", ["", "x", "c", "c 1:2:3 r", "c 1:3 q", "c 1:3 rwmr", "c -1:3 r", "c 4294967296:1 r"])
def test_rules_without_sense_are_refused(rule):
    if rule == "c":
        assert zind.Resources(devices=[rule]).devices[0].rule.startswith("c")
        return
    kit.refused(zind.SpecError, lambda: zind.Resources(devices=[rule]))


def test_an_ordinary_user_is_told_who_may():
    if kit.ROOT:
        return  # the other half is what the rest of this file is about
    groups.need("memory")
    error = kit.refused(zind.UnsupportedError, lambda: run(["true"], devices=["c 1:3 r"]))
    assert "root" in error.needs or "chown" in error.needs
