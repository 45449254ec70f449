//! JSON read strictly: every key is known, none is written twice, and each complaint says where.
//!
//! A misspelt selector that is dropped in silence widens a pool, and a pool that is too wide hands out somebody's
//! network card. Refuses to know what the keys mean.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use zerobridge_proto::cni::nearest;

use super::ConfigError;

/// A JSON value whose objects still hold what was written twice.
#[derive(Debug)]
enum Json {
    Object(Vec<(String, Json)>),
    List(Vec<Json>),
    Text(String),
    Flag(bool),
    /// A whole number from 0.
    Number(u64),
    Null,
    /// Another number: no key here takes one, so its text is kept for the complaint.
    Other(String),
}

/// How a document is spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As this project documents it.
    #[default]
    Exact,
    /// As Go's `encoding/json` reads it: keys in any case, and `null`, an empty text or an empty list for what is not
    /// there.
    Go,
}

/// A value and where it stands, such as `pools[0].selectors.vendors[1]`; the whole document stands at "".
#[derive(Debug)]
pub(super) struct Placed {
    json: Json,
    place: String,
    spelling: Spelling,
}

/// The keys of one object.
#[derive(Debug)]
pub(super) struct Fields {
    place: String,
    spelling: Spelling,
    entries: Vec<(String, Json)>,
}

impl Placed {
    /// Reads a document.
    pub(super) fn document(text: &str) -> Result<Self, ConfigError> {
        let json = serde_json::from_str(text).map_err(ConfigError::Syntax)?;
        Ok(Self { json, place: String::new(), spelling: Spelling::Exact })
    }

    /// The same value in another spelling, which is also that of everything in it.
    pub(super) fn spelt(self, spelling: Spelling) -> Self {
        Self { spelling, ..self }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The keys of the value, unread; none if it is no object.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = if let Json::Object(entries) = &self.json { entries.as_slice() } else { &[] };
        entries.iter().map(|(key, _)| key.as_str())
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.json, Json::List(_))
    }

    /// The value as an object that has no other keys than `known`, each once.
    pub(super) fn object(self, known: &[&str]) -> Result<Fields, ConfigError> {
        let (place, spelling) = (self.place.clone(), self.spelling);
        let mut entries: Vec<(String, Json)> = Vec::new();
        for (written, json) in self.entries()? {
            let same = |name: &&&str| match spelling {
                Spelling::Exact => **name == written,
                Spelling::Go => name.eq_ignore_ascii_case(&written),
            };
            let Some(key) = known.iter().find(same) else {
                let remedy = match nearest(&written, known) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known are: {}", known.join(", ")),
                };
                return Err(ConfigError::UnknownKey { key: joined(&place, &written), remedy });
            };
            if entries.iter().any(|(earlier, _)| earlier == key) {
                return Err(ConfigError::RepeatedKey { key: joined(&place, key) });
            }
            entries.push(((*key).to_owned(), json));
        }
        if spelling == Spelling::Go {
            let absent = |json: &Json| match json {
                Json::Null => true,
                Json::Text(text) => text.is_empty(),
                _ => false,
            };
            entries.retain(|(_, json)| !absent(json));
        }
        Ok(Fields { place, spelling, entries })
    }

    /// The value as an object whose keys are free, each once.
    pub(super) fn table(self) -> Result<Vec<(String, Self)>, ConfigError> {
        let (place, spelling) = (self.place.clone(), self.spelling);
        let mut table: Vec<(String, Self)> = Vec::new();
        for (key, json) in self.entries()? {
            let place = joined(&place, &key);
            if table.iter().any(|(earlier, _)| *earlier == key) {
                return Err(ConfigError::RepeatedKey { key: place });
            }
            table.push((key, Self { json, place, spelling }));
        }
        Ok(table)
    }

    fn entries(self) -> Result<Vec<(String, Json)>, ConfigError> {
        match self.json {
            Json::Object(entries) => Ok(entries),
            _ => Err(self.wrong_kind("an object, { … }")),
        }
    }

    /// The value as a list, which has at least one entry unless the spelling allows less.
    pub(super) fn list(self, entry: &'static str) -> Result<Vec<Self>, ConfigError> {
        let Json::List(values) = self.json else {
            return Err(self.wrong_kind("a list, [ … ]"));
        };
        if values.is_empty() && self.spelling == Spelling::Exact {
            return Err(ConfigError::EmptyList { place: self.place, entry });
        }
        let placed =
            |(index, json)| Self { json, place: format!("{}[{index}]", self.place), spelling: self.spelling };
        Ok(values.into_iter().enumerate().map(placed).collect())
    }

    pub(super) fn text(self) -> Result<String, ConfigError> {
        match self.json {
            Json::Text(text) => Ok(text),
            _ => Err(self.wrong_kind("a text in quotes")),
        }
    }

    pub(super) fn flag(self) -> Result<bool, ConfigError> {
        match self.json {
            Json::Flag(flag) => Ok(flag),
            _ => Err(self.wrong_kind("true or false")),
        }
    }

    /// The value as a whole number within `allowed`.
    pub(super) fn number(self, allowed: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        match self.json {
            Json::Number(number) if allowed.contains(&number) => Ok(number),
            Json::Number(_) | Json::Other(_) => {
                let found = self.json.shown();
                let (least, most) = allowed.into_inner();
                Err(ConfigError::OutOfRange { place: self.place, found, least, most })
            }
            _ => Err(self.wrong_kind("a number without quotes")),
        }
    }

    /// The value as a number, or as the same number in quotes.
    pub(super) fn number_or_digits(mut self, allowed: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        if let Json::Text(text) = &self.json
            && let Ok(number) = text.parse()
        {
            self.json = Json::Number(number);
        }
        self.number(allowed)
    }

    /// The value as one of a few words.
    pub(super) fn word<T: Copy>(self, words: &[(&'static str, T)]) -> Result<T, ConfigError> {
        let place = self.place.clone();
        let text = self.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let remedy = match nearest(&text, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of \"{}\"", known.join("\", \"")),
        };
        Err(ConfigError::UnknownWord { place, found: text, remedy })
    }

    /// The value as a text that `read` understands.
    pub(super) fn parsed<T, E>(self, read: impl FnOnce(&str) -> Result<T, E>) -> Result<T, ConfigError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let place = self.place.clone();
        read(&self.text()?).map_err(|source| ConfigError::invalid(place, source))
    }

    /// The value as it is, for whoever knows its keys. None of them is written twice.
    pub(super) fn value(self) -> Result<Value, ConfigError> {
        let within =
            |key: &str, json| Self { json, place: joined(&self.place, key), spelling: self.spelling };
        Ok(match self.json {
            Json::Object(entries) => {
                let mut map = Map::new();
                for (key, json) in entries {
                    let value = within(&key, json).value()?;
                    if map.insert(key.clone(), value).is_some() {
                        return Err(ConfigError::RepeatedKey { key: joined(&self.place, &key) });
                    }
                }
                Value::Object(map)
            }
            Json::List(values) => {
                let placed = |(index, json)| {
                    let place = format!("{}[{index}]", self.place);
                    Self { json, place, spelling: self.spelling }.value()
                };
                Value::Array(values.into_iter().enumerate().map(placed).collect::<Result<_, _>>()?)
            }
            Json::Text(text) => Value::String(text),
            Json::Flag(flag) => Value::Bool(flag),
            Json::Number(number) => number.into(),
            // As it was printed when it was read.
            Json::Other(text) => serde_json::from_str(&text).map_err(ConfigError::Syntax)?,
            Json::Null => Value::Null,
        })
    }

    fn wrong_kind(self, expected: &'static str) -> ConfigError {
        let found = self.json.shown();
        let place = if self.place.is_empty() { "the document".to_owned() } else { self.place };
        ConfigError::WrongKind { place, found, expected }
    }
}

impl Json {
    fn shown(&self) -> String {
        match self {
            Self::Object(_) => "an object".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Text(text) => format!("\"{text}\""),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Null => "null".to_owned(),
            Self::Other(text) => text.clone(),
        }
    }
}

impl Fields {
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Where a key stands, whether it is written or not.
    pub(super) fn place_of(&self, key: &str) -> String {
        joined(&self.place, key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Placed> {
        let position = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, json) = self.entries.swap_remove(position);
        Some(Placed { json, place: joined(&self.place, key), spelling: self.spelling })
    }

    pub(super) fn require(
        &mut self,
        key: &'static str,
        purpose: &'static str,
    ) -> Result<Placed, ConfigError> {
        self.take(key).ok_or_else(|| ConfigError::MissingKey { key: self.place_of(key), purpose })
    }

    /// A flag, false if it is not written.
    pub(super) fn flag(&mut self, key: &str) -> Result<bool, ConfigError> {
        self.take(key).map_or(Ok(false), Placed::flag)
    }

    /// A list, each entry read by `read`; empty if it is not written.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        read: impl Fn(Placed) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(list) = self.take(key) else { return Ok(Vec::new()) };
        list.list("entry")?.into_iter().map(read).collect()
    }
}

fn joined(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Other(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Other(number.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
}
