"""A profile of AppArmor's around a container: on machines that have it, as those of ``make test-vm`` do."""

from __future__ import annotations

import base64
import gzip
import pathlib

import pytest

import kit
import zind

SECURITYFS = pathlib.Path("/sys/kernel/security")

#: A profile that lets everything pass, as the kernel takes it: `apparmor_parser -Q -K -o out.bin` of
#: `profile zind-test flags=(attach_disconnected) { file, capability, network, signal, ptrace, mount, umount, pivot_root, unix, dbus, }`
PROFILE = gzip.decompress(base64.b64decode(
    "H4sICLrCB2sCA291dC5iaW4A7VXNSsNAEP6y2exuf616EQTtCwgexJuofRAltokGQhOaUKoefBRfRTzpU+lkE5ukpgpiQUu+YTIbZuabCUx2uMLUmUReMA"
    "aT/T64QjgJXM93IK0m7rzx6CB2ohhcwPXt6wiSgZA/FG8htOOby9TNeOJ4IyzEcYmhHUbHR8RQ4Va8gTDwveHt6AqSqtn2yLUh7kXixe7F7ITMDiBmwDiI"
    "Xd+ZJQ4DHCm2kYNXaBoN7OEzRGZ1K9h/mkJW8v4UZ/MTW8qb9GYW+k96sbLeFOkmaYd0g/Q04zwnHWQZbIHXRANNfVJ06pJtUH5ie4Wq6iPPGMzfWrqOqV"
    "kttDWLoCxJtVcn6RdufSM11htmaR5N/X8LPcEGzaFBIknaZDukrRVKl2ayRzP5tdRYa6h8E73y0h7iL0v2kJgnPz4/FDbSobayIq4KrDLOyJQVeFkpLt0a"
    "VuFeZ4W9sgrkndb4D/cqK83P78OgWvVE/PV77R1CUPvN+QsAAA=="
))


@pytest.fixture
def profile():
    """It is loaded, by root, and goes again."""
    if not kit.has_apparmor():
        pytest.skip("needs a machine with AppArmor")
    kit.needs_root("profiles are loaded by root")
    is_ours = not (SECURITYFS / "apparmor").exists()
    if is_ours:
        zind.mount("securityfs", SECURITYFS, "securityfs")
    try:
        (SECURITYFS / "apparmor/.replace").write_bytes(PROFILE)
        yield "zind-test"
        (SECURITYFS / "apparmor/.remove").write_bytes(b"zind-test\0")
    finally:
        if is_ours:
            zind.umount(SECURITYFS)


def test_a_profile_is_that_of_the_program(profile):
    name = profile
    ask = ["cat", "/proc/self/attr/current"]
    assert zind.run(ask, capture_output=True, text=True).stdout.startswith("unconfined")
    result = zind.run(ask, capture_output=True, text=True, apparmor=name, require={"apparmor"})
    assert result.stdout.split()[0] == name and result.isolation.apparmor == name
    with zind.Popen(["cat"], stdin=zind.PIPE, apparmor=name) as process:
        ran = process.exec(ask, capture_output=True, text=True)
        assert ran.stdout.split()[0] == name, "further programs, too"
    with pytest.raises(zind.SysError) as info:
        zind.run(["true"], apparmor="zind-no-such-profile")
    assert info.value.step == "Label" and info.value.filename == "zind-no-such-profile"
