//! A configuration value with the place it came from, and its deserializer.
//!
//! Values from the environment and from flags are text; they are read as the type of their key, so that a numeric token
//! stays a string and `8000` becomes a number where the key is one.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Origin;
use super::nearest::nearest;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Text from the environment or a flag, to be read as the type of its key.
    Text(String),
}

impl Node {
    pub(super) fn from_toml(value: toml::Value, origin: &Origin) -> Self {
        let value = match value {
            toml::Value::Table(table) => Value::Table(
                table.into_iter().map(|(key, value)| (key, Self::from_toml(value, origin))).collect(),
            ),
            toml::Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| Self::from_toml(item, origin)).collect())
            }
            toml::Value::String(text) => Value::String(text),
            toml::Value::Integer(number) => Value::Integer(number),
            toml::Value::Float(number) => Value::Float(number),
            toml::Value::Boolean(flag) => Value::Bool(flag),
            toml::Value::Datetime(time) => Value::String(time.to_string()),
        };
        Self { origin: origin.clone(), value }
    }
}

/// An error of deserialisation; every level on its way up adds its key.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: Vec<String>,
    pub(super) message: String,
    pub(super) origin: Option<Origin>,
}

impl Fault {
    fn within(mut self, key: &str, origin: &Origin) -> Self {
        self.path.insert(0, key.to_owned());
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.join("."), self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string(), origin: None }
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.join(", ");
        Self::custom(match nearest(key, expected.iter().copied()) {
            Some(near) => format!("unknown key; did you mean {near}? Known keys are {known}"),
            None => format!("unknown key; known keys are {known}"),
        })
    }
}

impl Node {
    fn text(self) -> Result<String, Self> {
        match self.value {
            Value::Text(text) => Ok(text),
            value => Err(Self { value, ..self }),
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.text() {
                Ok(text) => match text.trim().parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(de::Error::custom(format!(
                        concat!("{:?} is not ", $what), text
                    ))),
                },
                Err(node) => node.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Table(table) => visitor.visit_map(Entries { rest: table.into_iter(), next: None }),
            Value::Array(items) => visitor.visit_seq(Items { rest: items.into_iter(), index: 0 }),
            Value::String(text) | Value::Text(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Bool(flag) => visitor.visit_bool(flag),
        }
    }

    parsed! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number, 0 or more";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// Reads a list; in a variable or flag its items are separated by commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let origin = self.origin.clone();
        match self.text() {
            Ok(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let items: Vec<Node> = parts
                    .map(|part| Node { origin: origin.clone(), value: Value::Text(part.to_owned()) })
                    .collect();
                visitor.visit_seq(Items { rest: items.into_iter(), index: 0 })
            }
            Err(node) => node.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(text) | Value::Text(text) => {
                let deserializer: StringDeserializer<Fault> = text.into_deserializer();
                deserializer.deserialize_enum(name, variants, visitor)
            }
            _ => Err(de::Error::custom(format!("expected one of {}", variants.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

struct Entries {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    next: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let deserializer: StringDeserializer<Fault> = key.clone().into_deserializer();
        let result = seed.deserialize(deserializer).map_err(|fault| fault.within(&key, &node.origin));
        self.next = Some((key, node));
        result.map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, node)) = self.next.take() else {
            return Err(de::Error::custom("a value was read before its key"));
        };
        let origin = node.origin.clone();
        seed.deserialize(node).map_err(|fault| fault.within(&key, &origin))
    }
}

struct Items {
    rest: std::vec::IntoIter<Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        let (index, origin) = (self.index, node.origin.clone());
        self.index += 1;
        seed.deserialize(node).map(Some).map_err(|fault| fault.within(&index.to_string(), &origin))
    }
}
