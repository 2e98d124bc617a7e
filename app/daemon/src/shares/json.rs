//! A request's body as the engine's decoder understands it, which is Go's: a key counts in any letter case, and as often as
//! it is there, where serde_json would keep the last one of exactly that spelling. What is looked at here must be what the
//! engine acts on.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::{Number, Value};

/// A value; an object keeps the order and every repetition of its keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    /// Keys and values.
    Object(Vec<(String, Json)>),
    /// Values.
    Array(Vec<Json>),
    /// A string.
    Text(String),
    /// Anything else.
    Other(Value),
}

/// As Go folds them: two letters beyond ASCII are another spelling of `s` and `k`.
fn folded(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    }
}

fn same(key: &str, field: &str) -> bool {
    key.chars().map(folded).eq(field.chars().map(folded))
}

impl Json {
    /// What a body says.
    ///
    /// # Errors
    /// Where it is no JSON. Bytes that are no UTF-8 become the replacement character, as in the engine.
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&String::from_utf8_lossy(body))
    }

    /// Every value of a field, in the order in which the engine reads them; none where this is no object.
    pub(super) fn fields<'a>(&'a mut self, field: &'a str) -> impl Iterator<Item = &'a mut Json> {
        let entries = if let Self::Object(entries) = self { entries.as_mut_slice() } else { &mut [] };
        entries.iter_mut().filter(move |(key, _)| same(key, field)).map(|(_, value)| value)
    }

    /// The same of a map, whose keys are spelled as they are.
    pub(super) fn entries<'a>(&'a mut self, wanted: &'a str) -> impl Iterator<Item = &'a mut Json> {
        let entries = if let Self::Object(entries) = self { entries.as_mut_slice() } else { &mut [] };
        entries.iter_mut().filter(move |(key, _)| key == wanted).map(|(_, value)| value)
    }

    /// The values of a list; none where this is none.
    pub(super) fn items(&mut self) -> &mut [Json] {
        if let Self::Array(items) = self { items } else { &mut [] }
    }

    /// The text, where this is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Found;

        impl<'de> Visitor<'de> for Found {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Other(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Other(Number::from_f64(value).map_or(Value::Null, Value::Number)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Json::Object(entries))
            }
        }

        deserializer.deserialize_any(Found)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Text(text) => serializer.serialize_str(text),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_with_every_repetition_in_its_order() {
        let text = r#"{"b":[1,-2,2.5,true,null,"x\u0000"],"a":{"A":{},"a":[]},"b":18446744073709551615}"#;
        let json = Json::parse(text.as_bytes()).expect("JSON");
        assert_eq!(serde_json::to_string(&json).expect("JSON"), text);
    }

    #[test]
    fn a_field_counts_in_every_spelling_that_the_engine_takes() {
        let text =
            "{\"HostConfig\":1,\"hostconfig\":2,\"HO\u{17f}TCONFIG\":3,\"Host_Config\":4,\"HostConfig\":5}";
        let mut json = Json::parse(text.as_bytes()).expect("JSON");
        let found: Vec<Json> = json.fields("HostConfig").map(|value| value.clone()).collect();
        assert_eq!(found, [1, 2, 3, 5].map(|number| Json::Other(number.into())));
        let mut json = Json::parse("{\"lin\u{212a}s\":true}".as_bytes()).expect("JSON");
        assert_eq!(json.fields("Links").count(), 1);
        assert_eq!(json.entries("Links").count(), 0, "a map's keys are as they are");
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing() {
        let mut json = Json::parse(b"{\"a\":\"\xff\",\"Binds\":[\"/x:/y\"]}").expect("JSON");
        assert_eq!(json.fields("Binds").count(), 1);
        assert!(Json::parse(b"{\"a\":").is_err() && Json::parse(b"{} x").is_err());
    }
}
