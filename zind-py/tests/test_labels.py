"""Labels of AppArmor and SELinux where the machine has no such module; test_apparmor.py has a profile."""

from __future__ import annotations

import pathlib

import pytest

import kit
import zind
from zind import oci

APPARMOR = kit.has_apparmor()
SELINUX = "selinuxfs" in pathlib.Path("/proc/filesystems").read_text().split()


@pytest.mark.parametrize("name", ["apparmor", "selinux", "mount_label"])
def test_a_label_without_its_module_is_an_error(name, tmp_path):
    if APPARMOR if name == "apparmor" else SELINUX:
        return  # test_apparmor.py
    place, field, label = {
        "apparmor": ("process", "apparmorProfile", "acme-profile"),
        "selinux": ("process", "selinuxLabel", "system_u:system_r:svirt_t:s0:c1,c2"),
        "mount_label": ("linux", "mountLabel", "system_u:object_r:svirt_sandbox_file_t:s0:c1,c2"),
    }[name]
    mounts = [zind.Mount.bind(tmp_path, "/data")]
    document = oci.config(["sh", "-c", ": >/data/ran"], rootfs="/", mounts=mounts, **{name: label})
    assert document[place][field] == label, "reading and writing a document is not having it"
    for start in (
        lambda: zind.run(["sh", "-c", ": >/data/ran"], mounts=mounts, **{name: label}),
        lambda: zind.run(config=document),
        lambda: zind.spawn(["true"], **{name: label}),
    ):
        with pytest.raises(zind.UnsupportedError) as info:
            start()
        assert info.value.feature == name and label in info.value.needs
    assert not (tmp_path / "ran").exists()


def test_nothing_is_what_there_is_without():
    if not APPARMOR:
        told = zind.run(["true"], apparmor="unconfined").isolation
        assert told.apparmor == "unconfined" and "apparmor" not in told.in_force
    for name in ("apparmor", "selinux"):
        assert zind.run(["true"]).isolation[name] is None
        with pytest.raises(zind.UnsupportedError) as info:
            zind.run(["true"], require={name})
        assert info.value.feature == name
    assert zind.run(["true"]).isolation.mount_label is None
    for name in ("apparmor", "selinux", "mount_label"):
        for label in ("", "a\nb", "x" * 401, *(["u:r:t:s0\",size=1", "u:r:t\\"] if name == "mount_label" else [])):
            with pytest.raises(zind.SpecError) as wrong:
                zind.run(["true"], **{name: label})
            assert wrong.value.field == name
        with pytest.raises(TypeError):
            zind.run(["true"], **{name: 5})
