//! The deserializers: a structure of pairs, and one value of a pair.

use super::{Error, Pairs, Value};
use serde::{
    Deserializer,
    de::{self, IntoDeserializer, Visitor, value::StringDeserializer},
    forward_to_deserialize_any,
};
use std::fmt;

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }
    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownKey {
            key: key.to_owned(),
            known: known.join(", "),
        }
    }
    fn unknown_variant(text: &str, known: &'static [&'static str]) -> Self {
        Self::Message(format!("'{text}' is not one of {}", known.join(", ")))
    }
    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }
    fn duplicate_field(key: &'static str) -> Self {
        Self::Duplicate(key.to_owned())
    }
}

/// Pairs as a structure.
pub(super) struct Structure(pub Pairs);

impl<'de> Deserializer<'de> for Structure {
    type Error = Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Access {
            pairs: self.0.into_iter(),
            next: None,
        })
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Access {
    pairs: std::vec::IntoIter<(String, Value)>,
    next: Option<(String, Value)>,
}

impl<'de> de::MapAccess<'de> for Access {
    type Error = Error;
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.pairs.next();
        let Some((key, _)) = &self.next else { return Ok(None) };
        let key: StringDeserializer<Error> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }
    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((key, value)) = self.next.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Scalar(value)).map_err(|e| e.at(&key))
    }
}

/// One value. Texts parse into whatever kind the structure asks for.
pub(super) struct Scalar(pub Value);

impl Scalar {
    fn number<T: std::str::FromStr>(&self, low: impl fmt::Display, high: impl fmt::Display) -> Result<T, Error> {
        let text = self.0.to_string();
        text.parse()
            .map_err(|_| Error::Message(format!("'{text}' is not a whole number from {low} to {high}")))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number($kind::MIN, $kind::MAX)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Scalar {
    type Error = Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0.to_string())
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.to_string().as_str() {
            "on" | "true" => visitor.visit_bool(true),
            "off" | "false" => visitor.visit_bool(false),
            other => Err(Error::Message(format!("'{other}' is not one of on, off, true, false"))),
        }
    }
    numbers! {
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text: StringDeserializer<Error> = self.0.to_string().into_deserializer();
        visitor.visit_enum(text)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let words = match self.0 {
            Value::Plain(word) => vec![word],
            Value::List(words) => words,
        };
        let words = words.into_iter().map(|w| Item(Scalar(Value::Plain(w))));
        visitor.visit_seq(de::value::SeqDeserializer::new(words))
    }
    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// One word of a list.
struct Item(Scalar);

impl IntoDeserializer<'_, Error> for Item {
    type Deserializer = Scalar;
    fn into_deserializer(self) -> Scalar {
        self.0
    }
}
