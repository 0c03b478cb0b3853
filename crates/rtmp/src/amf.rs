//! AMF0 (Adobe's "Action Message Format", AMF 0), decoded within limits and encoded in the given order.

use crate::limits::AmfLimits;
use bytes::{BufMut, BytesMut};

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;
const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML_DOCUMENT: u8 = 15;
const TYPED_OBJECT: u8 = 16;

/// Properties of an object, by name, in the sender's order.
pub type Properties = Vec<(String, Value)>;

/// One AMF0 value; section numbers are those of the AMF 0 specification.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number (AMF 0, 2.2).
    Number(f64),
    /// A boolean (AMF 0, 2.3).
    Boolean(bool),
    /// A string, long string or XML document (2.4, 2.14, 2.17); invalid UTF-8 is replaced.
    String(String),
    /// An object or typed object, its class name dropped (2.5, 2.18).
    Object(Properties),
    /// An ECMA array (AMF 0, 2.10).
    EcmaArray(Properties),
    /// A strict array (AMF 0, 2.12).
    StrictArray(Vec<Value>),
    /// A date in ms since 1970 (2.13); its zone is reserved and dropped.
    Date(f64),
    /// The null value (AMF 0, 2.7).
    Null,
    /// Undefined or unsupported (2.8, 2.15).
    Undefined,
}

impl Value {
    /// Returns the string, if the value is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(s) = self { Some(s) } else { None }
    }

    /// Returns the number, if the value is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(n) = self { Some(*n) } else { None }
    }

    /// Returns the properties of an object or ECMA array.
    pub fn properties(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Object(p) | Self::EcmaArray(p) => Some(p),
            _ => None,
        }
    }

    /// Returns the first property called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties()?.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Number(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Boolean(b)
    }
}

/// The fault of AMF0 that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// The input ends within a value.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// A marker this decoder does not know (AMF3 among them).
    #[error("unknown marker {marker:#04x} at byte {at}")]
    UnknownMarker {
        /// The marker byte before the value (2.1).
        marker: u8,
        /// Offset in the message in bytes.
        at: usize,
    },
    /// Objects or arrays are nested too deeply.
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    /// The message holds too many values.
    #[error("more than {0} values")]
    TooManyValues(usize),
    /// A string exceeds its limit.
    #[error("string of {length} bytes exceeds {limit}")]
    StringTooLong {
        /// Declared length of the string in bytes.
        length: usize,
        /// Largest accepted length in bytes.
        limit: usize,
    },
}

/// Decodes all values of a message.
pub fn decode(input: &[u8], limits: &AmfLimits) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder { input, at: 0, values: 0, limits };
    let mut out = Vec::new();
    while decoder.at < input.len() {
        out.push(decoder.value(0)?);
    }
    Ok(out)
}

/// Returns the first value if it is a string: the name of a command or data message.
pub fn peek_name(input: &[u8]) -> Option<&[u8]> {
    let (&STRING, rest) = input.split_first()? else { return None };
    let (length, rest) = rest.split_first_chunk::<2>()?;
    rest.get(..u16::from_be_bytes(*length) as usize)
}

struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    values: usize,
    limits: &'a AmfLimits,
}

impl<'a> Decoder<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let bytes = self.input.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = bytes.ok_or(AmfError::Truncated(self.at))?;
        self.at += N;
        Ok(*bytes)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], AmfError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or(AmfError::Truncated(self.at))?;
        self.at += length;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        self.array().map(f64::from_be_bytes)
    }

    fn string(&mut self, length: usize) -> Result<String, AmfError> {
        if length > self.limits.string_bytes {
            return Err(AmfError::StringTooLong { length, limit: self.limits.string_bytes });
        }
        Ok(String::from_utf8_lossy(self.slice(length)?).into_owned())
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let length = u16::from_be_bytes(self.array()?) as usize;
        self.string(length)
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        self.string(length)
    }

    fn count(&mut self) -> Result<(), AmfError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(AmfError::TooManyValues(self.limits.values));
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.count()?;
        if depth > self.limits.depth {
            return Err(AmfError::TooDeep(self.limits.depth));
        }
        let at = self.at;
        let [marker] = self.array()?;
        Ok(match marker {
            NUMBER => Value::Number(self.number()?),
            BOOLEAN => Value::Boolean(self.array::<1>()?[0] != 0),
            STRING => Value::String(self.short_string()?),
            LONG_STRING | XML_DOCUMENT => Value::String(self.long_string()?),
            OBJECT => Value::Object(self.properties(depth)?),
            TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.properties(depth)?)
            }
            ECMA_ARRAY => {
                // The count is only a hint (2.10); encoders write 0 or a wrong one.
                self.array::<4>()?;
                Value::EcmaArray(self.properties(depth)?)
            }
            STRICT_ARRAY => Value::StrictArray(self.elements(depth)?),
            DATE => {
                let ms = self.number()?;
                self.array::<2>()?;
                Value::Date(ms)
            }
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            marker => return Err(AmfError::UnknownMarker { marker, at }),
        })
    }

    fn elements(&mut self, depth: usize) -> Result<Vec<Value>, AmfError> {
        let count = u32::from_be_bytes(self.array()?);
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(self.value(depth + 1)?);
        }
        Ok(out)
    }

    fn properties(&mut self, depth: usize) -> Result<Properties, AmfError> {
        let mut out = Vec::new();
        // Some encoders leave out the end marker when the object ends the message.
        while self.at < self.input.len() {
            let name = self.short_string()?;
            if name.is_empty() && self.input.get(self.at) == Some(&OBJECT_END) {
                self.at += 1;
                break;
            }
            let value = self.value(depth + 1)?;
            out.push((name, value));
        }
        Ok(out)
    }
}

/// Appends the encoding of `values`.
pub fn encode(values: &[Value], out: &mut BytesMut) {
    for value in values {
        encode_value(value, out);
    }
}

/// Appends a string as a command name or argument.
pub(crate) fn encode_str(s: &str, out: &mut BytesMut) {
    if let Ok(length) = u16::try_from(s.len()) {
        out.put_u8(STRING);
        out.put_u16(length);
    } else {
        out.put_u8(LONG_STRING);
        out.put_u32(s.len() as u32);
    }
    out.put_slice(s.as_bytes());
}

fn encode_value(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Number(n) => {
            out.put_u8(NUMBER);
            out.put_f64(*n);
        }
        Value::Boolean(b) => out.put_slice(&[BOOLEAN, u8::from(*b)]),
        Value::String(s) => encode_str(s, out),
        Value::Object(properties) => {
            out.put_u8(OBJECT);
            encode_properties(properties, out);
        }
        Value::EcmaArray(properties) => {
            out.put_u8(ECMA_ARRAY);
            out.put_u32(properties.len() as u32);
            encode_properties(properties, out);
        }
        Value::StrictArray(elements) => {
            out.put_u8(STRICT_ARRAY);
            out.put_u32(elements.len() as u32);
            encode(elements, out);
        }
        Value::Date(ms) => {
            out.put_u8(DATE);
            out.put_f64(*ms);
            out.put_u16(0);
        }
        Value::Null => out.put_u8(NULL),
        Value::Undefined => out.put_u8(UNDEFINED),
    }
}

fn encode_properties(properties: &[(String, Value)], out: &mut BytesMut) {
    for (name, value) in properties {
        // A name has a 16-bit length and no long form (2.5): cut at a character, never at half of one.
        let mut end = name.len().min(u16::MAX as usize);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        out.put_u16(end as u16);
        out.put_slice(&name.as_bytes()[..end]);
        encode_value(value, out);
    }
    out.put_slice(&[0, 0, OBJECT_END]);
}
