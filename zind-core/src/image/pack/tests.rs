use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use super::*;
use crate::namespace::idmap::IdMap;
use crate::rootfs::layers::{Layer, Marks};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("zind-test-pack-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn view(&self, layers: &[&str], marks: Option<Marks>) -> View {
        View::open(layers.iter().map(|name| Layer(self.0.join(name))), marks).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn packed(view: &View, options: Options<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    pack(view, options, &mut out, &mut |_| false).unwrap();
    out
}

/// What GNU tar says about it.
fn listed(tar: &[u8]) -> Vec<String> {
    let mut child = Command::new("tar")
        .args(["--numeric-owner", "-tf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn a_tree_is_packed_in_order_and_read_by_tar() {
    let place = Place::new("tree");
    place.write("t/b/file", "content");
    place.write("t/a", "x");
    place.write(&format!("t/{}/{}", "d".repeat(90), "e".repeat(200)), "long");
    symlink("../outside", place.0.join("t/link")).unwrap();
    std::fs::hard_link(place.0.join("t/a"), place.0.join("t/z")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.0.join("t/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.0.join("t/socket")).unwrap());
    let tar = packed(&place.view(&["t"], None), Options::default());
    let long = format!("{}/{}", "d".repeat(90), "e".repeat(200));
    assert_eq!(listed(&tar), ["./", "a", "b/", "b/file", &format!("{}/", "d".repeat(90)), &long, "fifo", "link", "z"]);
    assert_eq!(tar, packed(&place.view(&["t"], None), Options::default()));
    // What it unpacks to is the same tree again.
    std::fs::create_dir(place.0.join("u")).unwrap();
    let mut child = Command::new("tar")
        .arg("-xpf")
        .arg("-")
        .arg("-C")
        .arg(place.0.join("u"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(tar, packed(&place.view(&["u"], None), Options::default()));
}

#[test]
fn deletions_are_written_where_there_is_something_to_delete() {
    let place = Place::new("whiteouts");
    for file in ["base/gone", "base/dir/old", "base/kept/x", "base/file"] {
        place.write(file, "base");
    }
    for (layer, file) in [("one", "dir/new"), ("one", "kept/y"), ("two", "kept/z"), ("two", "file/inside")] {
        place.write(&format!("{layer}/{file}"), layer);
    }
    for file in ["one/gone", "one/never", "two/kept/y"] {
        place.write(file, "");
        set(&place.0.join(file), "user.overlay.whiteout", b"y");
    }
    for dir in ["one/dir", "two/file"] {
        set(&place.0.join(dir), "user.overlay.opaque", b"y");
    }
    let base = place.view(&["base"], Some(Marks::User));
    let tree = place.view(&["two", "one"], Some(Marks::User));
    let tar = packed(&tree, Options { below: Some(&base), ..Options::default() });
    let expected = ["dir/", "dir/.wh..wh..opq", "dir/new", "file/", "file/inside", "kept/", "kept/z", ".wh.gone"];
    let mut found = listed(&tar);
    let mut expected = expected.map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // A name that means a deletion cannot be a file's.
    place.write("two/.wh.x", "");
    let result = pack(&tree, Options::default(), &mut Vec::new(), &mut |_| false);
    assert!(matches!(result, Err(Error::Image { what, .. }) if what == "/.wh.x"));
}

#[test]
fn ids_are_the_containers_or_those_that_were_kept() {
    let place = Place::new("ids");
    place.write("t/file", "x");
    std::fs::set_permissions(place.0.join("t/file"), PermissionsExt::from_mode(0o4711)).unwrap();
    set(&place.0.join("t/file"), meta::OWNER, b"70000:50:100644");
    set(&place.0.join("t/file"), "user.other", b"\0\xff");
    let view = place.view(&["t"], None);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let entries = |options: Options<'_>| -> BTreeMap<String, (u32, u32, u32, usize)> {
        let Node::Directory { .. } = view.root().unwrap() else { panic!() };
        let Found::File(stat, file) = view.look(0, Path::new("file")).unwrap() else { panic!() };
        let read = |name: &OsStr| view.attribute(file.as_fd(), name, 0, Path::new("file"));
        let meta = Meta::of(&stat, &file, &options, Path::new("file"), &read).unwrap();
        [("file".to_owned(), (meta.uid, meta.gid, meta.mode, meta.xattrs.len()))].into()
    };
    assert_eq!(entries(Options::default())["file"], (uid, gid, 0o4711, 1));
    let kept = entries(Options { owners_in_xattr: true, ..Options::default() });
    assert_eq!(kept["file"], (70000, 50, 0o4711, 1));
    let map = |id| vec![IdMap { container: 7, host: id, size: 1 }];
    let ids = Ids { uid: map(uid), gid: map(gid) };
    assert_eq!(entries(Options { ids: Some(&ids), ..Options::default() })["file"].0, 7);
    let other = Ids { uid: map(uid + 1), gid: map(gid) };
    let result = pack(&view, Options { ids: Some(&other), ..Options::default() }, &mut Vec::new(), &mut |_| false);
    assert!(matches!(result, Err(Error::Image { rule, .. }) if rule.contains("no id in the container's map")));
}

#[test]
fn who_asks_to_stop_is_heard() {
    let place = Place::new("stop");
    place.write("t/file", "x");
    let result = pack(&place.view(&["t"], None), Options::default(), &mut Vec::new(), &mut |_| true);
    assert!(matches!(result, Err(Error::Interrupted)));
}

#[test]
fn every_compression_is_read_by_its_own_tool() {
    for (compression, tool) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd"), (Compression::None, "cat")] {
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(&[7; 100_000]).unwrap();
        let bytes = encoder.finish().unwrap();
        let Ok(mut child) = Command::new(tool)
            .args(if tool == "cat" { None } else { Some("-dc") })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: there is no {tool}");
            continue;
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, [7; 100_000]);
        assert_eq!(Compression::from_name(compression.name()), Some(compression));
    }
}
