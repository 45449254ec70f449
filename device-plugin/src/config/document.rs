//! JSON read strictly: every key is known, none is written twice, and each complaint says where.
//!
//! A misspelt selector that is dropped in silence widens a pool, and a pool that is too wide hands out somebody's
//! network card. Refuses to know what the keys mean.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zerobridge_proto::cni::nearest;

use super::ConfigError;

/// A JSON value whose objects still hold what was written twice.
#[derive(Debug)]
pub(super) enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Text(String),
    Flag(bool),
    /// A number or `null`: no key here takes one, so its text is kept for the complaint.
    Other(String),
}

/// A value and where it stands, such as `pools[0].selectors.vendors[1]`; the whole document stands at "".
#[derive(Debug)]
pub(super) struct Placed {
    node: Node,
    place: String,
}

/// The keys of one object.
#[derive(Debug)]
pub(super) struct Fields {
    place: String,
    entries: Vec<(String, Node)>,
}

impl Placed {
    /// Reads a document.
    pub(super) fn document(text: &str) -> Result<Self, ConfigError> {
        let node = serde_json::from_str(text).map_err(ConfigError::Syntax)?;
        Ok(Self { node, place: String::new() })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The value as an object that has no other keys than `known`, each once.
    pub(super) fn object(self, known: &[&str]) -> Result<Fields, ConfigError> {
        let Node::Object(entries) = self.node else {
            return Err(self.wrong_kind("an object, { … }"));
        };
        for (position, (key, _)) in entries.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                let remedy = match nearest(key, known) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known are: {}", known.join(", ")),
                };
                return Err(ConfigError::UnknownKey { key: joined(&self.place, key), remedy });
            }
            if entries.iter().take(position).any(|(earlier, _)| earlier == key) {
                return Err(ConfigError::RepeatedKey { key: joined(&self.place, key) });
            }
        }
        Ok(Fields { place: self.place, entries })
    }

    /// The value as a list that has at least one entry.
    pub(super) fn list(self, entry: &'static str) -> Result<Vec<Self>, ConfigError> {
        let Node::List(nodes) = self.node else {
            return Err(self.wrong_kind("a list, [ … ]"));
        };
        if nodes.is_empty() {
            return Err(ConfigError::EmptyList { place: self.place, entry });
        }
        let placed = |(index, node)| Self { node, place: format!("{}[{index}]", self.place) };
        Ok(nodes.into_iter().enumerate().map(placed).collect())
    }

    pub(super) fn text(self) -> Result<String, ConfigError> {
        match self.node {
            Node::Text(text) => Ok(text),
            _ => Err(self.wrong_kind("a text in quotes")),
        }
    }

    pub(super) fn flag(self) -> Result<bool, ConfigError> {
        match self.node {
            Node::Flag(flag) => Ok(flag),
            _ => Err(self.wrong_kind("true or false")),
        }
    }

    fn wrong_kind(self, expected: &'static str) -> ConfigError {
        let found = match self.node {
            Node::Object(_) => "an object".to_owned(),
            Node::List(_) => "a list".to_owned(),
            Node::Text(text) => format!("\"{text}\""),
            Node::Flag(flag) => flag.to_string(),
            Node::Other(text) => text,
        };
        let place = if self.place.is_empty() { "the document".to_owned() } else { self.place };
        ConfigError::WrongKind { place, found, expected }
    }
}

impl Fields {
    pub(super) fn take(&mut self, key: &str) -> Option<Placed> {
        let position = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.entries.swap_remove(position);
        Some(Placed { node, place: joined(&self.place, key) })
    }

    pub(super) fn require(
        &mut self,
        key: &'static str,
        purpose: &'static str,
    ) -> Result<Placed, ConfigError> {
        self.take(key).ok_or_else(|| ConfigError::MissingKey { key: joined(&self.place, key), purpose })
    }
}

fn joined(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Other("null".to_owned()))
    }
}
