//! Mount options by name: `"ro,nosuid,rslave,size=1m"` and what they mean to the kernel.
//!
//! The names are those of OCI's runtime-spec (config.md, "Mounts"), which are those of mount(8) and their recursive forms.
//! What is no name of the table belongs to the file system, which says itself what it knows.
#![forbid(unsafe_code)]

use super::flags::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME, MS_DIRSYNC, MS_I_VERSION,
    MS_LAZYTIME, MS_MANDLOCK, MS_PRIVATE, MS_REC, MS_SHARED, MS_SILENT, MS_SLAVE, MS_SYNCHRONOUS, MS_UNBINDABLE,
};
use crate::error::{Error, Result};

/// What a list of options asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `MOUNT_ATTR_*` of the mount itself: set and cleared.
    pub(crate) top: Change,
    /// The same for all mounts of the tree.
    pub(crate) all: Change,
    /// `MS_PRIVATE` and the like, with `MS_REC`; 0: none given.
    pub(crate) propagation: u64,
    /// `bind` (false) or `rbind` (true).
    pub(crate) bind: Option<bool>,
    /// `MS_*` of the file system itself.
    pub(crate) super_flags: u64,
    /// Those that an option says are off, as all are unless told otherwise.
    pub(crate) super_off: u64,
    pub(crate) remount: bool,
    /// `tmpcopyup`
    pub(crate) copy_up: bool,
    /// `idmap` (false) or `ridmap` (true), which holds for the mounts below, too.
    pub(crate) idmap: Option<bool>,
    /// `copy-symlink`
    pub(crate) copy_symlink: bool,
    /// `src-nofollow`, `dest-nofollow`
    pub(crate) source_nofollow: bool,
    pub(crate) target_nofollow: bool,
    /// The file system's own, in order; an empty value is a flag.
    pub(crate) data: Vec<(String, String)>,
}

/// Attributes to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

#[derive(Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    /// One of the three ways of access times.
    Atime(u64),
    Super(u64),
    SuperOff(u64),
    Propagation(u64),
    Bind,
    Remount,
    CopyUp,
    IdMap,
    CopySymlink,
    SourceNofollow,
    TargetNofollow,
    /// What the kernel does anyway.
    Nothing,
}

/// Name and effect; an attribute with `r` before its name holds for the whole tree.
const TABLE: &[(&str, Effect)] = &[
    ("ro", Effect::Set(MOUNT_ATTR_RDONLY)),
    ("rw", Effect::Clear(MOUNT_ATTR_RDONLY)),
    ("nosuid", Effect::Set(MOUNT_ATTR_NOSUID)),
    ("suid", Effect::Clear(MOUNT_ATTR_NOSUID)),
    ("nodev", Effect::Set(MOUNT_ATTR_NODEV)),
    ("dev", Effect::Clear(MOUNT_ATTR_NODEV)),
    ("noexec", Effect::Set(MOUNT_ATTR_NOEXEC)),
    ("exec", Effect::Clear(MOUNT_ATTR_NOEXEC)),
    ("nodiratime", Effect::Set(MOUNT_ATTR_NODIRATIME)),
    ("diratime", Effect::Clear(MOUNT_ATTR_NODIRATIME)),
    ("nosymfollow", Effect::Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("symfollow", Effect::Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("noatime", Effect::Atime(MOUNT_ATTR_NOATIME)),
    ("strictatime", Effect::Atime(MOUNT_ATTR_STRICTATIME)),
    ("relatime", Effect::Atime(0)),
    ("atime", Effect::Atime(0)),
    ("nostrictatime", Effect::Atime(0)),
    // Relative is what the kernel does unless it is told otherwise.
    ("norelatime", Effect::Atime(0)),
];

const OTHERS: &[(&str, Effect)] = &[
    ("sync", Effect::Super(MS_SYNCHRONOUS)),
    ("dirsync", Effect::Super(MS_DIRSYNC)),
    ("lazytime", Effect::Super(MS_LAZYTIME)),
    ("mand", Effect::Super(MS_MANDLOCK)),
    ("silent", Effect::Super(MS_SILENT)),
    ("iversion", Effect::Super(MS_I_VERSION)),
    ("async", Effect::SuperOff(MS_SYNCHRONOUS)),
    ("nolazytime", Effect::SuperOff(MS_LAZYTIME)),
    ("nomand", Effect::SuperOff(MS_MANDLOCK)),
    ("loud", Effect::SuperOff(MS_SILENT)),
    ("noiversion", Effect::SuperOff(MS_I_VERSION)),
    ("defaults", Effect::Nothing),
    ("private", Effect::Propagation(MS_PRIVATE)),
    ("rprivate", Effect::Propagation(MS_PRIVATE | MS_REC)),
    ("slave", Effect::Propagation(MS_SLAVE)),
    ("rslave", Effect::Propagation(MS_SLAVE | MS_REC)),
    ("shared", Effect::Propagation(MS_SHARED)),
    ("rshared", Effect::Propagation(MS_SHARED | MS_REC)),
    ("unbindable", Effect::Propagation(MS_UNBINDABLE)),
    ("runbindable", Effect::Propagation(MS_UNBINDABLE | MS_REC)),
    ("bind", Effect::Bind),
    ("rbind", Effect::Bind),
    ("remount", Effect::Remount),
    ("tmpcopyup", Effect::CopyUp),
    ("idmap", Effect::IdMap),
    ("ridmap", Effect::IdMap),
    ("copy-symlink", Effect::CopySymlink),
    ("src-nofollow", Effect::SourceNofollow),
    ("dest-nofollow", Effect::TargetNofollow),
];

fn find(table: &[(&str, Effect)], name: &str) -> Option<Effect> {
    table.iter().find(|(known, _)| *known == name).map(|(_, effect)| *effect)
}

/// Whether a word is an option of mounts and not the file system's.
fn is_ours(word: &str) -> bool {
    [TABLE, OTHERS].into_iter().any(|table| find(table, word).is_some())
        || word.strip_prefix('r').is_some_and(|name| find(TABLE, name).is_some())
}

fn excludes(word: &str) -> Error {
    Error::spec("mounts", format!("option {word} excludes one that was given before it"))
}

impl Options {
    /// Reads a list of options. Errors: [`Error::Spec`] for two that exclude each other.
    pub(crate) fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Options> {
        let mut options = Options::default();
        for word in words {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<()> {
        if word.contains('\0') {
            return Err(Error::spec("mounts", format!("option {word:?} contains a NUL byte")));
        }
        if let Some(effect) = find(TABLE, word) {
            return self.top.apply(word, effect);
        }
        if let Some(effect) = word.strip_prefix('r').and_then(|name| find(TABLE, name)) {
            return self.all.apply(word, effect);
        }
        match find(OTHERS, word) {
            Some(Effect::Super(flag)) if self.super_off & flag != 0 => return Err(excludes(word)),
            Some(Effect::SuperOff(flag)) if self.super_flags & flag != 0 => return Err(excludes(word)),
            Some(Effect::Super(flag)) => self.super_flags |= flag,
            Some(Effect::SuperOff(flag)) => self.super_off |= flag,
            Some(Effect::Propagation(_)) if self.propagation != 0 => {
                return Err(Error::spec("mounts", format!("option {word} excludes the propagation given before it")));
            }
            Some(Effect::Propagation(flags)) => self.propagation = flags,
            Some(Effect::Bind) => self.bind = Some(word == "rbind"),
            Some(Effect::Remount) => self.remount = true,
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::IdMap) => self.idmap = Some(word == "ridmap"),
            Some(Effect::CopySymlink) => self.copy_symlink = true,
            Some(Effect::SourceNofollow) => self.source_nofollow = true,
            Some(Effect::TargetNofollow) => self.target_nofollow = true,
            Some(_) => {}
            None => self.add_data(word)?,
        }
        Ok(())
    }

    /// An option that is the file system's: `size=1m`, `subset=pid`, `userxattr`.
    fn add_data(&mut self, word: &str) -> Result<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name.is_empty() {
            return Err(Error::spec("mounts", format!("option {word:?} has no name")));
        }
        // The file system would be given a flag of that name, which means something else here.
        if value.is_empty() && is_ours(name) {
            return Err(Error::spec("mounts", format!("option {word:?}: {name} takes no value")));
        }
        self.data.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Words that ask for just this.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (change, prefix) in [(self.top, ""), (self.all, "r")] {
            let mut has_atime = false;
            for (name, effect) in TABLE {
                let is_asked = match effect {
                    Effect::Set(bits) => change.set & bits != 0,
                    Effect::Clear(bits) => change.clear & bits != 0,
                    Effect::Atime(bits) => {
                        let is_it = change.clear & MOUNT_ATTR__ATIME != 0 && change.set & MOUNT_ATTR__ATIME == *bits;
                        let is_first = is_it && !has_atime;
                        has_atime |= is_it;
                        is_first
                    }
                    _ => false,
                };
                words.extend(is_asked.then(|| format!("{prefix}{name}")));
            }
        }
        for (name, effect) in OTHERS {
            let is_asked = match effect {
                Effect::Super(flag) => self.super_flags & flag != 0,
                Effect::SuperOff(flag) => self.super_off & flag != 0,
                Effect::Propagation(flags) => self.propagation == *flags,
                Effect::Bind => self.bind == Some(*name == "rbind"),
                Effect::Remount => self.remount,
                Effect::CopyUp => self.copy_up,
                Effect::IdMap => self.idmap == Some(*name == "ridmap"),
                Effect::CopySymlink => self.copy_symlink,
                Effect::SourceNofollow => self.source_nofollow,
                Effect::TargetNofollow => self.target_nofollow,
                _ => false,
            };
            words.extend(is_asked.then(|| (*name).to_owned()));
        }
        let data = |(name, value): &(String, String)| {
            if value.is_empty() { name.clone() } else { format!("{name}={value}") }
        };
        words.extend(self.data.iter().map(data));
        words
    }

    /// The names of the super block's flags, as a file system context takes them.
    pub(crate) fn super_names(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.super_flags;
        let known =
            [(MS_SYNCHRONOUS, "sync"), (MS_DIRSYNC, "dirsync"), (MS_LAZYTIME, "lazytime"), (MS_MANDLOCK, "mand")];
        known.into_iter().filter(move |(flag, _)| flags & flag != 0).map(|(_, name)| name)
    }
}

impl Change {
    fn apply(&mut self, word: &str, effect: Effect) -> Result<()> {
        let (set, clear) = match effect {
            Effect::Set(bits) => (bits, 0),
            Effect::Clear(bits) => (0, bits),
            Effect::Atime(bits) => (bits, MOUNT_ATTR__ATIME),
            _ => (0, 0),
        };
        let clash = match effect {
            Effect::Atime(bits) => self.clear & MOUNT_ATTR__ATIME != 0 && self.set & MOUNT_ATTR__ATIME != bits,
            _ => self.clear & set | self.set & clear != 0,
        };
        if clash {
            return Err(excludes(word));
        }
        self.set |= set;
        self.clear |= clear;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(text.split(',').filter(|word| !word.is_empty()))
    }

    #[test]
    fn every_option_of_the_runtime_spec_is_known() {
        let names = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
            noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime \
            relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro \
            rprivate rro rrelatime rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
            strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap copy-symlink src-nofollow dest-nofollow";
        for name in names.split_whitespace() {
            let options = parse(name).unwrap();
            assert!(options.data.is_empty(), "{name} went to the file system");
        }
    }

    #[test]
    fn what_is_no_known_option_is_the_file_systems() {
        let options = parse("ro,size=1m,nr_inodes=5,noswap").unwrap();
        let pairs: Vec<_> = options.data.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("size", "1m"), ("nr_inodes", "5"), ("noswap", "")]);
        assert_eq!(options.top, Change { set: MOUNT_ATTR_RDONLY, clear: 0 });
    }

    #[test]
    fn recursive_forms_hold_for_the_tree() {
        let options = parse("rro,nosuid,rnoatime").unwrap();
        assert_eq!(options.all.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME);
        assert_eq!(options.all.clear, MOUNT_ATTR__ATIME);
        assert_eq!(options.top.set, MOUNT_ATTR_NOSUID);
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for text in [
            "ro,rw",
            "rw,ro",
            "suid,nosuid",
            "noatime,strictatime",
            "private,slave",
            "rshared,rprivate",
            "rro,rrw",
            "sync,async",
            "nolazytime,lazytime",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.field(), Some("mounts"), "{text}");
            assert!(error.to_string().contains(text.split(',').next_back().unwrap()), "{error}");
        }
        // The tree and its top are different things.
        assert!(parse("rro,rw").is_ok());
    }

    #[test]
    fn any_text_is_read_or_refused() {
        for text in ["", "=", "=x", "a=b=c", "ro\0", "r", "rr", "é=ü", "lowerdir=/a\\:b:/c"] {
            let _ = parse(text);
        }
        assert!(parse("=x").is_err());
        for text in ["ro=", "rro=", "iversion=", "rslave="] {
            assert!(parse(text).unwrap_err().to_string().contains("takes no value"), "{text}");
        }
        assert_eq!(parse("a=b=c").unwrap().data, [("a".to_owned(), "b=c".to_owned())]);
    }

    /// xorshift64: the same numbers on every run, so that a failure can be looked at.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }

        fn shuffle<T>(&mut self, items: &mut [T]) {
            for at in (1..items.len()).rev() {
                let other = self.below(at + 1);
                items.swap(at, other);
            }
        }
    }

    fn draw(chance: &mut Chance) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..chance.below(9) {
            let word = match chance.below(4) {
                0 => TABLE[chance.below(TABLE.len())].0.to_owned(),
                1 => format!("r{}", TABLE[chance.below(TABLE.len())].0),
                2 => OTHERS[chance.below(OTHERS.len())].0.to_owned(),
                _ => ["size=1m", "noswap", "a=b=c", "mode=1777", "x=,:\\", "y=", "nosuid="][chance.below(7)].to_owned(),
            };
            words.push(word);
        }
        words
    }

    fn read(words: &[String]) -> Result<Options> {
        Options::parse(words.iter().map(String::as_str))
    }

    #[test]
    fn what_was_read_can_be_written_and_read_again() {
        let mut chance = Chance(0x5eed);
        let mut fine = 0;
        for _ in 0..20_000 {
            let words = draw(&mut chance);
            let Ok(options) = read(&words) else { continue };
            fine += 1;
            assert_eq!(read(&options.words()).unwrap(), options, "{words:?}");
        }
        assert!(fine > 5_000, "{fine} of the lists had no contradiction");
    }

    #[test]
    fn the_order_of_words_does_not_matter() {
        let mut chance = Chance(0xabcd);
        for _ in 0..20_000 {
            let words = draw(&mut chance);
            let mut other = words.clone();
            chance.shuffle(&mut other);
            let sorted = |mut options: Options| {
                options.data.sort();
                // The last of two says whether a bind, or its ids, are recursive.
                options.bind = options.bind.map(|_| true);
                options.idmap = options.idmap.map(|_| true);
                options
            };
            match (read(&words), read(&other)) {
                (Ok(a), Ok(b)) => assert_eq!(sorted(a), sorted(b), "{words:?} {other:?}"),
                (a, b) => assert_eq!(a.is_err(), b.is_err(), "{words:?} {other:?}"),
            }
        }
    }

    #[test]
    fn random_text_is_read_or_refused() {
        let mut chance = Chance(0xfeed);
        let letters: Vec<char> = "ro=,:;\\/\"' \n\0%aé\u{2603}".chars().collect();
        for _ in 0..20_000 {
            let text: String = (0..chance.below(12)).map(|_| letters[chance.below(letters.len())]).collect();
            if let Ok(options) = Options::parse([text.as_str()]) {
                assert!(!text.contains('\0') && !text.starts_with('='), "{text:?}");
                assert_eq!(read(&options.words()).unwrap(), options, "{text:?}");
            }
        }
    }
}
