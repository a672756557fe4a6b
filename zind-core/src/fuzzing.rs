//! What the fuzzer of `fuzz/` calls: one function for each kind of foreign bytes. They panic where a promise is broken. The
//! corpora that are kept beside it are run through them by a test, without a fuzzer.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::DeviceRule;
use crate::copy;
use crate::device::Device;
use crate::image::unpack::apply::Apply;
use crate::image::unpack::below::Below;
use crate::image::unpack::decompress::{self, Counted, Watched};
use crate::image::unpack::tar::Reader;
use crate::image::{Digest, ImageConfig, Index, Limits, Manifest, Platform, Reference, media};
use crate::mount::options::Options as MountOptions;
use crate::registry::fuzzing as registry;
use crate::spec::{parse_rlimit_name, parse_signal, parse_size};
use crate::store::{Owners, Store};
use crate::terminal::DetachKeys;

/// What takes the bytes, and its name: that of the directory of its corpus.
pub type Target = (&'static str, fn(&Ground, &[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("layer", layer),
    ("stream", stream),
    ("document", document),
    ("name", name),
    ("archive", archive),
    ("image", image),
    ("registry", |_, bytes| registry::answer(bytes)),
    ("profile", |_, bytes| crate::security::seccomp::fuzzing::profile(bytes)),
    ("landlock", |_, bytes| crate::security::landlock::fuzz(bytes)),
    ("config", |_, bytes| crate::spec::oci::fuzzing::config(bytes)),
    ("kept", kept),
    ("launcher", launcher),
    ("kernel", kernel),
    ("words", words),
];

/// Messages, each behind its length; empty ones, which a socket takes for its end, are left out.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first()?;
        let (message, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        Some(message)
    })
    .filter(|message| !message.is_empty())
}

/// A directory to work in, gone with this: things to be unpacked upon, and something beside them that stays as it is.
pub struct Ground(PathBuf, Vec<String>);

impl Ground {
    pub fn new() -> Ground {
        let dir = std::env::temp_dir().join(format!("zind-fuzz-{}", copy::unused_name()));
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        for (name, content) in [("victim/keep", "HOST"), ("below/d/a", "1"), ("below/d/e/b", "2"), ("below/f", "3")] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), content).unwrap();
        }
        fs::hard_link(dir.join("below/f"), dir.join("below/h")).unwrap();
        for (name, target) in [("out", "/victim"), ("up", "../../../victim"), ("in", "d"), ("circle", "circle")] {
            std::os::unix::fs::symlink(target, dir.join("below").join(name)).unwrap();
        }
        let mut ground = Ground(dir, Vec::new());
        ground.1 = ground.picture();
        ground
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What nobody may change. Links to files below are made and go.
    fn picture(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut left = vec![self.at("victim"), self.at("below")];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = format!("{:o} {} {} {:?}", meta.mode(), meta.uid(), meta.gid(), meta.modified().unwrap());
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.push(format!("{} {what} {content:?}", path.display()));
            if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        let here = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut here: Vec<_> = here.filter(|name| name != "store").collect();
        here.sort();
        all.extend(here);
        all
    }
}

impl Default for Ground {
    fn default() -> Ground {
        Ground::new()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    copy::remove::empty(&openat(CWD, path, flags, Mode::empty())?).map_err(|fault| io::Error::from(fault.errno))?;
    fs::remove_dir(path)
}

/// Small, so that nothing takes long.
fn limits() -> Limits {
    Limits {
        entries: 2000,
        file_size: 1 << 20,
        layer_size: 4 << 20,
        ratio_from: 1 << 20,
        depth: 64,
        header: 64 << 10,
        document: 64 << 10,
        zstd_window_log: 20,
        ..Limits::default()
    }
}

/// Makes the checksums of headers good: by chance they never are.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// A tar is unpacked upon other layers, with the owners of root and of an ordinary user: not one byte outside.
fn layer(ground: &Ground, bytes: &[u8]) {
    let tar = with_checksums(bytes);
    let mut all = vec![Owners::Xattr];
    all.extend(rustix::process::geteuid().is_root().then_some(Owners::Kept));
    for owners in all {
        let dir = ground.at("new");
        fs::create_dir(&dir).unwrap();
        let root = openat(CWD, &dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut hands = copy::hands_for(&owners).unwrap();
        let below = Below::open(&[ground.at("below")]).map_err(|(path, _)| path).unwrap();
        let apply = Apply::new(&mut *hands, root, below, &owners, limits());
        let _ = apply.run(&mut Reader::new(&tar[..], limits()), &|| false);
        remove(&dir).unwrap();
        assert_eq!(ground.picture(), ground.1);
    }
}

/// Compressed bytes, and the entries of what comes out, with their content.
fn stream(_: &Ground, bytes: &[u8]) {
    let taken = Arc::new(AtomicU64::new(0));
    let input = BufReader::new(Counted { inner: bytes, count: taken.clone() });
    let Ok(reader) = decompress::reader(input, &limits()) else { return };
    let mut all = Vec::new();
    let _ = Watched::new(reader, limits(), taken).take(8 << 20).read_to_end(&mut all);
    assert!(all.len() as u64 <= limits().layer_size + (64 << 10));
    let all = with_checksums(&all);
    let mut reader = Reader::new(&all[..], limits());
    let (mut count, mut size) = (0, 0);
    while let Ok(Some(entry)) = reader.next() {
        count += 1;
        size += entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0));
        assert!(entry.mode <= 0o7777 && entry.mtime.1 < 1_000_000_000 && entry.size <= limits().file_size);
        let mut end = 0;
        for (offset, length) in entry.parts.iter().flatten() {
            assert!(*offset >= end && offset.checked_add(*length).unwrap() <= entry.size);
            end = offset + length;
        }
    }
    assert!(count <= limits().entries && size <= all.len());
}

/// What is taken can be written, and read again as the same.
fn document(_: &Ground, bytes: &[u8]) {
    if let Ok(read) = Manifest::parse("m", bytes) {
        assert_eq!(Manifest::parse("m", &read.to_bytes()).unwrap(), read);
    }
    if let Ok(read) = Index::parse("i", bytes) {
        assert_eq!(Index::parse("i", &read.to_bytes()).unwrap(), read);
        let _ = Platform::new("linux", "arm64", None).choose(&read.manifests);
    }
    if let Ok(read) = ImageConfig::parse("c", bytes) {
        let again = ImageConfig::parse("c", &read.to_bytes()).unwrap();
        assert_eq!((&again.diff_ids, &again.config, &again.history), (&read.diff_ids, &read.config, &read.history));
        let mut spec = crate::Spec::new(["sh"]);
        let _ = crate::image::apply::apply(&read.config, &mut spec);
    }
}

/// Names of images, digests and platforms, and the files of credentials.
fn name(_: &Ground, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = Reference::parse(text) {
        let whole = name.to_string();
        assert_eq!(Reference::parse(&whole).unwrap(), name);
        assert!(!whole.contains(|c: char| c.is_whitespace() || c.is_control()), "{whole}");
        assert!(!format!("{}/{}", name.registry(), name.repository()).contains(".."), "{whole}");
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(Platform::parse(&platform.to_string()).unwrap(), platform);
    }
    registry::credentials(text);
}

/// An archive as it comes. Nothing of it stays.
fn archive(ground: &Ground, bytes: &[u8]) {
    let path = ground.at("archive");
    fs::write(&path, with_checksums(bytes)).unwrap();
    load(ground, &path);
    fs::remove_file(path).unwrap();
    assert_eq!(ground.picture(), ground.1);
}

/// What the library and a monitor keep in files: state, journal and log of containers, layers, what is beside images.
fn kept(ground: &Ground, bytes: &[u8]) {
    crate::container::fuzzing::state(bytes);
    crate::container::fuzzing::journal(&ground.at("journal"), bytes);
    crate::container::fuzzing::log(&ground.at("log"), bytes);
    crate::rootfs::layers::fuzzing::state(bytes);
    crate::store::fuzzing::files(bytes);
}

/// What goes between library, launcher and monitor.
fn launcher(_: &Ground, bytes: &[u8]) {
    crate::process::fuzzing::reports(bytes);
    crate::process::fuzzing::plan(bytes);
    crate::container::fuzzing::replies(bytes);
}

/// What the kernel says of processes, mounts and groups, and what systemd says.
fn kernel(_: &Ground, bytes: &[u8]) {
    crate::proc::fuzzing::files(bytes);
    crate::doctor::fuzzing::mountinfo(bytes);
    crate::cgroup::fuzzing::layout(bytes);
    crate::cgroup::fuzzing::bus(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::cgroup::fuzzing::readings(text);
        crate::cgroup::fuzzing::group_name(text);
    }
}

/// Words that people write, and an image's users: options of mounts, sizes, devices, keys.
fn words(_: &Ground, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    crate::rootfs::users::fuzzing::users(text);
    mount_options(text);
    sizes(text);
    if let Ok(device) = Device::parse(text) {
        let again = format!("{}:{}:{}", text.split(':').next().unwrap(), device.target().display(), device.rights());
        let again = Device::parse(&again);
        assert!(device.target().to_str().unwrap().contains(':') || again.unwrap().rights() == device.rights());
    }
    if let Ok(rule) = DeviceRule::parse(text, true) {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = text.split_ascii_whitespace().next().unwrap();
        let again = format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access);
        assert_eq!(DeviceRule::parse(&again, true).unwrap(), rule);
    }
    if let Ok(restart) = crate::container::Restart::parse(text) {
        assert_eq!(crate::container::Restart::parse(&restart.to_string()).unwrap(), restart);
    }
    if let Ok(path) = crate::spec::sysctl::path_of(text) {
        assert!(!path.split('/').any(|part| part.is_empty() || part == "." || part == ".."), "{text:?}");
    }
    detach(text);
}

fn mount_options(text: &str) {
    let read = |words: &[String]| MountOptions::parse(words.iter().map(String::as_str));
    let words: Vec<String> = text.split(',').map(str::to_owned).collect();
    if let Ok(options) = read(&words) {
        assert!(!text.contains('\0'));
        assert_eq!(read(&options.words()).unwrap(), options);
    }
}

/// Whole numbers are read as they stand, and no unit makes less of one.
fn sizes(text: &str) {
    if let Ok(size) = parse_size("memory", text) {
        let digits = text.trim();
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            assert_eq!(digits.parse(), Ok(size));
            for (unit, shift) in [("k", 10), ("MiB", 20), ("g", 30), ("TB", 40)] {
                let more = parse_size("memory", &format!("{digits}{unit}")).ok();
                assert_eq!(more, size.checked_mul(1 << shift), "{digits}{unit}");
            }
        }
    }
    if let Ok(signal) = parse_signal(text) {
        assert!((1..=64).contains(&signal) && parse_signal(&signal.to_string()).unwrap() == signal);
    }
    if let Ok(resource) = parse_rlimit_name(text) {
        assert!(text.to_ascii_lowercase().ends_with(crate::spec::parse::rlimit_name(resource)));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let is_taken = crate::spec::parse_duration("timeout", seconds).is_ok();
        assert!(is_taken || !(0.0..1.8e19).contains(&seconds), "{seconds}");
    }
    for id in [0, 1000, u32::MAX] {
        let _ = crate::namespace::idmap::parse_range(text, Some("ann"), id);
    }
}

/// Keys in the first line; what is typed comes in pieces as if it came at once, and only the keys are missing of it.
fn detach(text: &str) {
    let (keys, typed) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(keys) = DetachKeys::parse(keys) else { return };
    let mut whole = keys.clone();
    let at_once = whole.feed(typed.as_bytes());
    let (mut pieces, mut bytes, mut used, mut detach) = (keys, Vec::new(), 0, false);
    for piece in typed.as_bytes().chunks(3) {
        let typed = pieces.feed(piece);
        bytes.extend(typed.bytes);
        used += typed.used;
        detach = typed.detach;
        if detach {
            break;
        }
    }
    assert_eq!((&bytes, used, detach), (&at_once.bytes, at_once.used, at_once.detach));
    assert!(at_once.bytes.len() <= at_once.used && at_once.used <= typed.len());
    assert!(typed.as_bytes().starts_with(&at_once.bytes));
}

/// Between the parts of an image.
const CUT: &[u8] = b"\n----\n";

/// Manifest, configuration and layers, each cut from the next: an image whose digests are right. `{1}` is the digest of the
/// configuration or of a layer, `{1s}` its size, `{1d}` its digest once it is decompressed.
fn image(ground: &Ground, bytes: &[u8]) {
    let dir = ground.at("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut parts = split(bytes);
    parts.truncate(5);
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        digest
    };
    let mut words = Vec::new();
    for number in (0..parts.len()).rev() {
        let part = match number {
            0 | 1 => fill(&parts[number], &words),
            _ => plain(&parts[number]).map_or_else(|| with_checksums(&parts[number]), |_| parts[number].clone()),
        };
        let digest = put(&part);
        words.push((format!("{{{number}}}"), digest.to_string()));
        words.push((format!("{{{number}s}}"), part.len().to_string()));
        if let Some(plain) = plain(&part) {
            words.push((format!("{{{number}d}}"), Digest::of(&plain).to_string()));
        }
        if number == 0 {
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"a"}}}}]}}"#,
                media::MANIFEST,
                part.len()
            );
            fs::write(dir.join("index.json"), index).unwrap();
        }
    }
    load(ground, &dir);
    fs::remove_dir_all(dir).unwrap();
    assert_eq!(ground.picture(), ground.1);
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(CUT) {
            parts.push(Vec::new());
            at += CUT.len();
        } else {
            parts.last_mut().unwrap().push(bytes[at]);
            at += 1;
        }
    }
    parts
}

fn fill(part: &[u8], words: &[(String, String)]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(part) else { return part.to_vec() };
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value)).into_bytes()
}

/// What is in a blob that is not too large.
fn plain(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    decompress::reader(bytes, &limits()).ok()?.take(1 << 20).read_to_end(&mut all).ok()?;
    Some(all)
}

/// Loads what may be an archive: if it is taken the store is good, and if not, nothing is in it.
fn load(ground: &Ground, path: &Path) {
    let store = Store::open_with(Some(ground.at("store")), limits()).unwrap();
    let loaded = store.load(path, &mut ());
    match &loaded {
        Ok(images) => {
            assert!(!images.is_empty());
            assert_eq!(store.verify(&mut ()).unwrap(), []);
            assert!(images.iter().all(|image| image.config().is_ok()));
        }
        Err(_) => assert!(store.images().unwrap().is_empty()),
    }
    for image in store.images().unwrap() {
        store.remove(&image.digest().to_string()).unwrap();
    }
    store.gc().unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.blobs, usage.snapshots, usage.partial), (0, 0, 0), "{loaded:?}");
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn corpora_break_no_promise() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let ground = Ground::new();
        for (name, target) in TARGETS {
            let mut count = 0;
            for file in fs::read_dir(corpora.join(name)).unwrap() {
                target(&ground, &fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 3, "{name} has {count}");
        }
        assert_eq!(fs::metadata(&ground.0).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
