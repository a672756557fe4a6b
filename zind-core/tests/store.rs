//! The promises of the store. Run as root, the whole file is run once more as an ordinary user.
#![allow(missing_docs)]

#[path = "support/images.rs"]
mod images;
#[path = "support/points.rs"]
mod points;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use images::{Layout, Tar, Temp, gzip, header, octal, record};
use serde_json::Value;
use zind_core::image::media;
use zind_core::{
    ArchiveFormat, Digest, Error, IdMap, IdMaps, Image, ImageConfig, Layers, Limits, Owners, Progress, ProgressEvent,
    Store,
};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn store(temp: &Temp) -> Store {
    Store::open(Some(temp.join("store"))).unwrap()
}

fn load(store: &Store, layout: &Layout) -> Result<Vec<Image>, Error> {
    store.load(&layout.dir, &mut ())
}

fn lowers(store: &Store, image: &Image) -> Vec<PathBuf> {
    store.lowers(image, &Owners::of_caller(), &mut ()).unwrap()
}

/// Everything in a tree but the content of directories named `store`: path, mode, size, links, time and content.
fn picture(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let what = format!("{:o} {} {} {}", meta.mode(), meta.nlink(), meta.mtime(), Digest::of(&content));
        all.push(format!("{} {what}", path.display()));
        if meta.is_dir() && path.file_name().is_none_or(|name| name != "store") {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

/// Nothing that is half made is left, and everything is as it should be.
fn assert_clean(store: &Store) {
    for name in ["ingest", "work", "trash"] {
        let left: Vec<_> = fs::read_dir(store.place().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    for owners in fs::read_dir(store.place().join("snapshots")).unwrap() {
        for snapshot in fs::read_dir(owners.unwrap().path()).unwrap() {
            let name = snapshot.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{name}");
        }
    }
    assert_eq!(store.verify(&mut ()).unwrap(), []);
}

/// A layer of a case in hostile-images.json.
fn layer_of(case: &Value, victim: &str) -> Vec<Vec<u8>> {
    let fill = |text: &str| match text.strip_prefix('<') {
        Some(_) => "d/".repeat(2100) + "x",
        None => text.replace("{VICTIM}", victim),
    };
    let Value::Array(layers) = &case["layers"] else {
        // Directories in directories, every 199th level given.
        let mut tar = Tar::new().dir("./", 0o755);
        for depth in (1..=2000).filter(|depth| depth % 199 == 0 || *depth == 2000) {
            tar = tar.dir(&"d/".repeat(depth), 0o755);
        }
        return vec![tar.end()];
    };
    let entry = |tar: Tar, entry: &Value| {
        let text = |name: &str| fill(entry[name].as_str().unwrap_or_default());
        let kind = match entry["type"].as_str().unwrap() {
            "file" => b'0',
            "hardlink" => b'1',
            "symlink" => b'2',
            "char" => b'3',
            "block" => b'4',
            "dir" => b'5',
            "fifo" => b'6',
            other => panic!("{other}"),
        };
        let mode = u32::from_str_radix(&entry["mode"].as_str().unwrap()[2..], 8).unwrap();
        let ids = (entry["uid"].as_u64().unwrap(), entry["gid"].as_u64().unwrap());
        let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
        for (key, value) in entry["pax"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            let bytes = match key.contains("capability") {
                true => (0..value.len() / 2).map(|at| u8::from_str_radix(&value[2 * at..][..2], 16).unwrap()).collect(),
                false => fill(value).into_bytes(),
            };
            pax.push((key.clone(), bytes));
        }
        let mut tar =
            tar.entry(text("name").as_bytes(), kind, text("data").as_bytes(), mode, ids, text("link").as_bytes(), &pax);
        if let Some([major, minor]) =
            entry["dev"].as_array().map(|dev| [dev[0].as_u64().unwrap(), dev[1].as_u64().unwrap()])
        {
            let at = tar.0.len() - 512;
            let block: &mut [u8; 512] = (&mut tar.0[at..]).try_into().unwrap();
            octal(&mut block[329..337], major);
            octal(&mut block[337..345], minor);
            images::checksum(block);
        }
        tar
    };
    layers.iter().map(|layer| layer.as_array().unwrap().iter().fold(Tar::new(), entry).end()).collect()
}

const REFUSED: [&str; 12] = [
    "dotdot",
    "hardlink-abs",
    "hardlink-dotdot",
    "hardlink-chmod",
    "root-symlink-slash",
    "whiteout-dot",
    "whiteout-empty",
    "whiteout-dotdot-path",
    "whiteout-link-type",
    "long-name-4096",
    "uid-2p32",
    "pax-bad-path",
];
const ALSO_REFUSED: [&str; 2] = ["empty-name", "only-dots"];

#[test]
fn hostile_layers_stay_inside() {
    let cases: Value = serde_json::from_str(include_str!("hostile-images.json")).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() >= 29);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let temp = Temp::new(&format!("hostile-{name}"));
        let victim = temp.join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("keep"), "HOST").unwrap();
        fs::set_permissions(victim.join("keep"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut layout = Layout::new(temp.join("layout"));
        layout.image("a", &layer_of(case, victim.to_str().unwrap()));
        let store = store(&temp);
        let before = picture(&temp.0);
        let result = load(&store, &layout);
        assert_eq!(picture(&temp.0), before, "{name}");
        if REFUSED.contains(&name) || ALSO_REFUSED.contains(&name) {
            match result {
                Err(Error::Image { what, rule }) => {
                    assert!(what.contains("layer sha256:") && what.contains("entry"), "{name}: {what}: {rule}");
                }
                other => panic!("{name}: {other:?}"),
            }
            assert!(store.images().unwrap().is_empty(), "{name}");
            store.gc().unwrap();
            let left = store.usage().unwrap();
            assert_eq!((left.blobs, left.snapshots, left.partial), (0, 0, 0), "{name}");
        } else {
            let images = result.unwrap_or_else(|error| panic!("{name}: {error}"));
            look_closer(name, &lowers(&store, &images[0]));
            assert_clean(&store);
        }
    }
}

/// What an accepted case must have become.
fn look_closer(name: &str, lowers: &[PathBuf]) {
    let top = &lowers[0];
    let read = |name: &str| fs::read(top.join(name)).unwrap();
    match name {
        "dup-entry" => assert_eq!(read("a"), b"EVIL"),
        "dup-file-dir" => {
            assert_eq!(read("a"), b"2");
            assert_eq!(fs::read_dir(top).unwrap().count(), 1);
        }
        "symlink-dir-over" => assert_eq!(read("l/f3"), b"EVIL"),
        "hardlink-to-symlink" => assert_eq!(read("h"), b"EVIL"),
        "fifo" => assert!(fs::symlink_metadata(top.join("f")).unwrap().file_type().is_fifo()),
        "blockdev" => {
            let meta = fs::symlink_metadata(top.join("sda")).unwrap();
            assert_eq!(meta.file_type().is_block_device(), is_root());
            assert!(is_root() || meta.permissions().mode() & 0o777 == 0o400);
        }
        "uid-2p31" if is_root() => assert_eq!(fs::metadata(top.join("u")).unwrap().uid(), 1 << 31),
        "newline-name" => assert_eq!(read("a\nb\tc\u{1b}[31m"), b"x"),
        "overlay-xattr-opaque" => assert!(xattr(&top.join("d"), "trusted.overlay.opaque").is_none()),
        "cap-xattr" => {
            let name = if is_root() { "security.capability" } else { "user.zind.capability" };
            assert_eq!(xattr(&top.join("s"), name).unwrap().len(), 20);
        }
        _ => {}
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// Bytes that do not become fewer by compression.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Changes a few bytes, the same each time.
fn spoil(bytes: &mut [u8], state: &mut u64) {
    let mut next = |below: usize| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    };
    for _ in 0..=next(4) {
        let at = next(bytes.len());
        // Often what means something in a name, a link or a number.
        bytes[at] = [b'/', b'.', 0, b'7', b'1', b'2', b'5', 0xff, next(256) as u8][next(9)];
    }
}

#[test]
fn spoiled_layers_stay_inside() {
    let temp = Temp::new("spoiled");
    let victim = temp.join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("keep"), "HOST").unwrap();
    let up = format!("../../../../../../../..{}", victim.display());
    let bottom = Tar::new()
        .dir("./", 0o755)
        .dir("d", 0o755)
        .file("d/a", b"1")
        .symlink("out", victim.to_str().unwrap())
        .symlink("up", &up)
        .hard_link("d/h", "d/a")
        .end();
    let top = Tar::new()
        .file("out/keep", b"EVIL")
        .file("up/.wh.keep", b"")
        .file("d/.wh.a", b"")
        .file("d/.wh..wh..opq", b"")
        .end();
    let store = store(&temp);
    fs::create_dir(temp.join("layout")).unwrap();
    let before = picture(&victim);
    let (mut state, mut taken) = (1, 0);
    for round in 0..250 {
        let mut tars = [bottom.clone(), top.clone()];
        for tar in &mut tars {
            spoil(tar, &mut state);
            for at in (0..tar.len() - 1024).step_by(512).collect::<Vec<_>>() {
                let block: &mut [u8; 512] = (&mut tar[at..at + 512]).try_into().unwrap();
                if block[257..262] == *b"ustar" {
                    images::checksum(block);
                }
            }
        }
        let mut layout = Layout::new(temp.join("layout"));
        layout.image("a", &tars);
        match load(&store, &layout) {
            Ok(_) => taken += 1,
            // Owners that no system has, names that are too long: whatever, as long as it is an error.
            Err(Error::Image { .. } | Error::Sys { .. }) => {}
            Err(error) => panic!("{round}: {error}"),
        }
        assert_eq!(picture(&victim), before, "{round}");
    }
    assert!(taken > 20, "only {taken} were taken");
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn spoiled_documents_are_only_errors() {
    use zind_core::image::{Index, Manifest};
    let digest = Digest::of(b"x");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{digest}","size":1}},"layers":[{{"mediaType":"b","digest":"{digest}","size":2,"urls":["u"],"annotations":{{"k":"v"}}}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a","digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"arm"}}}}]}}"#
    );
    let config = format!(
        r#"{{"os":"linux","config":{{"Env":["A=1"],"Volumes":{{"/v":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created":"c"}}]}}"#
    );
    let (mut state, mut taken) = (1, 0);
    for _ in 0..20_000 {
        for (number, document) in [&manifest, &index, &config].into_iter().enumerate() {
            let mut bytes = document.clone().into_bytes();
            spoil(&mut bytes, &mut state);
            // What is taken can be written, and read again as the same.
            let same = match number {
                0 => Manifest::parse("m", &bytes).map(|read| Manifest::parse("m", &read.to_bytes()).unwrap() == read),
                1 => Index::parse("i", &bytes).map(|read| Index::parse("i", &read.to_bytes()).unwrap() == read),
                _ => ImageConfig::parse("c", &bytes).map(|read| {
                    let again = ImageConfig::parse("c", &read.to_bytes()).unwrap();
                    again.diff_ids == read.diff_ids && again.config == read.config && again.history == read.history
                }),
            };
            match same {
                Ok(same) => {
                    assert!(same, "{}", String::from_utf8_lossy(&bytes));
                    taken += 1;
                }
                Err(error) => assert!(matches!(error, Error::Image { .. })),
            }
        }
    }
    assert!(taken > 100, "only {taken} were taken");
}

/// Loads one layer, given as a blob and the DiffID that is said.
fn load_raw(temp: &Temp, blob: &[u8], diff_id: &Digest) -> Result<Vec<Image>, Error> {
    let mut layout = Layout::new(temp.join("layout"));
    let layer = layout.blob(media::LAYER_GZIP, blob);
    let config = layout.config(&[diff_id.to_string()]);
    layout.image_of("a", &config, &[layer]);
    load(&store(temp), &layout)
}

#[test]
fn broken_tars_are_refused() {
    let good = Tar::new().dir("./", 0o755).file("a", &[7; 100_000]).end();
    let mut flipped = good.clone();
    flipped[512 + 3] ^= 1;
    let with_size = |kind: u8, change: &dyn Fn(&mut [u8])| {
        let mut block = header(b"a", kind, 0, 0o644, (0, 0), b"");
        change(&mut block[124..136]);
        images::checksum(&mut block);
        Tar::new().block(block).end()
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("truncated-tar", good[..good.len() - 62_000].to_vec(), "ends in the middle"),
        ("bad-checksum", flipped, "checksum"),
        ("size-8eib-header", with_size(b'0', &|field| octal(field, 1 << 62)), "at most"),
        ("gnu-longname-2gib", with_size(b'L', &|field| octal(field, 1 << 31)), "larger than"),
        ("negative-size", with_size(b'0', &|field| field.fill(0xff)), "negative"),
        ("pax-gib", with_size(b'x', &|field| octal(field, 1 << 30)), "larger than"),
        ("unknown-type", Tar::new().block(header(b"a", b'Z', 0, 0o644, (0, 0), b"")).end(), "unknown type"),
        ("garbage", vec![1; 5000], "checksum"),
        ("whiteout-device", Tar::new().block(header(b"a", b'3', 0, 0o644, (0, 0), b"")).end(), "deletion"),
    ];
    for (name, tar, rule) in cases {
        let temp = Temp::new(&format!("broken-{name}"));
        let error = load_raw(&temp, &gzip(&tar), &Digest::of(&tar)).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{name}: {error}");
        assert!(error.to_string().contains(rule), "{name}: {error}");
        assert_eq!(fs::read_dir(temp.join("store/ingest")).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn broken_blobs_and_documents_are_refused() {
    let tar = Tar::new().dir("./", 0o755).file("a", &[7; 100_000]).end();
    let blob = gzip(&tar);
    let diff_id = Digest::of(&tar);
    // What is done to a good layout, and what the error says.
    type Change = fn(&mut Layout, &Value, &Value);
    let path =
        |layout: &Layout, layer: &Value| layout.dir.join("blobs/sha256").join(&layer["digest"].as_str().unwrap()[7..]);
    let cases: [(&str, Change, &str); 9] = [
        ("bad-blob", |layout, config, layer| layout.image_of("a", config, std::slice::from_ref(layer)), "digest"),
        (
            "bad-short",
            |layout, config, layer| layout.image_of("a", config, std::slice::from_ref(layer)),
            "bytes instead of",
        ),
        ("bad-missing", |layout, config, layer| layout.image_of("a", config, std::slice::from_ref(layer)), "missing"),
        (
            "bad-digpath",
            |layout, config, layer| {
                let mut layer = layer.clone();
                layer["digest"] = "sha256:../../victim/keep".into();
                layout.image_of("a", config, &[layer]);
            },
            "digits",
        ),
        (
            "bad-negsize",
            |layout, config, layer| {
                let mut layer = layer.clone();
                layer["size"] = (-1).into();
                layout.image_of("a", config, &[layer]);
            },
            "no size",
        ),
        ("bad-nolayers", |layout, config, _| layout.image_of("a", config, &[]), "0 layers"),
        (
            "wrong-diff-id",
            |layout, _, layer| {
                let config = layout.config(&[Digest::of(b"other").to_string()]);
                layout.image_of("a", &config, std::slice::from_ref(layer));
            },
            "has the content",
        ),
        (
            "unknown-layer",
            |layout, config, layer| {
                let mut layer = layer.clone();
                layer["mediaType"] = "application/x-evil".into();
                layout.image_of("a", config, &[layer]);
            },
            "unknown type",
        ),
        ("trailing", |layout, config, layer| layout.image_of("a", config, std::slice::from_ref(layer)), "decompressed"),
    ];
    for (name, change, rule) in cases {
        let temp = Temp::new(&format!("blob-{name}"));
        let mut layout = Layout::new(temp.join("layout"));
        let mut blob = blob.clone();
        if name == "trailing" {
            blob.extend_from_slice(b"garbage after the end");
        }
        let layer = layout.blob(media::LAYER_GZIP, &blob);
        let config = layout.config(&[diff_id.to_string()]);
        change(&mut layout, &config, &layer);
        match name {
            "bad-blob" => {
                let mut bytes = blob.clone();
                bytes[..8].fill(0x1f);
                bytes[1] = 0x8b;
                fs::write(path(&layout, &layer), bytes).unwrap();
            }
            "bad-short" => fs::write(path(&layout, &layer), &blob[..blob.len() - 50]).unwrap(),
            "bad-missing" => fs::remove_file(path(&layout, &layer)).unwrap(),
            _ => {}
        }
        let store = store(&temp);
        let error = load(&store, &layout).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{name}: {error}");
        assert!(error.to_string().contains(rule), "{name}: {error}");
        store.gc().unwrap();
        assert_eq!(store.usage().unwrap().blobs, 0, "{name}");
    }
}

#[test]
fn a_blob_with_another_digest_is_refused() {
    let temp = Temp::new("other-digest");
    let tar = Tar::new().file("a", b"1").end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", std::slice::from_ref(&tar));
    let digest = Digest::of(&gzip(&tar));
    let mut other = gzip(&tar);
    // The time in gzip's header: the same content, another blob.
    other[4] ^= 1;
    fs::write(layout.dir.join("blobs/sha256").join(digest.hex()), other).unwrap();
    let store = store(&temp);
    let error = load(&store, &layout).unwrap_err().to_string();
    assert!(error.contains("not what its digest says"), "{error}");
    assert_eq!(fs::read_dir(store.place().join("ingest")).unwrap().count(), 0);
    assert!(!store.has_blob(&digest));
}

#[test]
fn bombs_are_stopped() {
    struct Zeros(u64);
    impl std::io::Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(self.0 as usize);
            buffer[..count].fill(0);
            self.0 -= count as u64;
            Ok(count)
        }
    }
    let temp = Temp::new("bomb");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let begin = header(b"zeros", b'0', 3 << 30, 0o644, (0, 0), b"");
    std::io::Write::write_all(&mut encoder, &begin).unwrap();
    std::io::copy(&mut Zeros(300 << 20), &mut encoder).unwrap();
    let error = load_raw(&temp, &encoder.finish().unwrap(), &Digest::of(b"")).unwrap_err().to_string();
    assert!(error.contains("times larger"), "{error}");
    let place = temp.join("store");
    let limits = Limits::default();
    let mut small = limits;
    small.entries = 10;
    small.depth = 3;
    small.file_size = 100;
    let store = Store::open_with(Some(place), small).unwrap();
    assert_eq!(store.usage().unwrap().snapshots, 0);
    let many = (0..11).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), b"")).end();
    for (tar, rule) in [
        (many, "entries"),
        (Tar::new().file("a/b/c/d", b"").end(), "deeper"),
        (Tar::new().file("a", &[0; 101]).end(), "at most 100"),
    ] {
        let mut layout = Layout::new(temp.join("layout2"));
        layout.image("a", &[tar]);
        let error = load(&store, &layout).unwrap_err().to_string();
        assert!(error.contains(rule), "{error}");
    }
}

#[test]
fn windows_and_documents_are_bounded() {
    let temp = Temp::new("window");
    // A frame of zstd that wants a window of 1 GiB: magic, no flags, exponent 20.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
    let error = load_raw(&temp, &frame, &Digest::of(b"")).unwrap_err().to_string();
    assert!(error.contains("cannot be decompressed"), "{error}");
    let store = store(&temp);
    let mut layout = Layout::new(temp.join("large"));
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20));
    let config = layout.blob(media::CONFIG, huge.as_bytes());
    layout.image_of("a", &config, &[]);
    let error = load(&store, &layout).unwrap_err().to_string();
    assert!(error.contains("document of more than 4194304 bytes"), "{error}");
    for (name, text) in [
        ("twice", r#"{"rootfs": {"diff_ids": []}, "rootfs": {"diff_ids": []}}"#.to_owned()),
        ("deep", format!("{}{}", "[".repeat(1000), "]".repeat(1000))),
    ] {
        let mut layout = Layout::new(temp.join(name));
        let config = layout.blob(media::CONFIG, text.as_bytes());
        layout.image_of("a", &config, &[]);
        assert!(matches!(load(&store, &layout), Err(Error::Image { .. })), "{name}");
    }
    let mut layout = Layout::new(temp.join("types"));
    let (layer, id) = layout.layer(&Tar::new().end());
    let config = layout.config(&[id]);
    layout.image_of("a", &config, &[layer]);
    let index = layout.dir.join("index.json");
    let both = fs::read_to_string(&index).unwrap().replacen("{", "{\"layers\": [], ", 1);
    fs::write(&index, both).unwrap();
    assert!(load(&store, &layout).unwrap_err().to_string().contains("taken for a manifest"));
}

fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).env("HOME", "/nonexistent").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: make setup installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Every path of a tree with what it is. The time of the root is not compared: umoci makes it new.
fn tree(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(dir).unwrap();
        let content = match meta.file_type() {
            kind if kind.is_file() => Digest::of(&fs::read(&path).unwrap()).to_string(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            _ => String::new(),
        };
        let time = if name.as_os_str().is_empty() { 0 } else { meta.mtime() };
        let note = if meta.is_file() { xattr(&path, "user.note") } else { None };
        all.push(format!(
            "{name:?} {:o} {}:{} {time} {} {content} {note:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev()
        ));
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

#[test]
fn skopeo_and_umoci_read_the_store_and_write_for_it() {
    // umoci keeps the owners of an image only as root.
    if !is_root() {
        return;
    }
    let temp = Temp::new("others");
    let note = [("SCHILY.xattr.user.note".to_owned(), b"hello".to_vec())];
    let mut tars = vec![
        Tar::new()
            .dir("./", 0o755)
            .dir("etc", 0o750)
            .file("etc/old", b"1")
            .symlink("link", "etc/old")
            .entry(b"owned", b'0', b"2", 0o4755, (1000, 100_000), b"", &note)
            .end(),
    ];
    for number in 0..10 {
        tars.push(Tar::new().file(&format!("etc/f{number}"), b"x").end());
    }
    tars.push(Tar::new().file("etc/.wh.old", b"").file("etc/.wh.f3", b"").hard_link("hard", "owned").end());
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("debian:12", &tars);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let images = store.place().join("images");
    let (images, at) = (images.to_str().unwrap(), |name: &str| temp.join(name).to_str().unwrap().to_owned());
    // Our directory is a layout to both, and what umoci unpacks is what we did.
    run("umoci", &["raw", "unpack", "--image", &format!("{images}:debian:12"), &at("unpacked")]);
    let merged = lowers(&store, &image);
    assert_eq!(merged.len(), 1);
    assert_eq!(tree(&temp.join("unpacked")), tree(&merged[0]));
    // There and back through skopeo, also as zstd.
    let from = format!("oci:{images}:debian:12");
    let id = *image.id();
    for (number, (to, options)) in [
        (format!("oci:{}:a:1", at("plain")), &[][..]),
        (format!("oci:{}:a:1", at("zstd")), &["--dest-compress", "--dest-compress-format", "zstd"]),
        (format!("oci-archive:{}:a:1", at("archive")), &[]),
        (format!("docker-archive:{}:a:1", at("docker")), &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut arguments = vec!["--insecure-policy", "copy", "-q"];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[&from, &to]);
        run("skopeo", &arguments);
        let path = PathBuf::from(to.split(':').nth(1).unwrap());
        let other = Store::open(Some(temp.join(&format!("other-{number}")))).unwrap();
        let loaded = other.load(&path, &mut ()).unwrap().remove(0);
        assert_eq!(tree(&lowers(&other, &loaded)[0]), tree(&merged[0]), "{to}");
        assert!(loaded.id() == &id || to.starts_with("docker"), "{to}");
        assert_clean(&other);
    }
    // What we save, skopeo reads.
    for (format, kind) in [(ArchiveFormat::OciArchive, "oci-archive"), (ArchiveFormat::DockerArchive, "docker-archive")]
    {
        let path = at(&format!("saved-{kind}"));
        image.save(Path::new(&path), format, &mut ()).unwrap();
        run(
            "skopeo",
            &["--insecure-policy", "copy", "-q", &format!("{kind}:{path}:debian:12"), &format!("oci:{}:x", at(kind))],
        );
        run("umoci", &["raw", "unpack", "--image", &format!("{}:x", at(kind)), &at(&format!("{kind}-unpacked"))]);
        assert_eq!(tree(&temp.join(&format!("{kind}-unpacked"))), tree(&merged[0]));
    }
    // What they add to our directory is an image of ours, and what they leave alone stays.
    run("umoci", &["tag", "--image", &format!("{images}:debian:12"), "theirs"]);
    run(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &format!("oci:{}:a:1", at("zstd")), &format!("oci:{images}:copied")],
    );
    assert_eq!(store.image("theirs").unwrap(), image);
    assert_eq!(store.image("debian:12").unwrap().created(), image.created());
    let copied = store.image("copied").unwrap();
    assert_eq!(tree(&lowers(&store, &copied)[0]), tree(&merged[0]));
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn many_files_are_taken() {
    let temp = Temp::new("many");
    let tar = (0..50_000).fold(Tar::new().dir("./", 0o755), |tar, number| tar.file(&format!("f{number}"), b"")).end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[tar]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    assert_eq!(fs::read_dir(&lowers(&store, &image)[0]).unwrap().count(), 50_000);
}

#[test]
fn layers_come_out_as_they_went_in() {
    let temp = Temp::new("right");
    let long = "l".repeat(200);
    let pax = |key: &str, value: &str| vec![(key.to_owned(), value.as_bytes().to_vec())];
    let sparse: Vec<(String, Vec<u8>)> = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.realsize", "1000000"),
    ]
    .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
    .to_vec();
    let mut map = b"2\n0\n3\n999997\n3\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcxyz");
    let bottom = Tar::new()
        .dir("./", 0o755)
        .dir("etc", 0o750)
        .file("etc/gone", b"1")
        .file("etc/kept", b"2")
        .dir("opaque", 0o755)
        .dir("opaque/inner", 0o755)
        .file("opaque/inner/hidden", b"3")
        .file("opaque/also", b"4")
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .entry(b"caf\xe9", b'0', b"5", 0o4755, (0, 0), b"", &[])
        .entry(long.as_bytes(), b'0', b"6", 0o644, (0, 0), b"", &pax("mtime", "1600000000.123456789"))
        .entry(b"attr", b'0', b"7", 0o600, (0, 0), b"", &pax("SCHILY.xattr.user.note", "hello"))
        .entry(b"GNUSparseFile.0/sparse", b'0', &map, 0o644, (0, 0), b"", &sparse)
        .hard_link("hard", "etc/kept")
        .entry(b"owned", b'0', b"8", 0o6755, (100_000, 200_000), b"", &[])
        .end();
    let top = Tar::new()
        .file("etc/.wh.gone", b"")
        .file("etc/.wh.never", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/inner/new", b"9")
        .file("lib/so", b"10")
        .hard_link("hard2", "etc/kept")
        .file("a/b/implied", b"11")
        .end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[bottom, top]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    assert_eq!(image.tags(), ["a"]);
    let lowers = lowers(&store, &image);
    let [top, bottom] = &lowers[..] else { panic!("{lowers:?}") };
    let meta = |path: PathBuf| fs::symlink_metadata(path).unwrap();
    let is_whiteout =
        |name: &str| meta(top.join(name)).file_type().is_char_device() && meta(top.join(name)).rdev() == 0;
    assert!(is_whiteout("etc/gone") && is_whiteout("opaque/also") && is_whiteout("opaque/inner/hidden"));
    assert!(!top.join("etc/never").exists() && meta(top.join("opaque/inner/new")).is_file());
    assert_eq!(fs::read(top.join("usr/lib/so")).unwrap(), b"10");
    assert!(!top.join("lib").exists());
    // Directories that the layer does not give have what those below have.
    assert_eq!(meta(top.join("etc")).mode(), meta(bottom.join("etc")).mode());
    assert_eq!(meta(top.join("etc")).mtime(), 1_600_000_000);
    assert_eq!(meta(top.clone()).mtime(), 1_600_000_000);
    assert_eq!(meta(top.join("a/b")).mode() & 0o7777, 0o755);
    assert_eq!(meta(top.join("hard2")).ino(), meta(bottom.join("etc/kept")).ino());
    assert_eq!(meta(bottom.join("hard")).ino(), meta(bottom.join("etc/kept")).ino());
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(meta(bottom.join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).mode() & 0o7777, 0o4755);
    assert_eq!((meta(bottom.join(&long)).mtime_nsec(), meta(bottom.join(&long)).size()), (123_456_789, 1));
    assert_eq!(xattr(&bottom.join("attr"), "user.note").unwrap(), b"hello");
    let sparse = fs::read(bottom.join("sparse")).unwrap();
    assert_eq!((sparse.len(), &sparse[..4], &sparse[999_996..]), (1_000_000, &b"abc\0"[..], &b"\0xyz"[..]));
    assert!(meta(bottom.join("sparse")).blocks() < 100);
    let owned = meta(bottom.join("owned"));
    match is_root() {
        true => assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777), (100_000, 200_000, 0o6755)),
        false => assert_eq!(xattr(&bottom.join("owned"), "user.zind.owner").unwrap(), b"100000:200000:106755"),
    }
    assert_clean(&store);
}

#[test]
fn root_unpacks_for_a_user_namespace() {
    // An ordinary user has no ids to give; the tests of the deputy have one with ranges.
    if !is_root() {
        return;
    }
    let temp = Temp::new("mapped");
    let own = |name: &[u8], ids| Tar::new().dir("./", 0o755).entry(name, b'0', b"1", 0o4755, ids, b"", &[]).end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("inside", &[own(b"f", (33, 44)), Tar::new().file("implied/x", b"").end()]);
    layout.image("outside", &[own(b"f", (70_000, 0))]);
    let store = store(&temp);
    let images = load(&store, &layout).unwrap();
    let map = |host| vec![IdMap { container: 0, host, size: 65_536 }];
    let owners = Owners::Mapped { uid: map(100_000), gid: map(200_000) };
    let lowers = store.lowers(&images[0], &owners, &mut ()).unwrap();
    let meta = |path: PathBuf| fs::metadata(path).unwrap();
    let file = meta(lowers[1].join("f"));
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (100_033, 200_044, 0o4755));
    for path in [lowers[0].clone(), lowers[1].clone(), lowers[0].join("implied")] {
        assert_eq!((meta(path.clone()).uid(), meta(path).gid()), (100_000, 200_000));
    }
    let error = store.lowers(&images[1], &owners, &mut ()).unwrap_err().to_string();
    assert!(error.contains("entry f") && error.contains("user 70000"), "{error}");
    assert_clean(&store);
    fs::set_permissions(lowers[1].join("f"), fs::Permissions::from_mode(0o777)).unwrap();
    let faults = store.verify(&mut ()).unwrap();
    assert!(faults.len() == 1 && faults[0].what.contains("/f") && faults[0].images == ["inside"], "{faults:?}");
}

#[test]
fn a_directory_after_a_deletion_shows_nothing_from_below() {
    let temp = Temp::new("again");
    let bottom = Tar::new().dir("d", 0o755).file("d/old", b"1").dir("d/sub", 0o755).file("d/sub/old", b"1").end();
    let top = Tar::new().file(".wh.d", b"").dir("d", 0o700).dir("d/sub", 0o700).file("d/sub/new", b"2").end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[bottom, top]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let top = &lowers(&store, &image)[0];
    let is_whiteout = |name: &str| fs::symlink_metadata(top.join(name)).unwrap().file_type().is_char_device();
    assert!(is_whiteout("d/old") && is_whiteout("d/sub/old") && top.join("d/sub/new").is_file());
    assert_clean(&store);
}

/// A directory that is opaque again and again is looked at once; not if it was something else meanwhile.
#[test]
fn an_opaque_directory_is_hidden_once() {
    let temp = Temp::new("opaque");
    let files = |dir: &str| (0..20).fold(Tar::new().dir(dir, 0o755), |tar, n| tar.file(&format!("{dir}/f{n}"), b"1"));
    let marks = (0..20).fold(Tar::new(), |tar, _| tar.file("d/.wh..wh..opq", b""));
    let again = marks.file("d/f3", b"2").dir("e", 0o755).file("e/.wh..wh..opq", b"").file("e", b"").dir("e", 0o755);
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[[files("d").0, files("e").end()].concat(), again.end()]);
    let trace = temp.join("trace");
    let output = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=mknodat", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture"])
        .env("ZIND_TEST_WORKER", "load")
        .env("ZIND_TEST_DIR", &temp.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&trace).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("mknodat(")).count(), 60, "{text}");
    let store = store(&temp);
    let top = lowers(&store, &store.image("a").unwrap()).remove(0);
    let is_whiteout = |name: String| fs::symlink_metadata(top.join(name)).unwrap().file_type().is_char_device();
    assert!((0..20).all(|n| is_whiteout(format!("d/f{n}")) == (n != 3) && is_whiteout(format!("e/f{n}"))));
    assert_clean(&store);
}

#[test]
fn what_no_file_system_holds_and_nobody_reads_is_named() {
    let temp = Temp::new("named");
    let store = store(&temp);
    let mut layout = Layout::new(temp.join("layout"));
    let pax = [("SCHILY.xattr.user.big".to_owned(), vec![b'x'; 70_000])];
    layout.image("a", &[Tar::new().entry(b"x", b'0', b"", 0o644, (0, 0), b"", &pax).end()]);
    let error = load(&store, &layout).unwrap_err();
    let Error::Image { what, rule } = &error else { panic!("{error}") };
    assert!(what.starts_with("layer sha256:") && what.contains("entry") && rule.contains("attributes"), "{error}");
    let archive = temp.join("root.tar");
    for (name, begin) in [("xz", &b"\xfd7zXZ\0"[..]), ("bzip2", b"BZh91AY&SY"), ("lz4", b"\x04\x22\x4d\x18aa")] {
        fs::write(&archive, [begin, &noise(2000)].concat()).unwrap();
        let import = store.import_rootfs(&archive, None, ImageConfig::default(), &mut ()).unwrap_err();
        let load = store.load(&archive, &mut ()).unwrap_err();
        let layer = load_raw(&temp, &fs::read(&archive).unwrap(), &Digest::of(b"")).unwrap_err();
        for error in [&import, &load, &layer] {
            let Error::Image { what, rule } = error else { panic!("{error}") };
            assert!(rule.contains(name) && rule.contains("decompress it first"), "{error}");
            assert!(what.contains("root.tar") || what.contains("sha256:"), "{error}");
        }
        assert!(import.to_string().contains("root.tar") && load.to_string().contains("root.tar"), "{import}; {load}");
    }
    assert_clean(&store);
}

/// What is deleted may have a name of 255 bytes, to which its mark adds four.
#[test]
fn long_names_are_deleted() {
    let temp = Temp::new("long");
    let (mut bottom, mut top) = (Tar::new().dir("d", 0o755), Tar::new());
    for length in 251..=255 {
        let name = "n".repeat(length);
        bottom = bottom.file(&format!("d/{name}"), b"1");
        top = top.file(&format!("d/.wh.{name}"), b"");
    }
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[bottom.clone().end(), top.end()]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let top = lowers(&store, &image).remove(0);
    for length in 251..=255 {
        let meta = fs::symlink_metadata(top.join("d").join("n".repeat(length))).unwrap();
        assert!(meta.file_type().is_char_device(), "{length}");
    }
    // Nothing else may be longer.
    let long = |name: &str| vec![Tar::new().file(name, b"").end()];
    let name = |count: usize| "n".repeat(count);
    for layers in [
        long(&format!(".wh.{}", name(256))),
        long(&name(256)),
        long(&format!(".wh.{}/x", name(252))),
        vec![Tar::new().hard_link("x", &format!(".wh.{}", name(252))).end()],
    ] {
        let mut layout = Layout::new(temp.join("bad"));
        layout.image("bad", &layers);
        let error = load(&store, &layout).unwrap_err();
        assert!(matches!(&error, Error::Image { rule, .. } if rule.contains("255")), "{error}");
        fs::remove_dir_all(temp.join("bad")).unwrap();
    }
    assert_clean(&store);
}

#[test]
fn images_have_names() {
    let temp = Temp::new("names");
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("debian:12", &[Tar::new().file("a", b"1").end()]);
    layout.image("docker.io/library/debian:13", &[Tar::new().file("a", b"2").end()]);
    let store = store(&temp);
    let images = load(&store, &layout).unwrap();
    let (first, second) = (&images[0], &images[1]);
    assert_eq!(store.images().unwrap(), images);
    for name in ["debian:12", &first.id().to_string(), &first.digest().to_string(), &first.id().hex()[..12]] {
        assert_eq!(store.image(name).unwrap(), *first, "{name}");
    }
    assert_eq!(first.config().unwrap().config.cmd.as_deref(), Some(&["/bin/sh".to_owned()][..]));
    for name in ["debian", "debian:1", "", "..", "sha256:", "ffff0", "de"] {
        assert!(matches!(store.image(name), Err(Error::NotFound { .. })), "{name}");
    }
    store.tag(first, "mine").unwrap();
    assert_eq!(store.image("mine").unwrap().tags(), ["debian:12", "mine"]);
    // Moved to another image.
    store.tag(second, "mine").unwrap();
    assert_eq!(store.image("mine").unwrap(), *second);
    assert_eq!(store.image("debian:12").unwrap().tags(), ["debian:12"]);
    // The last name taken by another leaves an image without.
    store.tag(second, "debian:12").unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    assert!(store.image(&first.id().to_string()).unwrap().tags().is_empty());
    for bad in ["", "-a", "a b", "a\n", "ä", &"x".repeat(513)] {
        assert_eq!(store.tag(first, bad).unwrap_err().field(), Some("name"), "{bad:?}");
    }
    store.remove(&first.id().to_string()).unwrap();
    store.remove("mine").unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    store.remove("debian:12").unwrap();
    assert_eq!(store.image("docker.io/library/debian:13").unwrap().tags().len(), 1);
    assert!(matches!(store.remove("debian:12"), Err(Error::NotFound { .. })));
    assert!(matches!(store.tag(first, "again"), Err(Error::NotFound { .. })));
    // Another value of the same place sees the same.
    assert_eq!(Store::open(Some(temp.join("store"))).unwrap().images().unwrap().len(), 1);
}

#[test]
fn what_nobody_has_is_collected_and_what_is_used_stays() {
    let temp = Temp::new("gc");
    let base = Tar::new().file("base", &[1; 5000]).end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("one", &[base.clone(), Tar::new().file("one", b"1").end()]);
    layout.image("two", &[base, Tar::new().file("two", b"2").end()]);
    let store = store(&temp);
    let images = load(&store, &layout).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.images.len(), usage.unused), (2, 0));
    assert!(usage.images[0].unique < usage.images[0].size && usage.images[0].unpacked > 5000);
    assert_eq!(store.gc().unwrap().blobs, 0);
    let owners = Owners::of_caller();
    let hold = store.hold(&images[0], &owners, &mut ()).unwrap();
    let held = lowers(&store, &images[0]);
    store.remove("one").unwrap();
    store.remove("two").unwrap();
    // A use by a process that is neither this one nor a child: a duplicate of the descriptor counts.
    let fd = hold.into_fd().try_clone().unwrap();
    let collected = store.gc().unwrap();
    assert_eq!((collected.blobs, collected.snapshots), (7, 1));
    assert!(held.iter().all(|lower| lower.exists()));
    drop(fd);
    assert_eq!(store.gc().unwrap().snapshots, 2);
    assert!(held.iter().all(|lower| !lower.exists()));
    assert_eq!((store.usage().unwrap().blobs, store.usage().unwrap().snapshots), (0, 0));
    // What somebody works with stays, too.
    let work = store.work().unwrap();
    let blob = store.put_document("text/plain", b"no image has it").unwrap();
    assert_eq!(store.gc().unwrap().blobs, 0);
    assert_eq!(Store::open(Some(temp.join("store"))).unwrap().gc().unwrap().blobs, 0);
    assert!(store.has_blob(&blob.digest));
    drop(work);
    assert_eq!(store.gc().unwrap().blobs, 1);
    assert_clean(&store);
}

#[test]
fn rot_is_found() {
    let temp = Temp::new("rot");
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[Tar::new().file("file", b"good").symlink("link", "file").end()]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    assert_clean(&store);
    let lower = lowers(&store, &image).remove(0);
    let keep_time = |change: &dyn Fn()| {
        let times = fs::metadata(lower.join("file")).unwrap();
        change();
        let file = fs::File::options().write(true).open(lower.join("file")).unwrap();
        file.set_modified(times.modified().unwrap()).unwrap();
    };
    let fault = |text: &str| {
        let faults = store.verify(&mut ()).unwrap();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].rule.contains(text) && faults[0].images == ["a"], "{faults:?}");
        faults[0].what.clone()
    };
    keep_time(&|| fs::write(lower.join("file"), "evil").unwrap());
    assert!(fault("content").contains("/file"));
    keep_time(&|| fs::write(lower.join("file"), "good").unwrap());
    assert_eq!(store.verify(&mut ()).unwrap(), []);
    fs::set_permissions(lower.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    fault("mode");
    fs::set_permissions(lower.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(lower.join("extra"), "").unwrap();
    assert!(fault("").contains('/'));
    fs::remove_file(lower.join("extra")).unwrap();
    // The directory's time tells that something went on; the cure is to remove the snapshot.
    let snapshot = lower.parent().unwrap();
    fs::remove_dir_all(snapshot).unwrap();
    assert_eq!(store.verify(&mut ()).unwrap(), []);
    assert!(lowers(&store, &image)[0].join("file").exists());
    let layer = &image.layers().unwrap()[0].digest;
    let path = store.place().join("images/blobs/sha256").join(layer.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(fault("not what its digest says").contains(&layer.to_string()));
    fs::remove_file(&path).unwrap();
    fault("missing");
    // Taking it again repairs it.
    load(&store, &layout).unwrap();
    assert_clean(&store);
    fs::write(store.place().join("store"), "zind-store 9\n").unwrap();
    assert!(matches!(Store::open(Some(temp.join("store"))), Err(Error::State(text)) if text.contains("zind-store 9")));
    fs::write(store.place().join("store"), "zind-store 1\n").unwrap();
}

#[test]
fn a_root_in_a_tar_becomes_an_image() {
    let temp = Temp::new("import");
    let tar = Tar::new().dir("./", 0o755).file("./hello", b"world").end();
    let store = store(&temp);
    let mut config = ImageConfig::new();
    config.config.cmd = Some(vec!["/hello".to_owned()]);
    let mut ids = Vec::new();
    for (name, bytes) in
        [("plain", tar.clone()), ("gzip", gzip(&tar)), ("zstd", zstd::encode_all(&tar[..], 3).unwrap())]
    {
        let path = temp.join(name);
        fs::write(&path, bytes).unwrap();
        let image = store.import_rootfs(&path, Some(name), config.clone(), &mut ()).unwrap();
        assert_eq!(fs::read(lowers(&store, &image)[0].join("hello")).unwrap(), b"world");
        assert_eq!(image.config().unwrap().diff_ids, [Digest::of(&tar)]);
        assert_eq!(image.history().unwrap().len(), 1);
        ids.push(*image.id());
    }
    // The same content is the same configuration, and is unpacked once.
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    assert_clean(&store);
}

#[test]
fn a_root_in_a_directory_becomes_an_image() {
    let temp = Temp::new("import-dir");
    let root = temp.join("root");
    fs::create_dir_all(root.join("etc/empty")).unwrap();
    fs::write(root.join("etc/file"), noise(100_000)).unwrap();
    fs::set_permissions(root.join("etc/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(root.join("etc/file"), root.join("hard")).unwrap();
    std::os::unix::fs::symlink("/outside", root.join("link")).unwrap();
    let store = store(&temp);
    let image = store.import_rootfs(&root, Some("root"), ImageConfig::new(), &mut ()).unwrap();
    let lower = lowers(&store, &image).remove(0);
    let names = |dir: &Path| -> Vec<String> {
        let without_owner = |line: &String| {
            line.split(' ').enumerate().filter(|(at, _)| *at != 2).map(|(_, part)| part).collect::<Vec<_>>().join(" ")
        };
        tree(dir).iter().map(without_owner).collect()
    };
    assert_eq!(names(&lower), names(&root));
    if is_root() {
        assert_eq!(tree(&lower), tree(&root));
    }
    assert_eq!(fs::metadata(lower.join("hard")).unwrap().ino(), fs::metadata(lower.join("etc/file")).unwrap().ino());
    // The same directory is the same image.
    let again = store.import_rootfs(&root, None, ImageConfig::new(), &mut ()).unwrap();
    assert_eq!(again.id(), image.id());
    assert!(store.import_rootfs(&temp.join("none"), None, ImageConfig::new(), &mut ()).is_err());
    assert_clean(&store);
}

#[test]
fn saved_images_come_back() {
    let temp = Temp::new("save");
    let base = Tar::new().dir("./", 0o755).file("base", &noise(300_000)).end();
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("one:1", &[base.clone(), Tar::new().file("one", b"1").end()]);
    layout.image("two", &[base, Tar::new().file(".wh.base", b"").end()]);
    let from = store(&temp);
    let images = load(&from, &layout).unwrap();
    for (number, format) in
        [ArchiveFormat::OciArchive, ArchiveFormat::OciDirectory, ArchiveFormat::DockerArchive].into_iter().enumerate()
    {
        let path = temp.join(&format!("saved-{number}"));
        from.save(&images, &path, format, &mut ()).unwrap();
        assert_eq!(from.save(&images, &path, format, &mut ()).unwrap_err().errno(), Some(zind_core::Errno::EEXIST));
        let to = Store::open(Some(temp.join(&format!("to-{number}")))).unwrap();
        let loaded = to.load(&path, &mut ()).unwrap();
        let ids = |images: &[Image]| images.iter().map(|image| *image.id()).collect::<Vec<_>>();
        assert_eq!(ids(&loaded), ids(&images), "{format:?}");
        match format {
            ArchiveFormat::DockerArchive => {
                assert_eq!(loaded[1].tags(), ["two:latest"]);
                assert_eq!(loaded[0].layers().unwrap()[0].media_type, media::LAYER);
            }
            _ => assert_eq!(loaded, images.iter().map(|image| to.image(&image.tags()[0]).unwrap()).collect::<Vec<_>>()),
        }
        // The same, compressed as a whole.
        if path.is_file() {
            let packed = temp.join("packed");
            fs::write(&packed, gzip(&fs::read(&path).unwrap())).unwrap();
            let again = Store::open(Some(temp.join(&format!("again-{number}")))).unwrap();
            assert_eq!(ids(&again.load(&packed, &mut ()).unwrap()), ids(&images));
            assert_clean(&again);
        }
        assert_clean(&to);
    }
    assert_eq!(
        from.save(&[], &temp.join("none"), ArchiveFormat::OciArchive, &mut ()).unwrap_err().field(),
        Some("images")
    );
    let nothing = temp.join("nothing.tar");
    fs::write(&nothing, Tar::new().file("a", b"1").end()).unwrap();
    assert!(from.load(&nothing, &mut ()).unwrap_err().to_string().contains("neither index.json nor manifest.json"));
    assert_eq!(from.load(&temp.join("missing"), &mut ()).unwrap_err().errno(), Some(zind_core::Errno::ENOENT));
    let left = fs::read_dir(&temp.0)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b".zind-"));
    assert_eq!(left.count(), 0);
}

#[test]
fn what_was_cut_off_is_gone_on_with() {
    use std::io::Write;
    let temp = Temp::new("resume");
    let store = store(&temp);
    let tar = Tar::new().file("a", &noise(200_000)).end();
    let blob = gzip(&tar);
    let descriptor = zind_core::image::Descriptor::new(media::LAYER_GZIP, Digest::of(&blob), blob.len() as u64);
    let owners = Owners::of_caller();
    let begin = || store.layer_sink(&descriptor, &Digest::of(&tar), None, &owners).unwrap();
    let mut sink = begin();
    sink.write_all(&blob[..50_000]).unwrap();
    drop(sink);
    let mut sink = begin();
    assert_eq!(sink.resume_offset(), 50_000);
    // Somebody else who fetches the same begins anew.
    let other = begin();
    assert_eq!(other.resume_offset(), 0);
    drop(other);
    assert!(matches!(store.ingest(Some(&descriptor.digest), "", None).unwrap().commit(), Err(Error::Image { .. })));
    sink.write_all(&blob[50_000..]).unwrap();
    assert_eq!(sink.commit().unwrap(), descriptor);
    assert!(store.has_snapshot(&Digest::of(&tar), &owners));
    // A source that sends something else than what it promised.
    let mut ingest = store.ingest(Some(&Digest::of(b"right")), "", Some(5)).unwrap();
    ingest.write_all(b"wrong").unwrap();
    assert!(ingest.commit().unwrap_err().to_string().contains("not what its digest says"));
    let mut ingest = store.ingest(Some(&Digest::of(b"right")), "", Some(5)).unwrap();
    assert_eq!(ingest.resume_offset(), 0);
    let error = ingest.write_all(b"too much").unwrap_err();
    assert!(error.downcast::<Error>().unwrap().to_string().contains("longer"));
    drop(ingest);
    // A sink that is dropped, or restarted, leaves no threads and no directories.
    let mut sink = begin();
    sink.restart().unwrap();
    sink.write_all(&blob).unwrap();
    sink.discard();
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn work_can_be_stopped() {
    struct Stop(u32);
    impl Progress for Stop {
        fn step(&mut self, event: &ProgressEvent<'_>) {
            assert!(event.total.is_none_or(|total| event.done <= total));
        }

        fn interrupted(&mut self) -> bool {
            self.0 = self.0.saturating_sub(1);
            self.0 == 0
        }
    }
    let temp = Temp::new("stop");
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[Tar::new().file("a", &[1; 3_000_000]).end()]);
    let store = store(&temp);
    for after in 1..4 {
        match store.load(&layout.dir, &mut Stop(after)) {
            Err(Error::Interrupted) => assert!(store.images().unwrap().is_empty()),
            Ok(_) => assert!(after > 1),
            other => panic!("{other:?}"),
        }
    }
    load(&store, &layout).unwrap();
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn hundreds_of_names_are_one_file() {
    let temp = Temp::new("list");
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &[Tar::new().file("a", b"1").end()]);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    for number in 0..200 {
        store.tag(&image, &format!("name:{number}")).unwrap();
    }
    assert_eq!(Store::open(Some(temp.join("store"))).unwrap().image("name:7").unwrap().tags().len(), 201);
}

#[test]
fn a_record_counts_itself() {
    assert_eq!(record("path", b"a"), b"9 path=a\n");
    assert_eq!(record("path", &[b'a'; 91]).len(), 101);
}

#[test]
fn many_layers_become_one() {
    let temp = Temp::new("chain");
    let mut tars = vec![
        Tar::new()
            .dir("./", 0o755)
            .dir("d", 0o711)
            .file("d/old", b"0")
            .file("keep", b"k")
            .symlink("link", "d/old")
            .end(),
    ];
    for number in 1..60 {
        let mut tar = Tar::new().file(&format!("d/f{number}"), &[number]).file("changed", &[number]);
        if number == 30 {
            tar = tar.file("d/.wh.old", b"").file("d/.wh.f7", b"");
        }
        if number == 40 {
            tar = tar.file(".wh.keep", b"").dir("keep", 0o700);
        }
        tars.push(tar.end());
    }
    let mut layout = Layout::new(temp.join("layout"));
    layout.image("a", &tars);
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let owners = Owners::of_caller();
    let _hold = store.hold(&image, &owners, &mut ()).unwrap();
    let lowers_now = lowers(&store, &image);
    let [merged] = &lowers_now[..] else { panic!("{lowers_now:?}") };
    assert_eq!(fs::read_dir(merged.join("d")).unwrap().count(), 58);
    assert_eq!(fs::read(merged.join("changed")).unwrap(), [59]);
    assert!(merged.join("keep").is_dir() && fs::symlink_metadata(merged.join("d/old")).is_err());
    assert_eq!(fs::read_link(merged.join("link")).unwrap(), Path::new("d/old"));
    let dir = fs::metadata(merged.join("d")).unwrap();
    assert_eq!((dir.mode() & 0o77, dir.mtime()), (0o11, 1_600_000_000));
    // One more layer lies on what was merged.
    let tar = Tar::new().file("d/top", b"t").hard_link("again", "d/f3").end();
    let path = temp.join("top.tar");
    fs::write(&path, &tar).unwrap();
    let one = store.import_rootfs(&path, None, ImageConfig::new(), &mut ());
    assert!(one.unwrap_err().to_string().contains("which is not there"));
    let mut layout = Layout::new(temp.join("layout2"));
    tars.push(tar);
    layout.image("b", &tars);
    let more = load(&store, &layout).unwrap().remove(0);
    let lowers_now = lowers(&store, &more);
    assert_eq!((lowers_now.len(), &lowers_now[1]), (2, merged));
    assert_eq!(fs::read(lowers_now[0].join("again")).unwrap(), [3]);
    assert_clean(&store);
    fs::remove_file(merged.join("changed")).unwrap();
    assert!(store.verify(&mut ()).unwrap()[0].what.contains("merged"));
    for name in ["a", "b"] {
        store.remove(name).unwrap();
    }
    store.gc().unwrap();
    assert!(merged.join("keep").exists());
    drop(_hold);
    // A process that another test's thread is starting has all descriptors, and with them the hold, until it executes its program.
    let began = std::time::Instant::now();
    while merged.exists() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "it is held for good");
        store.gc().unwrap();
    }
    // A layer in the middle that somebody removed comes back.
    let images = load(&store, &layout).unwrap();
    let below = fs::read_dir(store.place().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let one = images[0].config().unwrap().chain_ids()[5];
    fs::remove_dir_all(below.join(format!("sha256-{}", one.hex()))).unwrap();
    fs::remove_dir_all(merged.parent().unwrap()).ok();
    for merged in fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().path()) {
        if merged.to_str().unwrap().ends_with(".merged") {
            fs::remove_dir_all(merged).unwrap();
        }
    }
    assert_eq!(lowers(&store, &images[0]).len(), 1);
    assert_clean(&store);
}

/// What a process of its own does for a test: one of the lines of the match. A test that is none, without the variable.
#[test]
fn worker() {
    let Some(role) = std::env::var_os("ZIND_TEST_WORKER") else { return };
    let dir = PathBuf::from(std::env::var_os("ZIND_TEST_DIR").unwrap());
    let store = Store::open(Some(dir.join("store"))).unwrap();
    match role.to_str().unwrap() {
        "load" => drop(store.load(&dir.join("layout"), &mut ()).unwrap()),
        // Under strace(1): killed, or with failures injected.
        "try" => tried(|| store.load(&dir.join("layout"), &mut ()).map(|images| assert_eq!(images.len(), 2))),
        "try-remove" => tried(|| store.remove("a").and_then(|()| store.gc().map(drop))),
        "gc" => match store.gc() {
            Ok(collected) => println!("collected {} and {}", collected.blobs, collected.snapshots),
            Err(error) => println!("refused: {error}"),
        },
        "full" => {
            let error = store.load(&dir.join("layout"), &mut ()).unwrap_err();
            assert_eq!(error.errno(), Some(zind_core::Errno::ENOSPC), "{error}");
            assert!(store.images().unwrap().is_empty());
            store.gc().unwrap();
            store.load(&dir.join("small"), &mut ()).unwrap();
            assert_clean(&store);
        }
        number => everything_at_once(&store, &dir, number),
    }
}

/// Does work between two marks.
fn tried(work: impl FnOnce() -> Result<(), Error>) {
    points::say(points::BEGIN);
    let result = work();
    points::say(points::END);
    if let Err(error) = result {
        println!("refused: {error}");
    }
}

/// Loads, names, uses, removes and collects, again and again.
fn everything_at_once(store: &Store, dir: &Path, number: &str) {
    let owners = Owners::of_caller();
    for round in 0..10 {
        let images = store.load(&dir.join("layout"), &mut ()).unwrap();
        let name = format!("mine:{number}-{round}");
        let image = &images[round % images.len()];
        match store.tag(image, &name) {
            // Somebody has removed it meanwhile.
            Err(Error::NotFound { .. }) => continue,
            result => result.unwrap(),
        }
        let image = store.image(&name).unwrap();
        let _hold = store.hold(&image, &owners, &mut ()).unwrap();
        let lower = lowers(store, &image);
        store.remove(&name).unwrap();
        for other in ["a", "b"] {
            match store.remove(other) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        store.gc().unwrap();
        // Held, though nobody else knows it by now.
        assert_eq!(fs::read(lower.last().unwrap().join("base")).unwrap().len(), 200_000);
    }
}

fn start_worker(role: &str, dir: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture"])
        .env("ZIND_TEST_WORKER", role)
        .env("ZIND_TEST_DIR", dir)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn assert_worked(worker: std::process::Child) {
    let output = worker.wait_with_output().unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{all}");
}

fn two_images(dir: PathBuf) -> Layout {
    let base = Tar::new().dir("./", 0o755).file("base", &noise(200_000)).end();
    let mut layout = Layout::new(dir);
    let files = (0..300).fold(Tar::new(), |tar, number| tar.file(&format!("many/f{number}"), b"x"));
    layout.image("a", &[base.clone(), files.end()]);
    layout.image("b", &[base, Tar::new().file(".wh.base", b"").file("b", b"b").end()]);
    layout
}

/// The store is valid, and the work can be done once more.
fn assert_repeatable(store: &Store, layout: &Layout, context: &str) {
    assert_eq!(store.verify(&mut ()).unwrap(), [], "{context}");
    for image in store.images().unwrap() {
        lowers(store, &image);
    }
    let images = load(store, layout).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(images.len(), 2, "{context}");
    for name in ["a", "b"] {
        store.remove(name).unwrap();
    }
    store.gc().unwrap();
    assert_clean(store);
}

fn worker_command(role: &str, dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["worker", "--exact", "--nocapture"]).env("ZIND_TEST_WORKER", role).env("ZIND_TEST_DIR", dir);
    command
}

#[test]
fn a_kill_at_any_moment_leaves_a_good_store() {
    let temp = Temp::fast("kill");
    let layout = two_images(temp.join("layout"));
    assert_repeatable(&store(&temp), &layout, "undisturbed");
    let command = worker_command("try", &temp.0);
    let points = points::of(&command, 80, &temp.0);
    assert_repeatable(&store(&temp), &layout, "undisturbed");
    for point in points {
        point.kill(&command);
        assert_repeatable(&store(&temp), &layout, &format!("{point:?}"));
    }
    // Also while things are removed.
    let command = worker_command("try-remove", &temp.0);
    load(&store(&temp), &layout).unwrap();
    for point in points::of(&command, 20, &temp.0) {
        load(&store(&temp), &layout).unwrap();
        point.kill(&command);
        assert_repeatable(&store(&temp), &layout, &format!("{point:?}"));
    }
}

/// A call fails at many points of a load and of a removal.
#[test]
fn failing_calls_leave_a_good_store() {
    let temp = Temp::fast("inject");
    let layout = two_images(temp.join("layout"));
    let mut refused = 0;
    for (role, count) in [("try", 80), ("try-remove", 20)] {
        let command = worker_command(role, &temp.0);
        let prepare = || match role {
            "try" => assert_repeatable(&store(&temp), &layout, "undisturbed"),
            _ => drop(load(&store(&temp), &layout).unwrap()),
        };
        prepare();
        for (number, point) in points::of(&command, count, &temp.0).iter().enumerate() {
            if number == 0 || role == "try-remove" {
                prepare();
            }
            let said = point.fail(&command, ["ENOSPC", "EIO"][number % 2]);
            refused += usize::from(said.contains("refused: "));
            assert_repeatable(&store(&temp), &layout, &format!("{point:?}: {said}"));
        }
    }
    assert!((20..100).contains(&refused), "{refused}");
}

/// What a loss of power can take away: everything that was not synced. An index is only replaced by one whose blobs, and the
/// names of these, are on the disk; and when the call returns, the index is there, too.
#[test]
fn what_counts_was_synced_before() {
    let temp = Temp::new("power");
    let layout = two_images(temp.join("layout"));
    drop(store(&temp));
    let log = temp.join("calls");
    let output = std::process::Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-y",
            "-s",
            "16",
            "-e",
            "trace=write,pwrite64,ftruncate,fsync,?rename,renameat,renameat2",
            "-o",
        ])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture"])
        .env("ZIND_TEST_WORKER", "try")
        .env("ZIND_TEST_DIR", &temp.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let images = temp.join("store/images").to_str().unwrap().to_owned();
    // Files written to since they were synced, and directories in which something was renamed since.
    let (mut unsynced, mut unsynced_dirs) = (BTreeSet::new(), BTreeSet::new());
    let (mut blobs, mut indexes) = (0, 0);
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((call, arguments)) = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('('))
        else {
            continue;
        };
        // `5</path>` for descriptors, `"/path"` for names.
        let descriptor = || arguments.split_once('<')?.1.split_once('>').map(|(path, _)| path.to_owned());
        match call {
            "write" | "pwrite64" | "ftruncate" => drop(unsynced.insert(descriptor().unwrap())),
            "fsync" => {
                let path = descriptor().unwrap();
                unsynced.remove(&path);
                unsynced_dirs.remove(&path);
            }
            "rename" | "renameat" | "renameat2" => {
                let names: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
                let [from, to] = names[..] else { panic!("{line}") };
                if !to.starts_with(&images) {
                    continue;
                }
                assert!(!unsynced.contains(from), "not synced: {line}");
                if to.ends_with("/index.json") {
                    assert!(unsynced_dirs.is_empty(), "{unsynced_dirs:?} before {line}");
                    indexes += 1;
                } else {
                    blobs += 1;
                }
                unsynced_dirs.insert(Path::new(to).parent().unwrap().to_str().unwrap().to_owned());
            }
            _ => {}
        }
        if arguments.contains(points::END) {
            assert!(unsynced_dirs.is_empty(), "{unsynced_dirs:?} at the end");
        }
    }
    assert!(blobs == 7 && indexes >= 1, "{blobs} {indexes}");
    assert_repeatable(&store(&temp), &layout, "undisturbed");
}

/// A signal that interrupts a call is nothing that anybody sees.
#[test]
fn interrupted_calls_go_on() {
    let temp = Temp::fast("eintr");
    let layout = two_images(temp.join("layout"));
    assert_repeatable(&store(&temp), &layout, "undisturbed");
    let command = worker_command("try", &temp.0);
    let points = points::of(&command, 400, &temp.0);
    assert_repeatable(&store(&temp), &layout, "undisturbed");
    let may = ["openat", "openat2", "write", "read", "pread64", "flock", "ftruncate", "fsync"];
    let mut seen = Vec::new();
    for point in points.iter().filter(|point| may.contains(&point.call.as_str())).step_by(4) {
        let said = point.fail(&command, "EINTR");
        if said.contains("refused: ") {
            seen.push(format!("{point:?}: {said}"));
        }
        assert_repeatable(&store(&temp), &layout, &format!("{point:?}"));
    }
    assert!(seen.is_empty(), "{seen:#?}");
}

/// Paths of all blobs, and of the snapshots of all owners.
fn contents(store: &Store) -> Vec<PathBuf> {
    let list = |name: &str| fs::read_dir(store.place().join(name)).unwrap().map(|entry| entry.unwrap().path());
    let lists = list("images/blobs").chain(list("snapshots"));
    let mut all: Vec<_> = lists.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect();
    all.sort();
    all
}

/// What leads somewhere and cannot be read is no reason to remove what it leads to.
#[test]
fn gc_removes_nothing_when_it_cannot_read() {
    let temp = Temp::new("gc-inject");
    let layout = two_images(temp.join("layout"));
    let store = store(&temp);
    let images = load(&store, &layout).unwrap();
    images.iter().for_each(|image| drop(lowers(&store, image)));
    let before = contents(&store);
    let blob = |digest: &Digest| store.place().join("images/blobs/sha256").join(digest.hex());
    let info = before.iter().find(|path| path.starts_with(store.place().join("snapshots"))).unwrap().join("info");
    let files = [blob(images[0].digest()), blob(images[0].id()), info, store.place().join("images/index.json")];
    for path in files {
        for fault in ["openat:error=EMFILE", "openat:error=EIO", "read:error=EIO", "read:error=EISDIR"] {
            let output = std::process::Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-P", path.to_str().unwrap(), "-e"])
                .arg(format!("inject={fault}"))
                .arg(std::env::current_exe().unwrap())
                .args(["worker", "--exact", "--nocapture"])
                .env("ZIND_TEST_WORKER", "gc")
                .env("ZIND_TEST_DIR", &temp.0)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("refused"), "{} {fault}: {text}", path.display());
            assert_eq!(contents(&store), before, "{} {fault}", path.display());
        }
    }
    // Nor do the bounds of whoever collects matter.
    let mut limits = Limits::default();
    limits.document = 10;
    let small = Store::open_with(Some(temp.join("store")), limits).unwrap();
    let collected = small.gc().unwrap();
    assert_eq!((collected.blobs, collected.snapshots), (0, 0));
    assert_eq!(contents(&store), before);
    // A broken document: who knows what it led to. Without it, the rest goes on.
    for digest in [images[0].digest(), images[0].id()] {
        let good = fs::read(blob(digest)).unwrap();
        fs::write(blob(digest), [b" ", &good[1..]].concat()).unwrap();
        let error = store.gc().unwrap_err().to_string();
        assert!(error.contains(&digest.to_string()) && error.contains("verify"), "{error}");
        assert_eq!(contents(&store), before);
        assert_eq!(store.usage().unwrap().unused, 0);
        fs::write(blob(digest), good).unwrap();
    }
    fs::write(blob(images[0].digest()), "broken").unwrap();
    store.remove(&images[0].digest().to_string()).unwrap();
    assert_eq!(store.gc().unwrap().blobs, 3);
    assert_clean(&store);
}

/// Without a name for the run of the kernel, snapshots are synced at once.
#[test]
fn without_a_boot_id_snapshots_last() {
    let temp = Temp::new("boot");
    let layout = two_images(temp.join("layout"));
    let output = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P", "/proc/sys/kernel/random/boot_id", "-e"])
        .arg("inject=openat:error=EACCES")
        .arg(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture"])
        .env("ZIND_TEST_WORKER", "load")
        .env("ZIND_TEST_DIR", layout.dir.parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let store = store(&temp);
    let snapshots = contents(&store).into_iter().filter(|path| path.starts_with(store.place().join("snapshots")));
    let infos: Vec<String> = snapshots.map(|path| fs::read_to_string(path.join("info")).unwrap()).collect();
    assert_eq!(infos.len(), 3);
    assert!(infos.iter().all(|info| info.contains(r#""boot":"""#) && info.contains(r#""synced":true"#)), "{infos:?}");
    assert_clean(&store);
}

/// A blob that was cut off is taken again, and what is said of one that is spoiled tells whose it is.
#[test]
fn a_spoiled_blob_comes_back() {
    let temp = Temp::new("cut-off");
    let layout = two_images(temp.join("layout"));
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let layer = image.layers().unwrap()[0].digest;
    for digest in [layer, *image.digest(), *image.id()] {
        let path = store.place().join("images/blobs/sha256").join(digest.hex());
        fs::File::options().write(true).open(&path).unwrap().set_len(20).unwrap();
        load(&store, &layout).unwrap();
        assert_clean(&store);
    }
    let path = store.place().join("images/blobs/sha256").join(image.digest().hex());
    let good = fs::read(&path).unwrap();
    fs::write(&path, [b" ", &good[1..]].concat()).unwrap();
    let error = store.image("a").unwrap().manifest().unwrap_err().to_string();
    assert!(error.contains("store's own copy") && error.contains(path.to_str().unwrap()), "{error}");
    fs::write(&path, good).unwrap();
}

#[test]
fn layers_keep_their_image_and_tell_when_it_is_gone() {
    let temp = Temp::new("layers");
    let layout = two_images(temp.join("layout"));
    let store = store(&temp);
    let image = load(&store, &layout).unwrap().remove(0);
    let layers = Layers::create_over(temp.join("work"), &image, &IdMaps::ByPrivilege, &mut ()).unwrap();
    store.remove("a").unwrap();
    store.remove("b").unwrap();
    assert_eq!(store.gc().unwrap().blobs, 3);
    assert_eq!(layers.image().unwrap().unwrap().digest(), image.digest());
    assert_clean(&store);
    // What only they have is compared, too.
    let base = layers.base().unwrap().pop().unwrap().join("base");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
    let faults = store.verify(&mut ()).unwrap();
    assert!(faults.len() == 1 && faults[0].what.contains("/base"), "{faults:?}");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_dir_all(store.place().join("leases")).unwrap();
    assert_eq!(store.gc().unwrap().blobs, 4);
    let error = layers.image().unwrap_err();
    assert!(matches!(error, Error::NotFound { what: "image", .. }), "{error}");
    for part in [&image.digest().to_string(), store.place().to_str().unwrap(), "pull or load it again"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    layers.delete().unwrap();
}

#[test]
fn more_is_collected_than_there_are_descriptors() {
    let temp = Temp::new("gc-many");
    let layout = two_images(temp.join("layout"));
    let store = store(&temp);
    let images = load(&store, &layout).unwrap();
    let _hold = store.hold(&images[0], &Owners::of_caller(), &mut ()).unwrap();
    store.remove("a").unwrap();
    store.remove("b").unwrap();
    let lower = lowers(&store, &images[0]).remove(0);
    let own = lower.parent().unwrap();
    for number in 0..150 {
        let dead = own.with_file_name(format!("sha256-{number:064x}"));
        fs::create_dir(&dead).unwrap();
        fs::copy(own.join("info"), dead.join("info")).unwrap();
    }
    let output = std::process::Command::new("prlimit")
        .arg("--nofile=64")
        .arg(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture"])
        .env("ZIND_TEST_WORKER", "gc")
        .env("ZIND_TEST_DIR", &temp.0)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // And the layer that only the other image had.
    assert!(output.status.success() && text.contains("and 151"), "{text}");
    assert!(lower.exists() && lowers(&store, &images[0]).iter().all(|lower| lower.exists()));
    assert_clean(&store);
}

#[test]
fn many_processes_use_one_store() {
    let temp = Temp::new("together");
    let layout = two_images(temp.join("layout"));
    store(&temp);
    let workers: Vec<_> = (0..6).map(|number| start_worker(&number.to_string(), &temp.0)).collect();
    workers.into_iter().for_each(assert_worked);
    let store = store(&temp);
    load(&store, &layout).unwrap();
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    let temp = Temp::new("full");
    let mut layout = Layout::new(temp.join("disk-layout"));
    layout.image("a", &[Tar::new().file("a", &noise(3_000_000)).end(), Tar::new().file("b", &noise(3_000_001)).end()]);
    let mut small = Layout::new(temp.join("disk-small"));
    small.image("small", &[Tar::new().file("a", b"1").end()]);
    fs::create_dir(temp.join("disk")).unwrap();
    let script = "mount -t tmpfs -o size=8m,mode=755 tmpfs \"$0\" && ln -s ../disk-layout \"$0/layout\" && \
        ln -s ../disk-small \"$0/small\" && exec \"$1\" worker --exact --nocapture";
    let flags = if is_root() { "-m" } else { "-Urm" };
    let worker = std::process::Command::new("unshare")
        .args([flags, "sh", "-c", script])
        .arg(temp.join("disk"))
        .arg(std::env::current_exe().unwrap())
        .env("ZIND_TEST_WORKER", "full")
        .env("ZIND_TEST_DIR", temp.join("disk"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_worked(worker);
}

/// The promises hold for an ordinary user, too.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !is_root() || std::env::var_os("ZIND_TEST_INNER").is_some() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("zind-store-user-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let binary = dir.join("store");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [&dir, &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .current_dir("/")
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{all}");
}
