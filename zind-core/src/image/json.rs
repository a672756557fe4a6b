//! Foreign JSON: bounded in size and depth, no name twice.
#![forbid(unsafe_code)]

use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// A value in which no object has a name twice: two readers of such a document could take it for different ones.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = from.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = from.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(serde_core::de::Error::custom("a name is there twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// Any document.
pub(crate) fn strict(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Strict>(text).map(|Strict(value)| value)
}

/// A document that is an object. `what` names it in errors. Depth is bounded by serde_json, at 128.
pub(crate) fn object(what: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(Error::image(what, "is JSON, but no object")),
        Err(error) => Err(Error::image(what, format!("is not the JSON it should be: {error}"))),
    }
}

/// A document that is an array.
pub(crate) fn array(what: &str, bytes: &[u8]) -> Result<Vec<Value>> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Array(list))) => Ok(list),
        Ok(_) => Err(Error::image(what, "is JSON, but no array")),
        Err(error) => Err(Error::image(what, format!("is not the JSON it should be: {error}"))),
    }
}

/// The fields of an object, which are taken out one by one. `null` is as good as missing; what is left at the end was not
/// understood.
pub(crate) struct Fields<'a> {
    what: &'a str,
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'a str, map: Map<String, Value>) -> Fields<'a> {
        Fields { what, map }
    }

    pub(crate) fn of(what: &'a str, value: Value) -> Result<Fields<'a>> {
        match value {
            Value::Object(map) => Ok(Fields { what, map }),
            _ => Err(Error::image(what, "is no object")),
        }
    }

    pub(crate) fn wrong(&self, name: &str, rule: &str) -> Error {
        Error::image(self.what, format!("{name} {rule}"))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "is no string")),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(name, "is no object")),
        }
    }

    pub(crate) fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(name, "is no array")),
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(list) = self.array(name)? else { return Ok(None) };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(name, "has something else than strings")),
        };
        list.into_iter().map(text).collect::<Result<Vec<String>>>().map(Some)
    }

    /// A map from strings to strings.
    pub(crate) fn pairs(&mut self, name: &str) -> Result<std::collections::BTreeMap<String, String>> {
        let Some(map) = self.object(name)? else { return Ok(Default::default()) };
        let pair = |(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            _ => Err(self.wrong(name, "has something else than strings")),
        };
        map.into_iter().map(pair).collect()
    }

    /// A size in bytes.
    pub(crate) fn size(&mut self, name: &str) -> Result<u64> {
        match self.take(name) {
            None => Err(self.wrong(name, "is missing")),
            Some(value) => match value.as_u64() {
                Some(size) if i64::try_from(size).is_ok() => Ok(size),
                _ => Err(self.wrong(name, &format!("is {value}, which is no size"))),
            },
        }
    }

    /// The fields that nobody took.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_unambiguous_and_flat_enough() {
        assert_eq!(object("x", br#"{"a": [1, -2, 0.5, "t", null, true, {}]}"#).unwrap().len(), 1);
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        for bad in ["", "[]", "{", r#"{"a":1,"a":2}"#, r#"{"x":{"a":1,"a":1}}"#, "{}x", &format!("{{\"a\":{deep}}}")] {
            assert!(matches!(object("x", bad.as_bytes()), Err(Error::Image { .. })), "{bad}");
        }
        assert_eq!(array("x", b"[{}]").unwrap().len(), 1);
        assert!(array("x", b"{}").is_err());
    }

    #[test]
    fn fields_have_their_types() {
        let fields = |text: &str| Fields::new("x", object("x", text.as_bytes()).unwrap());
        let mut all = fields(r#"{"s":"t","n":null,"l":["a"],"z":12,"p":{"k":"v"},"r":1}"#);
        assert_eq!(all.text("s").unwrap().as_deref(), Some("t"));
        assert_eq!(all.text("n").unwrap(), None);
        assert_eq!(all.texts("l").unwrap().unwrap(), ["a"]);
        assert_eq!(all.size("z").unwrap(), 12);
        assert_eq!(all.pairs("p").unwrap()["k"], "v");
        assert!(all.size("missing").is_err());
        for bad in [r#"{"z":-1}"#, r#"{"z":1.5}"#, r#"{"z":18446744073709551615}"#, r#"{"z":"1"}"#] {
            assert!(fields(bad).size("z").is_err(), "{bad}");
        }
        assert!(fields(r#"{"l":[1]}"#).texts("l").is_err());
    }
}
