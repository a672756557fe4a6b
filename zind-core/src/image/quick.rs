//! Indexes as they mostly are, without the detour by [`serde_json::Value`]: a list of thousands of images is read at each
//! first look, and most of that time was memory for names of fields.
//!
//! Whatever is unusual here (an unknown field, `null`, a name twice, a wrong digest) is left to the thorough reader, which
//! knows what to do or to say. So both give the same.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Map;

use super::digest::Digest;
use super::manifest::{Descriptor, Index, media};
use super::platform::Platform;

/// An index, if it is one as usual.
pub(super) fn index(bytes: &[u8], most: usize) -> Option<Index> {
    let Document(index) = serde_json::from_slice::<Document>(bytes).ok()?;
    (index.manifests.len() <= most).then_some(index)
}

/// Text that is borrowed where nothing in it is escaped.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// Puts a value where none is yet.
fn once<T, E: serde_core::de::Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("twice")),
    }
}

/// A type that is read from an object.
macro_rules! object {
    ($name:ident, $value:ty, |$map:ident| $body:block) => {
        struct $name($value);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<$name, A::Error> {
                        $body
                    }
                }
                deserializer.deserialize_map(Reader)
            }
        }
    };
}

object!(Document, Index, |map| {
    let (mut version, mut media_type, mut manifests) = (None, None, None);
    while let Some(Text(name)) = map.next_key()? {
        match &*name {
            "schemaVersion" => once(&mut version, map.next_value::<u64>()?)?,
            "mediaType" => once(&mut media_type, map.next_value::<Text<'de>>()?.0.into_owned())?,
            "manifests" => once(&mut manifests, map.next_value::<Manifests>()?.0)?,
            _ => return Err(A::Error::custom("unknown")),
        }
    }
    if version != Some(2) || media_type.as_deref().is_some_and(|stated| !media::is_index(stated)) {
        return Err(A::Error::custom("unusual"));
    }
    Ok(Document(Index {
        media_type: media_type.unwrap_or_else(|| media::INDEX.to_owned()),
        manifests: manifests.unwrap_or_default(),
        annotations: BTreeMap::new(),
        other: Map::new(),
    }))
});

struct Manifests(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Manifests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Manifests, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Manifests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Manifests, A::Error> {
                let mut list = Vec::new();
                while let Some(One(descriptor)) = from.next_element()? {
                    list.push(descriptor);
                }
                Ok(Manifests(list))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

object!(One, Descriptor, |map| {
    let (mut media_type, mut digest, mut size, mut annotations, mut platform) = (None, None, None, None, None);
    while let Some(Text(name)) = map.next_key()? {
        match &*name {
            "mediaType" => once(&mut media_type, map.next_value::<Text<'de>>()?.0.into_owned())?,
            "digest" => {
                let parsed = Digest::parse(&map.next_value::<Text<'de>>()?.0);
                once(&mut digest, parsed.map_err(|_| A::Error::custom("digest"))?)?;
            }
            "size" => once(&mut size, map.next_value::<u64>()?)?,
            "annotations" => once(&mut annotations, map.next_value::<Words>()?.0)?,
            "platform" => once(&mut platform, map.next_value::<Runs>()?.0)?,
            _ => return Err(A::Error::custom("unknown")),
        }
    }
    let size = size.filter(|size| i64::try_from(*size).is_ok());
    let (Some(digest), Some(size)) = (digest, size) else { return Err(A::Error::custom("missing")) };
    let mut descriptor = Descriptor::new(media_type.unwrap_or_default(), digest, size);
    descriptor.annotations = annotations.unwrap_or_default();
    descriptor.platform = platform;
    Ok(One(descriptor))
});

object!(Words, BTreeMap<String, String>, |map| {
    let mut words = BTreeMap::new();
    while let Some((Text(name), Text(value))) = map.next_entry()? {
        if words.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(A::Error::custom("twice"));
        }
    }
    Ok(Words(words))
});

object!(Runs, Platform, |map| {
    let (mut os, mut architecture, mut variant) = (None, None, None);
    while let Some((Text(name), Text(value))) = map.next_entry()? {
        let slot = match &*name {
            "os" => &mut os,
            "architecture" => &mut architecture,
            "variant" => &mut variant,
            _ => return Err(A::Error::custom("unknown")),
        };
        once(slot, value.into_owned())?;
    }
    let variant = variant.filter(|variant| !variant.is_empty());
    Ok(Runs(Platform::new(os.unwrap_or_default(), architecture.unwrap_or_default(), variant)))
});
