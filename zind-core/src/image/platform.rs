//! [`Platform`]: what an image runs on, and the choice among those of an index.
#![forbid(unsafe_code)]

use std::fmt;

use serde_json::{Map, Value, json};

use super::json::Fields;
use super::manifest::{Descriptor, media};
use crate::error::{Error, Result};

/// Operating system, architecture and variant, in Go's words: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Platform {
    /// `"linux"`.
    pub os: String,
    /// `"amd64"`, `"arm64"`, `"arm"`, `"riscv64"`…
    pub architecture: String,
    /// `"v3"` of amd64, `"v7"` of arm, `"v8"` of arm64.
    pub variant: Option<String>,
    /// Other fields, kept as they are.
    pub other: Map<String, Value>,
}

impl Platform {
    /// The platform of this machine, with the highest variant that its processor has.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_level().map(str::to_owned)),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8".to_owned())),
            "arm" => ("arm", Some("v7".to_owned())),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform::new("linux", architecture, variant)
    }

    /// A platform by its parts.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>, variant: Option<String>) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant, other: Map::new() }
    }

    /// Reads `"linux/arm64"`, `"linux/arm/v7"` or `"arm64"`.
    /// Errors: [`Error::Spec`].
    pub fn parse(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let shown: String = text.chars().take(255).collect();
        // Short enough to be read again with the system before it.
        let plain = |part: &&str| {
            (1..=80).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !parts.iter().all(plain) {
            return Err(Error::spec(
                "platform",
                format!("{shown:?} is not written os/architecture or os/architecture/variant"),
            ));
        }
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(Error::spec("platform", format!("{shown:?} has too many parts"))),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" => ("386", None),
            other => (other, None),
        };
        Ok(Platform::new(os, architecture, variant.or(implied).map(str::to_owned)))
    }

    pub(crate) fn from_json(what: &str, value: Value) -> Result<Platform> {
        let mut fields = Fields::of(what, value)?;
        Ok(Platform {
            os: fields.text("os")?.unwrap_or_default(),
            architecture: fields.text("architecture")?.unwrap_or_default(),
            variant: fields.text("variant")?.filter(|variant| !variant.is_empty()),
            other: fields.rest(),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut map = self.other.clone();
        map.insert("os".to_owned(), json!(self.os));
        map.insert("architecture".to_owned(), json!(self.architecture));
        if let Some(variant) = &self.variant {
            map.insert("variant".to_owned(), json!(variant));
        }
        Value::Object(map)
    }

    /// How well an image for `other` runs on this one: higher is better, `None` does not run.
    pub fn fit(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let (mine, theirs) = (self.level(), other.level());
        (theirs <= mine).then_some(theirs)
    }

    /// The variant as a number; what is not said is what every processor of the architecture has.
    fn level(&self) -> u32 {
        let least = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        match self.variant.as_deref() {
            None => least,
            // An unknown variant runs nowhere else, as far as is known.
            Some(variant) => variant.strip_prefix('v').and_then(|number| number.parse().ok()).unwrap_or(u32::MAX),
        }
    }

    /// The image of an index that fits best: of several that run, the one for the highest variant; of those, the first.
    /// Errors: [`Error::NotFound`] that lists what there is.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let usable = |descriptor: &&Descriptor| {
            media::is_manifest(&descriptor.media_type) || media::is_index(&descriptor.media_type)
        };
        let fit = |descriptor: &'a Descriptor| match &descriptor.platform {
            Some(platform) => self.fit(platform).map(|fit| (fit, descriptor)),
            None => Some((0, descriptor)),
        };
        let best = manifests.iter().filter(usable).filter_map(fit).reduce(|a, b| if b.0 > a.0 { b } else { a });
        best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
            let mut there: Vec<String> =
                manifests.iter().filter_map(|one| one.platform.as_ref()).map(Platform::to_string).take(20).collect();
            there.dedup();
            Error::NotFound { what: "image for the platform", name: format!("{self}, only {}", there.join(", ")) }
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", variant.escape_debug()),
            None => Ok(()),
        }
    }
}

/// The level of the x86-64 psABI that this processor has.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> Option<&'static str> {
    macro_rules! all {
        ($($name:tt)*) => { true $(&& std::arch::is_x86_feature_detected!($name))* };
    }
    let second = all!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3");
    let third = second && all!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe" "xsave");
    let fourth = third && all!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    Some(match (second, third, fourth) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "v1",
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::digest::Digest;
    use super::*;

    fn descriptor(platform: Option<&str>, name: &str) -> Descriptor {
        let mut descriptor = Descriptor::new(media::MANIFEST, Digest::of(name.as_bytes()), 1);
        descriptor.platform = platform.map(|text| Platform::parse(text).unwrap());
        descriptor
    }

    #[test]
    fn platforms_are_read_in_the_words_people_use() {
        let text = |text: &str| Platform::parse(text).unwrap().to_string();
        assert_eq!(text("arm64"), "linux/arm64");
        assert_eq!(text("linux/x86_64"), "linux/amd64");
        assert_eq!(text("linux/arm/v7"), "linux/arm/v7");
        assert_eq!(text("armhf"), "linux/arm/v7");
        assert_eq!(text(&"a".repeat(80)).len(), 86);
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/a b", "linux/\n", &"a".repeat(81)] {
            assert_eq!(Platform::parse(bad).unwrap_err().field(), Some("platform"), "{bad:?}");
        }
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        let list = [
            descriptor(Some("linux/amd64"), "plain"),
            descriptor(Some("linux/amd64/v3"), "v3"),
            descriptor(Some("linux/amd64/v4"), "v4"),
            descriptor(Some("linux/arm64/v8"), "arm"),
            descriptor(Some("unknown/unknown"), "attestation"),
        ];
        let choose = |platform: &str| Platform::parse(platform).unwrap().choose(&list).map(|found| found.digest);
        assert_eq!(choose("linux/amd64/v3").unwrap(), list[1].digest);
        assert_eq!(choose("linux/amd64/v2").unwrap(), list[0].digest);
        assert_eq!(choose("linux/amd64").unwrap(), list[0].digest);
        assert_eq!(choose("linux/arm64").unwrap(), list[3].digest);
        let error = choose("linux/riscv64").unwrap_err().to_string();
        assert!(error.contains("linux/riscv64") && error.contains("linux/amd64/v4"), "{error}");
        let armv6 = Platform::parse("linux/arm/v6").unwrap();
        assert!(armv6.fit(&Platform::parse("linux/arm/v7").unwrap()).is_none());
        assert!(Platform::host().fit(&Platform::new("linux", Platform::host().architecture, None)).is_some());
    }
}
