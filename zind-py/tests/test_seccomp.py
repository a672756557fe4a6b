"""System call filters of one's own: profiles, listeners, what is refused, what is learned."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import pathlib
import signal
import socket
import struct
import threading

import kit
import pytest
import zind

CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(arg & (1 << 64) - 1) for arg in args))
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""
GETPRIORITY, UNAME, MKDIR, SETHOSTNAME, SOCKET, UNSHARE, SCHED_YIELD = 140, 63, 83, 170, 41, 272, 24


def allow_but(*rules, **more):
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


def rule(action, *names, args=(), **more):
    found = {"names": list(names), "action": f"SCMP_ACT_{action}", **more}
    if args:
        found["args"] = [
            {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second} for index, op, value, second in args
        ]
    return found


def ask(source, **options):
    return kit.probe(CALL + source, **options)


def refused(field, words, **options):
    with pytest.raises(zind.SpecError) as caught:
        zind.run(["true"], **options)
    assert caught.value.field == field and words in str(caught.value), caught.value


# --- profiles --------------------------------------------------------------------------------------------------------
def test_the_kernel_does_what_a_profile_says():
    profile = allow_but(
        rule("ERRNO", "getpriority", errnoRet=71, args=[(0, "GT", 5, 0), (1, "LT", 1 << 33, 0)]),
        rule("ERRNO", "getpriority", errnoRet=72, args=[(1, "EQ", 1 << 40, 0)]),
        rule("ERRNO", "getpriority", errnoRet=73, args=[(2, "MASKED_EQ", 0xF0_0000_00F0, 0x10_0000_0020)]),
        rule("ERRNO", "sethostname"),
    )
    found = ask(
        f"""answer([call({GETPRIORITY}, 6, 0), call({GETPRIORITY}, -1, (1 << 33) - 1), call({GETPRIORITY}, 6, 1 << 33),
            call({GETPRIORITY}, 0, 1 << 40), call({GETPRIORITY}, 0, 0, 0x1f0000002f), call({GETPRIORITY}, 0, 0, 0x2f),
            call({SETHOSTNAME}, 0, 0)])""",
        seccomp=profile,
    )
    assert found == ["EPROTO", "EPROTO", "EINVAL", errno.errorcode[72], errno.errorcode[73], 20, "EPERM"]


@pytest.mark.parametrize(
    "action, expected",
    [
        ("KILL", -signal.SIGSYS),
        ("KILL_THREAD", -signal.SIGSYS),
        ("KILL_PROCESS", -signal.SIGSYS),
        ("TRAP", -signal.SIGSYS),
        ("TRACE", errno.ENOSYS),
        ("LOG", errno.EPERM),
        ("ALLOW", errno.EPERM),
        ("ERRNO", errno.EPERM),
    ],
)
def test_every_action(action, expected):
    source = f"{CALL}\nr = call({SETHOSTNAME}, 0, 0)\nos._exit(getattr(errno, r) if isinstance(r, str) else 0)"
    default = "SCMP_ACT_LOG" if action == "ALLOW" else "SCMP_ACT_ALLOW"
    profile = {"defaultAction": default, "syscalls": [rule(action, "sethostname")]}
    assert zind.run(["/usr/bin/python3", "-c", source], seccomp=profile).returncode == expected


def test_a_handler_gets_the_trap():
    source = f"""
import signal
seen = []
signal.signal(signal.SIGSYS, lambda number, frame: seen.append(number))
call({SETHOSTNAME}, 0, 0)
answer(seen)
"""
    assert ask(source, seccomp=allow_but(rule("TRAP", "sethostname"))) == [signal.SIGSYS]


def test_a_file_and_a_mapping_are_the_same(tmp_path):
    profile = allow_but(rule("ERRNO", "sethostname", errnoRet=71))
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(profile))
    source = f"answer(call({SETHOSTNAME}, 0, 0))"
    for given in (profile, file, str(file)):
        assert ask(source, seccomp=given) == "EPROTO"
    report = zind.run(["true"], seccomp=file, require={"seccomp"}).isolation
    assert report.seccomp == "profile" and report.seccomp_notes == []


def test_dockers_words_are_understood():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "includes": {"caps": ["CAP_SYS_NICE"]}},
            {"names": ["sethostname", "s390_sthyi"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["uname"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}},
            {"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["arm64", "s390x"]}},
        ],
    }
    source = f"answer([call({SETHOSTNAME}, 0, 0), call({GETPRIORITY}, 0, 0), call({SCHED_YIELD})] + [os.uname().sysname])"
    assert ask(source, seccomp=profile) == ["EPROTO", 20, 0, "Linux"]
    assert ask(source, seccomp=profile, capabilities=["CHOWN"]) == ["EPERM", 20, 0, "Linux"]
    notes = zind.run(["true"], seccomp=profile).isolation.seccomp_notes
    assert notes == ["s390_sthyi: a system call of other architectures"]


#: In Docker's format; and one that comes with container engines, where there is one.
FILES = [kit.TESTS / "profiles/docker-format.json"]
FILES += [path for path in [pathlib.Path("/usr/share/containers/seccomp.json")] if path.exists()]


@pytest.mark.parametrize("profile", FILES, ids=lambda path: path.name)
def test_a_profile_of_the_field_runs_ordinary_programs(profile):
    script = """
cd /tmp && printf 'int main(void){return 42;}' > a.c && gcc -O1 -pipe a.c -o a && ./a; echo $?
python3 -c 'import subprocess, threading; t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
print(subprocess.run(["uname"], capture_output=True, text=True).stdout, end="")'
unshare -U true 2>/dev/null || echo closed
"""
    found = kit.sh(script, seccomp=profile).split()
    # Some engines' let user namespaces pass.
    assert found == ["42", "thread", "Linux", "closed"] or profile != FILES[0] and found == ["42", "thread", "Linux"]


def test_what_is_unknown_is_refused_with_its_name(tmp_path):
    refused("seccomp", 'syscalls[0].names[0]: "opne"', seccomp=allow_but(rule("ERRNO", "opne")))
    refused("seccomp", '"SCMP_ACT_DENY" is no known action', seccomp=allow_but(rule("DENY", "read")))
    refused("seccomp", '"SCMP_ARCH_X86_46" is no known arch', seccomp=allow_but(architectures=["SCMP_ARCH_X86_46"]))
    refused("seccomp", '"SECCOMP_FILTER_FLAG_X" is no known flag', seccomp=allow_but(flags=["SECCOMP_FILTER_FLAG_X"]))
    refused("seccomp", '"SCMP_CMP_EG" is no known op', seccomp=allow_but(rule("ERRNO", "read", args=[(0, "EG", 1, 0)])))
    refused("seccomp", "takes no errno", seccomp=allow_but(rule("KILL", "read", errnoRet=1)))
    refused("seccomp", "defaultAction: is missing", seccomp={})
    refused("seccomp", "needs listenerPath", seccomp=allow_but(listenerMetadata="x"))
    refused("seccomp", "neither default nor learn", seccomp="strict")
    refused("seccomp", "neither default nor learn", seccomp="")
    with pytest.raises(TypeError):
        zind.run(["true"], seccomp=7)
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], seccomp=tmp_path / "missing.json")
    assert (caught.value.errno, caught.value.step) == (errno.ENOENT, "SeccompProfile")
    os.mkfifo(tmp_path / "fifo")
    refused("seccomp", "is no JSON", seccomp=tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b" " * (2 << 20))
    refused("seccomp", "is the most", seccomp=tmp_path / "large")
    refused("violations", "needs a filter", seccomp=None, violations=True)


def test_a_program_that_may_not_begin_is_an_error_not_a_hang():
    deny = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}
    for options in ({}, {"init": False}, {"no_new_privileges": False}):
        if options.get("no_new_privileges") is False and not kit.ROOT:
            continue
        with pytest.raises(zind.SysError) as caught:
            zind.run(["true"], seccomp=deny, timeout=30, **options)
        assert caught.value.errno == errno.EPERM
    # Dead by its first call, as under any other engine.
    assert zind.run(["true"], seccomp={"defaultAction": "SCMP_ACT_KILL_PROCESS"}).returncode == -signal.SIGSYS


def test_signals_are_not_blocked_by_a_filter_that_refuses_to_unblock_them():
    profile = allow_but(rule("ERRNO", "rt_sigprocmask"))
    blocked = kit.sh("while read a b; do case $a in SigBlk:) echo $b;; esac; done < /proc/self/status", seccomp=profile)
    assert int(blocked, 16) == 0


def test_other_conventions_are_closed_unless_listed():
    # int 0x80, which is i386's: getpid is 20 there.
    source = """
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
answer(f() == os.getpid())
"""
    both = allow_but(rule("ERRNO", "sethostname"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    result = zind.run(["/usr/bin/python3", "-c", CALL + "answer = print\n" + source], seccomp=both, capture_output=True, text=True)
    # Where the kernel has no i386 at all, the program dies otherwise.
    assert result.stdout == "True\n" or result.returncode == -signal.SIGSEGV
    only = allow_but(rule("ERRNO", "sethostname"))
    assert zind.run(["/usr/bin/python3", "-c", CALL + "answer = print\n" + source], seccomp=only).returncode in (-signal.SIGSYS, -signal.SIGSEGV)


def test_a_document_has_a_filter_of_its_own_and_keeps_it():
    profile = allow_but(rule("ERRNO", "sethostname", errnoRet=71), flags=["SECCOMP_FILTER_FLAG_LOG"])
    document = zind.oci.config(["/usr/bin/python3", "-c", CALL + f"print(call({SETHOSTNAME}, 0, 0))"], seccomp=profile)
    assert document["linux"]["seccomp"] == profile
    assert zind.run(config=document, capture_output=True, text=True).stdout == "EPROTO\n"
    assert zind.run(config=document, seccomp="default", capture_output=True, text=True).stdout == "EPERM\n"
    del document["linux"]["seccomp"]
    assert zind.run(config=document, seccomp=None, capture_output=True, text=True).isolation.seccomp == "none"
    document["linux"]["seccomp"] = allow_but(rule("ERRNO", "opne"))
    with pytest.raises(zind.SpecError) as caught:
        zind.run(config=document)
    assert caught.value.field == "linux.seccomp" and "opne" in str(caught.value)


def test_further_programs_have_the_same_filter():
    script = CALL + f"print(call({SETHOSTNAME}, 0, 0))"
    with zind.Popen(["sleep", "60"], seccomp=allow_but(rule("ERRNO", "sethostname", errnoRet=71))) as p:
        inside = lambda **options: p.exec(["/usr/bin/python3", "-c", script], capture_output=True, text=True, **options).stdout.strip()
        assert inside() == "EPROTO" and inside(seccomp=None) == "EPERM"
        assert inside(seccomp=allow_but(rule("ERRNO", "sethostname", errnoRet=72))) == errno.errorcode[72]
        p.kill()


# --- listeners -------------------------------------------------------------------------------------------------------
def test_a_function_answers_in_place_of_the_kernel():
    seen = []

    def answer(call):
        seen.append((call.syscall, call.number, call.arch, call.pid > 0))
        if call.syscall == "mkdir":
            seen.append(call.read_text(call.args[0]))
            return 0
        if call.syscall == "uname":
            # struct utsname: six fields of 65 bytes.
            call.write(call.args[0], b"".join(text.ljust(65, b"\0") for text in (b"Zind", b"n", b"r", b"v", b"m", b"d")))
            return 0
        call.refuse(errno.ENOTTY)
        return None

    profile = allow_but(rule("NOTIFY", "mkdir", "uname", "sethostname"))
    source = f"os.mkdir('/nowhere/at/all'); answer([os.uname().sysname, call({SETHOSTNAME}, 0, 0), os.path.exists('/nowhere')])"
    assert ask(source, seccomp=profile, notify=answer) == ["Zind", "ENOTTY", False]
    assert ("mkdir", MKDIR, "SCMP_ARCH_X86_64", True) in seen and "/nowhere/at/all" in seen


def test_calls_go_on_and_descriptors_come_in(tmp_path):
    (tmp_path / "given").write_text("from outside")

    def answer(call):
        if call.syscall == "sched_yield":
            with open(tmp_path / "given") as file:
                assert call.add_fd(file, 77) == 77
                number = call.answer_fd(file, close_on_exec=True)
                assert number > 2 and not call.waiting
        else:
            call.proceed()

    profile = allow_but(rule("NOTIFY", "sched_yield", "uname"))
    found = ask(
        f"fd = call({SCHED_YIELD}); answer([os.read(fd, 99).decode(), os.get_inheritable(fd), os.get_inheritable(77), os.uname().sysname])",
        seccomp=profile,
        notify=answer,
    )
    assert found == ["from outside", False, True, "Linux"]


def test_what_a_function_does_not_answer_is_refused():
    source = f"answer(call({SETHOSTNAME}, 0, 0))"
    profile = allow_but(rule("NOTIFY", "sethostname"))
    assert ask(source, seccomp=profile, notify=lambda call: None) == "EPERM"
    with pytest.raises(ZeroDivisionError):
        ask(source, seccomp=profile, notify=lambda call: 1 / 0)
    with pytest.raises(TypeError):
        zind.run(["true"], seccomp=profile, notify=7)


@pytest.mark.parametrize("init", [True, False])
def test_a_listener_by_hand_and_a_dead_one(init):
    source = CALL + f"print(call({SETHOSTNAME}, 0, 0), flush=True); input(); print(call({SETHOSTNAME}, 0, 0))"
    profile = allow_but(rule("NOTIFY", "sethostname"))
    with zind.Popen(["/usr/bin/python3", "-c", source], seccomp=profile, stdin=zind.PIPE, stdout=zind.PIPE, text=True, init=init) as p:
        notifier = p.notifier
        assert notifier is p.notifier and notifier.fileno() > 2
        call = notifier.get(30)
        assert call.syscall == "sethostname" and call.waiting and notifier.get(0) is None and not notifier.over
        call.refuse(errno.EDOM)
        assert p.stdout.readline() == "EDOM\n"
        with pytest.raises(zind.StateError):
            call.answer()
        notifier.close()
        notifier.close()
        assert p.communicate("\n")[0] == "ENOSYS\n"
        with pytest.raises(zind.StateError):
            notifier.get()


@pytest.mark.parametrize("options", [{}, {"init": False}])
def test_the_launchers_own_calls_ask_nobody(options):
    names = ["execve", "faccessat", "sendmsg", "exit_group", "rt_sigprocmask", "futex", "close", "write", "mmap", "sched_yield", "exit"]
    profile = allow_but(rule("NOTIFY", *names))
    seen = []
    proceed = lambda call: (seen.append(call.syscall), call.proceed())[1]
    result = zind.run(["sh", "-c", "exec /usr/bin/true"], seccomp=profile, notify=proceed, timeout=60, **options)
    # Only the shell's own execution of another program.
    assert result.returncode == 0 and seen.count("execve") == 1 and "exit_group" in seen
    with pytest.raises(zind.SysError) as caught:
        zind.run(["there-is-no-such-program"], seccomp=profile, notify=proceed, timeout=60, **options)
    assert caught.value.errno == errno.ENOENT


def test_everything_can_be_asked_about():
    seen = set()
    result = zind.run(
        ["sh", "-c", "echo $((6 * 7))"],
        seccomp={"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []},
        notify=lambda call: (seen.add(call.syscall), call.proceed())[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "42\n" and {"write", "exit_group", "brk"} <= seen


SAYS = ["/usr/bin/python3", "-c", CALL + f"print(call({SETHOSTNAME}, 0, 0))"]


def test_further_programs_ask_who_starts_them():
    profile = allow_but(rule("NOTIFY", "sethostname"))
    refuse = lambda number: {"notify": lambda call: call.refuse(number), "capture_output": True, "text": True}
    with zind.Popen(SAYS, seccomp=profile, stdout=zind.PIPE, text=True) as p:
        first = p.notifier.get(30)
        assert p.exec(SAYS, **refuse(errno.EDOM)).stdout == "EDOM\n"
        assert p.exec(SAYS, pty=True, **refuse(errno.ERANGE)).stdout == "ERANGE\n"
        with p.popen(SAYS, stdout=zind.PIPE, text=True) as inner:
            call = inner.notifier.get(30)
            assert call.syscall == "sethostname" and call.pid != first.pid and p.notifier.get(0) is None
            call.refuse(errno.ENODATA)
            assert inner.stdout.read() == "ENODATA\n" and inner.notifier.get(30) is None and inner.notifier.over
        with p.popen(SAYS, stdout=zind.PIPE, text=True) as inner:
            inner.notifier.close()
            assert inner.stdout.read() == "ENOSYS\n"
        with pytest.raises(ZeroDivisionError):
            p.exec(SAYS, notify=lambda call: 1 / 0, capture_output=True)
        assert p.exec(["true"], seccomp="learn").profile["defaultAction"] == "SCMP_ACT_ERRNO"
        with pytest.raises(zind.UnsupportedError, match="no_new_privileges"):
            p.exec(SAYS, no_new_privileges=False, **refuse(1))
        assert first.waiting
        first.refuse(errno.EXDEV)
        assert p.communicate()[0] == "EXDEV\n"


def test_who_only_waits_is_told_that_nobody_answers():
    profile = allow_but(rule("NOTIFY", "sethostname"))
    with zind.Popen(["sleep", "1033"]) as p:
        for call in (zind.run, p.exec):
            with pytest.raises(zind.UnsupportedError, match="notify="):
                call(SAYS, seccomp=profile)
            assert call(SAYS, seccomp=profile, notify=lambda call: 0, stdout=zind.DEVNULL).returncode == 0

        async def main():
            with pytest.raises(zind.UnsupportedError, match="notify="):
                await zind.aio.run(SAYS, seccomp=profile)

        asyncio.run(main())
        p.kill()


def test_what_comes_before_a_further_program_asks_nobody():
    everything = {"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []}
    seen = []
    proceed = lambda call: (seen.append(call.syscall), call.proceed())[1]
    with zind.Popen(["sleep", "1034"]) as p:
        assert p.exec(["sh", "-c", "exec /usr/bin/true"], seccomp=everything, notify=proceed, timeout=60).returncode == 0
        # Only the shell's own execution of another program.
        assert seen.count("execve") == 1 and seen[0] == "brk" and "exit_group" in seen
        with pytest.raises(zind.SysError) as caught:
            p.exec(["there-is-no-such-program"], seccomp=everything, notify=proceed, timeout=60)
        assert (caught.value.errno, caught.value.step) == (errno.ENOENT, "Exec")
        p.kill()


def test_programs_in_containers_that_live_on_ask_who_starts_them(tmp_path):
    profile = allow_but(rule("NOTIFY", "sethostname"))
    with zind.Container(["sleep", "1035"], containers=tmp_path / "place") as c:
        c.start()
        found = c.exec(SAYS, seccomp=profile, notify=lambda call: call.refuse(errno.EDOM), capture_output=True, text=True)
        assert found.stdout == "EDOM\n"
        with pytest.raises(zind.UnsupportedError, match="notify="):
            c.exec(SAYS, seccomp=profile)
        with c.popen(SAYS, seccomp=profile, stdout=zind.PIPE, text=True) as p:
            p.notifier.get(30).refuse(errno.ERANGE)
            assert p.stdout.read() == "ERANGE\n"

        async def slow(call):
            await asyncio.sleep(0.01)
            call.refuse(errno.ENODATA)

        async def main():
            options = {"seccomp": profile, "notify": slow, "capture_output": True, "text": True}
            inner = await zind.aio.Container.open(c.id, containers=tmp_path / "place")
            p = await zind.aio.Popen.start(["sleep", "1036"])
            for one in (inner, p):
                assert (await one.exec(SAYS, **options)).stdout == "ENODATA\n"
                with pytest.raises(zind.UnsupportedError, match="notify="):
                    await one.exec(SAYS, seccomp=profile)
            p.kill()
            await p.wait()

        asyncio.run(main())
        c.kill()


def test_the_loop_answers():
    async def slow(call):
        await asyncio.sleep(0.01)
        return call.refuse(errno.EDOM)

    async def main():
        profile = allow_but(rule("NOTIFY", "sethostname"))
        source = CALL + f"print(call({SETHOSTNAME}, 0, 0))"
        argv = ["/usr/bin/python3", "-c", source]
        result = await zind.aio.run(argv, seccomp=profile, notify=slow, capture_output=True, text=True)
        assert result.stdout == "EDOM\n"
        p = await zind.aio.Popen.start(argv, seccomp=profile, stdout=zind.PIPE)
        async for call in p.notifier:
            call.refuse(errno.ERANGE)
        assert (await p.stdout.read()) == b"ERANGE\n" and await p.wait() == 0
        told = []
        await zind.aio.run(argv, violations=told.append, capture_output=True)
        assert [(one.syscall, one.errno) for one in told if one.syscall == "sethostname"] == [("sethostname", errno.EPERM)]
        p = await zind.aio.Popen.start(argv, violations=True, stdout=zind.DEVNULL)
        assert "sethostname" in [one.syscall async for one in p.violations()] and await p.wait() == 0
        assert (await zind.aio.learn(["true"])).profile["defaultAction"] == "SCMP_ACT_ERRNO"

    asyncio.run(main())


def refuse_by_hand(listener: int, number: int) -> None:
    """struct seccomp_notif and seccomp_notif_resp."""
    import fcntl

    buffer = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, buffer)
    fcntl.ioctl(listener, 0xC0182101, bytearray(struct.pack("QqiI", *struct.unpack_from("Q", buffer), 0, -number, 0)))
    os.close(listener)


def test_an_agent_gets_the_listener_of_each_program(tmp_path):
    path = tmp_path / "agent"
    documents = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)
        path.chmod(0o777)

        def agent():
            for number in (errno.EDOM, errno.ERANGE, errno.ENODATA):
                connection, _ = listener.accept()
                with connection:
                    data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                    while piece := connection.recv(65536):
                        data += piece
                documents.append(json.loads(data))
                refuse_by_hand(fds[0], number)

        thread = threading.Thread(target=agent)
        thread.start()
        profile = allow_but(rule("NOTIFY", "sethostname"), listenerPath=str(path), listenerMetadata="meta")
        then_sleep = [*SAYS[:2], SAYS[2] + "; import sys, time; sys.stdout.flush(); time.sleep(1037)"]
        with zind.Container(then_sleep, containers=tmp_path / "place", seccomp=profile) as c:
            c.start()
            c.wait_ready(line="EDOM")
            assert c.exec(SAYS, capture_output=True, text=True).stdout == "ERANGE\n"
            p = c.popen(SAYS, stdout=zind.PIPE, text=True)
            assert p.communicate()[0] == "ENODATA\n" and p.notifier is None
            thread.join()
            c.kill()
    assert len({one["pid"] for one in documents}) == 3 and {one["metadata"] for one in documents} == {"meta"}


def test_a_busy_agent_keeps_nobody_from_giving_up(tmp_path):
    path = tmp_path / "agent"
    profile = allow_but(rule("NOTIFY", "sethostname"), listenerPath=str(path))
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(path))
        listener.listen(0)
        path.chmod(0o777)
        with pytest.raises(BlockingIOError):
            for _ in range(100):
                one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(str(path))
        with pytest.raises((TimeoutError, zind.TimeoutExpired)):
            zind.run(SAYS, seccomp=profile, timeout=0.5, stdout=zind.DEVNULL)
        with zind.Popen(["sleep", "1038"]) as p:
            try:
                with pytest.raises((TimeoutError, zind.TimeoutExpired)):
                    p.exec(SAYS, seccomp=profile, timeout=0.5, stdout=zind.DEVNULL)
            finally:
                p.kill()


def test_an_agent_gets_the_listener(tmp_path):
    path = tmp_path / "agent"
    got = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        path.chmod(0o777)

        def agent():
            connection, _ = listener.accept()
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                while piece := connection.recv(65536):
                    data += piece
            got.update(json.loads(data), count=len(fds))
            refuse_by_hand(fds[0], errno.EDOM)

        thread = threading.Thread(target=agent)
        thread.start()
        profile = allow_but(rule("NOTIFY", "sethostname"), listenerPath=str(path), listenerMetadata="meta")
        source = f"answer(call({SETHOSTNAME}, 0, 0))"
        assert ask(source, seccomp=profile) == "EDOM"
        thread.join()
    assert got["fds"] == ["seccompFd"] and got["count"] == 1 and got["metadata"] == "meta" and got["pid"] == got["state"]["pid"] > 0
    assert got["state"]["status"] == "creating" and got["ociVersion"] == got["state"]["ociVersion"]
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], seccomp=profile)
    assert (caught.value.errno, caught.value.step) == (errno.ECONNREFUSED, "SeccompAgent")


# --- violations ------------------------------------------------------------------------------------------------------
def test_what_the_default_filter_refuses_is_told():
    told = []
    source = f"""answer([call({UNSHARE}, 0x10000000), call({SOCKET}, 38, 5, 0), call({SETHOSTNAME}, 0, 0), call(9999), os.getpid() > 0])"""
    assert ask(source, violations=told.append) == ["EPERM", "EAFNOSUPPORT", "EPERM", "ENOSYS", True]
    found = {(one.syscall or one.number, one.errno): one for one in told}
    assert {("unshare", errno.EPERM), ("socket", errno.EAFNOSUPPORT), ("sethostname", errno.EPERM), (9999, errno.ENOSYS)} <= set(found)
    one = found["socket", errno.EAFNOSUPPORT]
    assert one.args[:3] == (38, 5, 0) and one.number == SOCKET and one.pid > 0 and one.arch == "SCMP_ARCH_X86_64"
    assert str(one).startswith("socket(0x26, 5, 0") and "EAFNOSUPPORT" in str(one)


def test_what_a_profile_refuses_is_told_live():
    profile = allow_but(rule("ERRNO", "sethostname", errnoRet=71), rule("ERRNO", "getpriority", errnoRet=72, args=[(0, "EQ", 1, 0)]))
    source = CALL + f"input(); print(call({SETHOSTNAME}, 0, 0), call({GETPRIORITY}, 0, 0), call({GETPRIORITY}, 1, 0)); input()"
    with zind.Popen(["/usr/bin/python3", "-c", source], seccomp=profile, violations=True, stdin=zind.PIPE, stdout=zind.PIPE, text=True) as p:
        violations = p.violations()
        assert violations.get(0) is None and not violations.over
        p.stdin.write("\n")
        p.stdin.flush()
        assert [violations.get(30).syscall for _ in range(2)] == ["sethostname", "getpriority"]
        assert p.stdout.readline().split() == ["EPROTO", "20", errno.errorcode[72]]
        p.communicate("\n")
        assert list(violations) == [] and violations.over and violations.lost == 0
    with zind.Popen(["true"]) as p, pytest.raises(zind.StateError):
        p.violations()
    with pytest.raises(zind.SpecError):
        zind.run(["true"], seccomp=allow_but(rule("NOTIFY", "uname")), violations=True)


def test_nobody_has_to_read_what_is_refused():
    count = 6000
    source = CALL + f"[call({SETHOSTNAME}, 0, 0) for _ in range({count})]"
    with zind.Popen(["/usr/bin/python3", "-c", source], violations=True) as p:
        assert p.wait(60) == 0
        violations = p.violations()
        kept = list(violations)
        assert len(kept) == 4096 and len(kept) + violations.lost >= count


def test_a_function_that_fails_is_heard_of():
    with pytest.raises(ZeroDivisionError):
        zind.run(["/usr/bin/python3", "-c", CALL + f"call({SETHOSTNAME}, 0, 0)"], violations=lambda violation: 1 / 0)


# --- learned profiles ------------------------------------------------------------------------------------------------
def test_a_learned_profile_lets_the_same_pass_and_another_not():
    # One child: of two, the end of the first can make the fork of the second EINTR (docs/security.md).
    argv = ["sh", "-c", "echo hello > /tmp/it; tr a-z A-Z < /tmp/it"]
    learned = zind.learn(argv, capture_output=True, text=True, timeout=60)
    assert learned.stdout == "HELLO\n" and learned.isolation.seccomp == "learn" and "seccomp" not in learned.isolation.in_force
    profile = learned.profile
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    names = {name for entry in profile["syscalls"] for name in entry["names"]}
    assert {"execve", "read", "write", "exit_group"} <= names and not {"socket", "mount", "sethostname"} & names and len(names) < 80
    again = zind.run(argv, seccomp=profile, capture_output=True, text=True, require={"seccomp"})
    assert (again.returncode, again.stdout) == (0, "HELLO\n")
    other = zind.run(["/usr/bin/python3", "-c", "import socket; socket.socket()"], seccomp=profile, capture_output=True)
    assert other.returncode != 0
    again = zind.run(["sh", "-c", "unshare -U true && echo bad"], seccomp=profile, capture_output=True, text=True)
    assert again.stdout == ""


def test_what_is_dangerous_is_learned_with_its_arguments():
    source = "import socket, threading; socket.socket(socket.AF_UNIX).close(); t = threading.Thread(target=print); t.start(); t.join()"
    argv = ["/usr/bin/python3", "-c", source]
    profile = zind.learn(argv, timeout=120, check=True, capture_output=True).profile
    entries = {entry["names"][0]: entry for entry in profile["syscalls"][1:]}
    assert entries["socket"]["args"] == [{"index": 0, "op": "SCMP_CMP_EQ", "value": socket.AF_UNIX}]
    assert entries["clone"]["args"][0]["op"] == "SCMP_CMP_MASKED_EQ" and entries["clone3"]["errnoRet"] == errno.ENOSYS
    assert zind.run(argv, seccomp=profile, capture_output=True).returncode == 0
    worse = source.replace("AF_UNIX", "AF_INET")
    assert zind.run(["/usr/bin/python3", "-c", worse], seccomp=profile, capture_output=True).returncode == 1
    with zind.Popen(["true"]) as p, pytest.raises(zind.StateError):
        p.learned()


def test_containers_that_live_on_take_profiles_without_a_listener(tmp_path):
    profile = allow_but(rule("ERRNO", "sethostname", errnoRet=71))
    with zind.Container(["sleep", "60"], containers=tmp_path / "place", seccomp=profile) as c:
        c.start()
        assert c.isolation.seccomp == "profile"
        found = c.exec(["/usr/bin/python3", "-c", CALL + f"print(call({SETHOSTNAME}, 0, 0))"], capture_output=True, text=True)
        assert found.stdout == "EPROTO\n", found
        c.kill()
    for options in ({"seccomp": allow_but(rule("NOTIFY", "uname"))}, {"violations": True}, {"seccomp": "learn"}):
        with zind.Container(["true"], containers=tmp_path / "place", **options) as c, pytest.raises(zind.UnsupportedError):
            c.start()
