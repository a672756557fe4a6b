"""What holds for any options and any names: drawn at random. A failure prints the seed; ZIND_TEST_SEED repeats it."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess

import pytest

import zind
from kit import ROOT, probe

Mount = zind.Mount


@pytest.fixture
def chance():
    seed = int(os.environ.get("ZIND_TEST_SEED", random.randrange(1 << 32)))
    print("ZIND_TEST_SEED =", seed)
    return random.Random(seed)


# --- options of mounts -----------------------------------------------------------------------------------------------
ATTRIBUTES = [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nosymfollow", "symfollow"), ("nodiratime", "diratime")]
ATIMES = ["noatime", "strictatime", "relatime"]
SUPER = [("sync", "async"), ("dirsync", "defaults"), ("lazytime", "nolazytime"), ("silent", "loud"), ("nomand", "noiversion")]


def attributes(chance: random.Random, atime: bool = True) -> list[str]:
    """Some attributes, none with its opposite, in any order."""
    words = [chance.choice(pair) for pair in ATTRIBUTES[: None if atime else -1] if chance.random() < 0.5]
    if atime and chance.random() < 0.5:
        words.append(chance.choice(ATIMES))
    chance.shuffle(words)
    return words


def tmpfs_options(chance: random.Random) -> list[str]:
    data = {"size": f"{chance.randrange(1, 99) * 4}k", "mode": f"{chance.randrange(0o1000, 0o2000):o}", "nr_inodes": str(chance.randrange(10, 999))}
    words = attributes(chance) + [f"{name}={data[name]}" for name in data if chance.random() < 0.6]
    words += [chance.choice(pair) for pair in SUPER if chance.random() < 0.3]
    chance.shuffle(words)
    return words


def told(text: str, prefix: str) -> dict[str, tuple[set[str], set[str]]]:
    """Options of mount and super block by mount point, from the text of mountinfo."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if fields[4].startswith(prefix):
            found[fields[4].removeprefix(prefix)] = set(fields[5].split(",")), set(right.split(" ")[2].split(",")) - {"ro", "rw", "inode64"}
    return found


def protected(words: list[str]) -> list[str]:
    """What zind takes for granted, in the language of mount(8)."""
    return [*({"nosuid", "nodev"} - {f"no{word}" for word in words}), *words]


def by_mount(tmp_path: pathlib.Path, lines: list[str]) -> dict[str, tuple[set[str], set[str]]]:
    """What mount(8) makes of the same."""
    script = "set -e\n" + "\n".join(lines) + "\ncat /proc/self/mountinfo"
    unshare = ["unshare", "-m"] if ROOT else ["unshare", "-Urm"]
    result = subprocess.run([*unshare, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return told(result.stdout, f"{tmp_path}/")


def by_zind(mounts: list[Mount]) -> dict[str, tuple[set[str], set[str]]]:
    return told(probe("answer(open('/proc/self/mountinfo').read())", mounts=mounts), "/t/")


def test_new_file_systems_are_what_mount_makes_of_the_same_options(chance, tmp_path):
    wanted = {str(number): tmpfs_options(chance) for number in range(80)}
    # Without a mode zind's is that of a new directory, as mount(8)'s; the ids are those who mount.
    lines = []
    for name, words in wanted.items():
        (tmp_path / name).mkdir()
        lines.append(f"mount -t tmpfs -o {','.join(protected(words))} none {tmp_path}/{name}")
    expected = by_mount(tmp_path, lines)
    found = by_zind([Mount(type="tmpfs", target=f"/t/{name}", options=words) for name, words in wanted.items()])
    assert len(found) == 80
    for name, words in wanted.items():
        ids = {word for word in expected[name][1] | found[name][1] if word.startswith(("uid=", "gid="))}
        assert found[name][0] == expected[name][0], words
        assert found[name][1] - ids == expected[name][1] - ids, words


def test_binds_are_what_mount_makes_of_the_same_options(chance, tmp_path):
    (tmp_path / "source").mkdir()
    # An ordinary user may not change how access times are kept, nor take protection away.
    wanted = {str(number): attributes(chance, atime=ROOT) for number in range(80)}
    if not ROOT:
        wanted = {name: [word for word in words if word not in ("suid", "dev", "exec", "rw")] for name, words in wanted.items()}
    lines = []
    for name, words in wanted.items():
        (tmp_path / name).mkdir()
        place = f"{tmp_path}/{name}"
        lines.append(f"mount --bind {tmp_path}/source {place}; mount -o remount,bind,{','.join(protected(words))} {place}")
    expected = by_mount(tmp_path, lines)
    mounts = [Mount(type="bind", source=tmp_path / "source", target=f"/t/{name}", options=words) for name, words in wanted.items()]
    found = by_zind(mounts)
    assert {name: one[0] for name, one in found.items()} == {name: one[0] for name, one in expected.items()}, wanted


def test_the_order_of_options_is_no_matter(chance):
    words = tmpfs_options(chance)
    orders = [chance.sample(words, len(words)) for _ in range(20)]
    found = by_zind([Mount(type="tmpfs", target=f"/t/{number}", options=order) for number, order in enumerate(orders)])
    assert len({(frozenset(a), frozenset(b)) for a, b in found.values()}) == 1, words


def test_an_option_and_its_opposite_are_refused_wherever_they_stand(chance):
    for _ in range(200):
        form = chance.choice(["", "r"])
        pair = chance.choice([*ATTRIBUTES, ("noatime", "strictatime"), ("relatime", "noatime"), ("sync", "async"), ("lazytime", "nolazytime")])
        form = "" if pair[0] in ("sync", "lazytime") else form
        others = [word for word in tmpfs_options(chance) if word not in pair and word not in ATIMES]
        words = [word for word in others if word not in sum(([a, b] for a, b in ATTRIBUTES if a in pair or b in pair), [])]
        for word in chance.sample(pair, 2):
            words.insert(chance.randrange(len(words) + 1), form + word)
        with pytest.raises(zind.SpecError) as caught:
            Mount(type="tmpfs", target="/t", options=words)
        assert caught.value.field == "mounts"


def test_any_text_is_taken_or_refused(chance):
    letters = "ro=,:;\\/\"' \n\t%aé\N{SNOWMAN}0"
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randrange(20)))
        for make in (lambda: Mount(type="tmpfs", target="/t", options=[text]), lambda: zind.Device.parse(text)):
            try:
                make()
            except zind.SpecError as error:
                assert error.field in ("mounts", "devices")


# --- names -----------------------------------------------------------------------------------------------------------
SPECIAL = b":,\\\n\t \"'=%#\xff\xfe\x01\x7f$*?[]{}()<>|&;~!-."


def name(chance: random.Random, used: set[bytes]) -> bytes:
    """Any bytes that a directory may be called: none is NUL or a slash."""
    while True:
        length = chance.choice([1, 2, 3, 10, 40, 254, 255])
        pool = chance.choice([SPECIAL, bytes(set(range(1, 256)) - {47})])
        found = bytes(chance.choices(pool, k=length))
        if found not in (b".", b"..") and found not in used:
            used.add(found)
            return found


READ = """
found = {}
for directory, dirs, files in os.walk(b"/t"):
    for file in files:
        path = os.path.join(directory, file)
        found[path.hex()] = open(path).read()
answer(found)
"""


def read(*mounts: Mount, **options) -> dict[bytes, str]:
    found = probe(READ, mounts=list(mounts), **options)
    return {bytes.fromhex(path).removeprefix(b"/t/"): content for path, content in found.items()}


@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["plain", "user"])
def test_layers_of_an_overlay_have_any_name(chance, tmp_path, namespaces):
    used: set[bytes] = set()
    lower, expected = [], {}
    for number in range(40):
        # At times one in another that is no layer.
        parts = [name(chance, used) for _ in range(chance.choice([1, 1, 2, 3]))]
        path = os.path.join(os.fsencode(tmp_path), *parts)
        os.makedirs(path)
        for file in (f"only-{number}", f"shared-{number % 5}"):
            pathlib.Path(os.fsdecode(path), file).write_text(str(number))
            expected.setdefault(file.encode(), str(number))
        lower.append(os.fsdecode(path))
    assert read(Mount.overlay("/t", lower=lower), namespaces=namespaces) == expected


def test_upper_and_work_directories_have_any_name(chance, tmp_path):
    used: set[bytes] = set()
    for _ in range(8):
        base = tmp_path / os.fsdecode(name(chance, used))
        lower, upper, work = (base / os.fsdecode(name(chance, used)) for _ in range(3))
        for directory in (lower, upper, work):
            directory.mkdir(parents=True)
        (lower / "old").write_text("old")
        mount = Mount.overlay("/t", lower=[lower], upper=upper, work=work)
        probe("open('/t/new', 'w').write('new')\nanswer(1)", mounts=[mount])
        assert (upper / "new").read_text() == "new" and os.listdir(lower) == ["old"]
        assert read(mount) == {b"old": "old", b"new": "new"}
        if not ROOT:  # The work directory's own is of mode 0.
            for inner in work.iterdir():
                inner.chmod(0o700)


def test_sources_and_targets_have_any_name(chance, tmp_path):
    used: set[bytes] = set()
    mounts, expected = [], {}
    for number in range(40):
        source = tmp_path / os.fsdecode(name(chance, used))
        target = name(chance, used)
        if number % 4 == 0:
            mounts.append(Mount.file(os.fsdecode(b"/t/" + target), str(number).encode()))
            expected[target] = str(number)
        elif number % 4 == 1:
            source.write_text(str(number))
            mounts.append(Mount.bind(source, os.fsdecode(b"/t/" + target)))
            expected[target] = str(number)
        else:
            source.mkdir()
            (source / "file").write_text(str(number))
            mounts.append(Mount.bind(source, os.fsdecode(b"/t/" + target), read_only=number % 4 == 2))
            expected[target + b"/file"] = str(number)
    assert read(*mounts) == expected


def test_devices_have_any_target(chance):
    used: set[bytes] = set()
    targets = [b"/dev/" + name(chance, used) for _ in range(20)]
    found = probe(
        "answer([os.stat(bytes.fromhex(p)).st_rdev for p in sys.argv[1:]])",
        *(target.hex() for target in targets),
        devices=[zind.Device("/dev/zero", os.fsdecode(target)) for target in targets],
    )
    assert found == [os.stat("/dev/zero").st_rdev] * 20


def test_layers_in_the_words_of_mount(chance, tmp_path):
    """``lowerdir=a:b`` with backslashes before colons and backslashes."""
    letters = ":\\,= '\"\nxé\N{SNOWMAN}"
    for _ in range(10):
        names = {"".join(chance.choices(letters, k=chance.randrange(1, 12))) for _ in range(6)}
        base = tmp_path / str(_)
        lower = [base / "".join(["x", one]) for one in names]
        for number, path in enumerate(lower):
            path.mkdir(parents=True)
            (path / f"only-{number}").write_text(str(number))
            (path / "shared").write_text(str(number))
        text = ":".join(str(path).replace("\\", "\\\\").replace(":", "\\:") for path in lower)
        expected = {f"only-{number}".encode(): str(number) for number in range(len(lower))}
        assert read(Mount(type="overlay", target="/t", options=[f"lowerdir={text}"])) == {**expected, b"shared": "0"}


def test_names_that_are_too_long_are_told(tmp_path):
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.tmpfs("/" + "x" * 256)])
    assert caught.value.errno == 36 and "mounts[0]" in str(caught.value)
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.overlay("/t", lower=[tmp_path / ("x" * 256)])])
    assert caught.value.errno == 36 and "mounts[0]" in str(caught.value)
