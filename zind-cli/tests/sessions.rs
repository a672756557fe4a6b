//! Sessions at a terminal, kept as text: what was typed, what was shown, and the exit status. Each is typed by root and by an
//! ordinary user, in a store of its own. `ZIND_UPDATE=1 cargo test -p zind-cli` writes anew what is shown; then read the difference.
//!
//! A line `$ command` is given to a shell with `zind` first in its path and `$TMP` as working directory; `# root` or `# user` before
//! it says who alone types it. What differs from run to run is replaced: ids by `ID`, digests by `sha256:DIGEST`, ages by `AGE`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Nobody's number.
const SOMEBODY: u32 = 64_123;

/// A directory to type in, with the command.
struct Room(PathBuf);

impl Room {
    fn new(name: &str, owner: Option<u32>) -> Room {
        let path =
            std::env::temp_dir().join(format!("zind-test-cli-{name}-{}-{}", std::process::id(), owner.unwrap_or(0)));
        fs::create_dir_all(path.join("bin")).unwrap();
        // Out of the way of who may not look into the directories of the build.
        let (built, here) = (env!("CARGO_BIN_EXE_zind"), path.join("bin/zind"));
        fs::hard_link(built, &here).or_else(|_| fs::copy(built, &here).map(drop)).unwrap();
        if let Some(owner) = owner {
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        Room(path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What hangs is ended, with a status that no session has.
const LIMIT: [&str; 3] = ["timeout", "120", "sh"];

/// Types a command; what was shown, and the status.
fn type_in(room: &Room, owner: Option<u32>, command: &str) -> String {
    let path = format!("{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", room.0.display());
    let mut shell = match owner {
        Some(id) => {
            let mut shell = Command::new("setpriv");
            shell.args(["--reuid", &id.to_string(), "--regid", &id.to_string(), "--clear-groups"]).args(LIMIT);
            shell
        }
        None => {
            let mut shell = Command::new(LIMIT[0]);
            shell.args(&LIMIT[1..]);
            shell
        }
    };
    shell.args(["-c", &format!("exec 2>&1; {command}")]).env_clear().current_dir(&room.0).stdin(Stdio::null());
    shell.env("PATH", path).env("HOME", &room.0).env("ZIND_STORE", room.0.join("store")).env("TMP", &room.0);
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let status = output.status.code().map_or_else(|| format!("{:?}", output.status), |code| code.to_string());
    plain(&format!("{text}{end}-> {status}\n"), &room.0)
}

/// Without what differs from run to run.
fn plain(text: &str, room: &Path) -> String {
    let text = text.replace(&room.display().to_string(), "$TMP");
    text.lines().map(|line| plain_line(line) + "\n").collect()
}

fn plain_line(line: &str) -> String {
    let is_hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_table = |line: &str| line.contains("   ");
    let word = |word: &str| {
        let bare = word.trim_matches(|char: char| !char.is_ascii_alphanumeric());
        let digest = bare.strip_prefix("sha256:").unwrap_or(bare);
        match () {
            () if is_hex(digest, 64) => word.replace(digest, "DIGEST"),
            () if is_hex(bare, 12) => word.replace(bare, "ID"),
            () if bare.starts_with("20") && bare.ends_with('Z') && bare.contains('T') => word.replace(bare, "DATE"),
            () if bare.ends_with("MB") && bare.starts_with(|char: char| char.is_ascii_digit()) => {
                word.replace(bare, "SIZE")
            }
            () => word.to_owned(),
        }
    };
    let mut line = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    if let (Some(end), true) = (line.find(" ago"), is_table(&line)) {
        let start = line[..end].rfind("   ").map_or(0, |at| at + 3);
        line.replace_range(start..end + 4, "AGE");
    }
    if line.trim_start().starts_with("\"size\":") {
        line = "    \"size\": SIZE,".to_owned();
    }
    if is_table(&line) {
        // Columns are as wide as what is in them.
        while line.trim_start().contains("    ") {
            let indent = line.len() - line.trim_start().len();
            line = line[..indent].to_owned() + &line[indent..].replace("    ", "   ");
        }
    }
    line.trim_end().to_owned()
}

fn session(name: &str, owner: Option<u32>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sessions/{name}.txt"));
    let text = fs::read_to_string(&file).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let room = Room::new(name, owner);
    let who = if owner.is_none() && is_root() { "# root" } else { "# user" };
    let (mut shown, mut expected) = (String::new(), String::new());
    let mut is_ours = true;
    let mut only: Option<&str> = None;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            is_ours = only.take().is_none_or(|only| only == who);
            if is_ours {
                shown += &format!("{line}\n{}", type_in(&room, owner, command));
            }
        } else if line == "# root" || line == "# user" {
            only = Some(line);
            continue;
        }
        if is_ours {
            expected += &format!("{line}\n");
        }
    }
    if std::env::var_os("ZIND_UPDATE").is_some() {
        update(&file, &text, who, &shown);
        return;
    }
    assert_eq!(shown, expected, "{name}, typed by {}", &who[2..]);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "a mount is left");
    let path = room.0.clone();
    drop(room);
    assert!(!path.exists(), "a file is left that cannot be removed");
}

/// Puts what was shown below what was typed, where it was typed by this one.
fn update(file: &Path, text: &str, who: &str, shown: &str) {
    let mut shown = shown.split_inclusive('\n').peekable();
    let mut new = String::new();
    let mut is_ours = true;
    let mut only: Option<&str> = None;
    for line in text.lines() {
        if line.starts_with("$ ") {
            is_ours = only.take().is_none_or(|only| only == who);
            new += &format!("{line}\n");
            if is_ours {
                shown.next();
                while let Some(line) = shown.next_if(|line| !line.starts_with("$ ")) {
                    new += line;
                }
            }
        } else if line == "# root" || line == "# user" {
            only = Some(line);
            new += &format!("{line}\n");
        } else if !is_ours {
            new += &format!("{line}\n");
        }
    }
    fs::write(file, new).unwrap();
}

/// Root types it, and then somebody; or only who runs the tests.
fn sessions(name: &str) {
    session(name, None);
    if is_root() {
        session(name, Some(SOMEBODY));
    }
}

#[test]
fn errors_are_one_line_with_the_cure() {
    sessions("errors");
}

#[test]
fn run_is_what_a_docker_user_expects() {
    sessions("run");
}

#[test]
fn containers_live_on() {
    sessions("containers");
}

#[test]
fn changes_are_told_and_become_images() {
    sessions("changes");
}

#[test]
fn what_runs_in_the_foreground_is_found() {
    sessions("found");
}

#[test]
fn images_come_and_go() {
    sessions("images");
}

#[test]
fn every_verb_says_what_is_wrong() {
    sessions("verbs");
}

/// Each verb of the overview, by what somebody types.
fn all_verbs() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_zind")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let verbs = text.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with([' ', '-']));
    verbs.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_verb_is_without_its_help_and_an_error_in_a_session() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions");
    let files = fs::read_dir(directory).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let text = format!("\n{}", files.collect::<String>());
    let blocks: Vec<&str> = text.split("\n$ ").collect();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")).unwrap();
    let verbs = all_verbs();
    assert!(verbs.len() > 30, "{verbs:?}");
    for verb in verbs {
        let is_error = |block: &&str| {
            let (command, shown) = block.split_once('\n').unwrap_or((block, ""));
            let is_typed = command.contains(&format!("zind {verb} ")) || command.ends_with(&format!("zind {verb}"));
            is_typed && shown.lines().any(|line| line.starts_with("zind: "))
        };
        assert!(blocks.iter().any(is_error), "no session has an error of {verb}");
        let said = |words: [&str; 2]| {
            let output = Command::new(env!("CARGO_BIN_EXE_zind")).args(words).output().unwrap();
            assert!(output.status.success(), "{words:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let help = said(["help", &verb]);
        assert!(page.contains(help.trim_end()), "docs/cli.md has another help of {verb}");
        assert_eq!(said([&verb, "--help"]).lines().next(), help.lines().next());
    }
}

#[test]
fn the_low_level_is_util_linuxs() {
    sessions("lowlevel");
}

#[test]
fn the_example_runs() {
    let room = Room::new("example", None);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shell/session.sh");
    let shown = type_in(&room, None, &example.display().to_string());
    for part in ["process 2 of a container of its own", "a second program", "Exited (", "-> 0\n"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn the_reference_is_that_of_the_command() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let output = Command::new(env!("CARGO_BIN_EXE_zind")).arg("reference").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if std::env::var_os("ZIND_UPDATE").is_some() {
        fs::write(&page, &text).unwrap();
    }
    let is_same = fs::read_to_string(&page).is_ok_and(|page| page == text);
    assert!(is_same, "docs/cli.md is old: ZIND_UPDATE=1 cargo test -p zind-cli");
}

#[test]
fn man_pages_and_completions_come_from_the_same_table() {
    let room = Room::new("man", None);
    let shown = type_in(
        &room,
        None,
        "zind man . && ls *.1 | head -3 && grep -q memory zind-run.1 && for shell in bash zsh fish; do zind completion $shell | grep -q memory && echo $shell; done",
    );
    assert!(shown.ends_with("bash\nzsh\nfish\n-> 0\n") && shown.starts_with("zind-"), "{shown}");
}
