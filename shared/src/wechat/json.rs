//! Reads only the members that somebody asks for, and never says what it read.
//!
//! WeChat adds members, and changes the types of members that no order depends on. So an [`Object`] keeps its values
//! unread until one is asked for by name, and an error names the member and the rule it breaks, never the value. A name
//! that appears twice makes the document unreadable: two readers could see two amounts.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::{
    fen::Fen,
    ids::IdError,
    reason::{Reason, Rejection},
};

/// A JSON object, its values still unread. `null` counts as absent.
pub(crate) struct Object<'a> {
    path: String,
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Object<'a> {
    /// The document's root; `None` where the bytes are not one complete JSON object, in UTF-8, with distinct names.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Self { path: String::new(), members: serde_json::from_str::<Members<'_>>(text).ok()?.0 })
    }

    /// Whether the member is there, whatever its type.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A text; `None` where it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Rejection> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let text: String = serde_json::from_str(raw.get()).map_err(|_| self.invalid(name, "a string"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, name: &str) -> Result<String, Rejection> {
        self.text(name)?.ok_or_else(|| self.invalid(name, "a string that is not empty"))
    }

    /// A name that must be there.
    pub(crate) fn id<T>(&self, name: &str, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Rejection> {
        parse(&self.required_text(name)?).map_err(|error| self.invalid(name, error.rule))
    }

    /// A name that may be absent.
    pub(crate) fn optional_id<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, IdError>,
    ) -> Result<Option<T>, Rejection> {
        self.text(name)?.map(|text| parse(&text).map_err(|error| self.invalid(name, error.rule))).transpose()
    }

    /// An amount: a JSON integer over 0. A text, a float (`8800.0`, `88e2`) or anything else is none.
    pub(crate) fn fen(&self, name: &str) -> Result<Fen, Rejection> {
        self.raw(name)
            .and_then(|raw| serde_json::from_str::<i64>(raw.get()).ok())
            .and_then(|number| Fen::new(number).ok())
            .filter(|fen| *fen > Fen::ZERO)
            .ok_or_else(|| self.invalid(name, "an integer number of fen over 0"))
    }

    /// A moment with its offset, as RFC 3339 writes it; `None` where it is absent or empty.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Rejection> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let time = Some(text.as_str()).filter(|text| is_rfc3339(text)).and_then(|text| text.parse().ok());
        time.map(Some).ok_or_else(|| self.invalid(name, "a time as RFC 3339 writes it"))
    }

    /// An object that must be there.
    pub(crate) fn object(&self, name: &str) -> Result<Self, Rejection> {
        self.optional_object(name)?.ok_or_else(|| self.invalid(name, "an object"))
    }

    /// An object that may be absent.
    pub(crate) fn optional_object(&self, name: &str) -> Result<Option<Self>, Rejection> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let path = format!("{}{name}.", self.path);
        match serde_json::from_str::<Members<'_>>(raw.get()) {
            Ok(members) => Ok(Some(Self { path, members: members.0 })),
            Err(_) => Err(self.invalid(name, "an object with distinct names")),
        }
    }

    /// The objects of a list that must be there, each readable or not on its own.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Result<Self, Rejection>>, Rejection> {
        let rule = "a list that is not empty";
        let raw = self.raw(name).ok_or_else(|| self.invalid(name, rule))?;
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| self.invalid(name, rule))?;
        if items.is_empty() {
            return Err(self.invalid(name, rule));
        }
        let read = |(index, item): (usize, &'a RawValue)| {
            let place = format!("{name}[{index}]");
            match serde_json::from_str::<Members<'_>>(item.get()) {
                Ok(members) => Ok(Self { path: format!("{}{place}.", self.path), members: members.0 }),
                Err(_) => Err(self.invalid(&place, "an object with distinct names")),
            }
        };
        Ok(items.into_iter().enumerate().map(read).collect())
    }

    /// The rejection that names a member of this object and the rule it breaks.
    pub(crate) fn invalid(&self, name: &str, rule: &str) -> Rejection {
        Rejection::new(Reason::InvalidField, format!("{}{name}: expected {rule}", self.path))
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|raw| raw.get() != "null")
    }
}

/// The form alone; a library that reads times reads other forms as well.
fn is_rfc3339(text: &str) -> bool {
    let like = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text
                .iter()
                .zip(form)
                .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let Some((time, rest)) = text.as_bytes().split_at_checked("2026-03-18T10:20:27".len()) else { return false };
    let fraction =
        rest.strip_prefix(b".").map_or(0, |rest| 1 + rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let offset = &rest[fraction..];
    let is_offset = offset == b"Z" || like(offset, b"+00:00") || like(offset, b"-00:00");
    like(time, b"0000-00-00T00:00:00") && !time.ends_with(b"60") && fraction != 1 && is_offset
}

/// Where it stands, never what is in it.
impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({:?})", self.path)
    }
}

struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("duplicate name"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_complete_object_with_distinct_names_is_a_document() {
        assert!(Object::parse(b" {\"a\": 1, \"b\": {\"a\": 1}} \n").is_some());
        let deep = "[".repeat(60_000);
        for text in [
            "",
            "{",
            "{}{}",
            "[]",
            "null",
            "1",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{a:1}",
            &deep,
            "\u{feff}{}",
        ] {
            assert!(Object::parse(text.as_bytes()).is_none(), "{}", &text[..text.len().min(20)]);
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn only_a_json_integer_over_zero_is_an_amount() {
        let total = |value: &str| {
            let text = format!("{{\"amount\":{{\"total\":{value}}}}}");
            Object::parse(text.as_bytes()).unwrap().object("amount").unwrap().fen("total")
        };
        assert_eq!(total("8800").unwrap().get(), 8800);
        for value in [
            "\"8800\"",
            "8800.0",
            "88e2",
            "-1",
            "-0",
            "0",
            "null",
            "true",
            "[1]",
            "{}",
            "99999999999999999999",
            "100000000000001",
        ] {
            let rejection = total(value).unwrap_err();
            assert_eq!(rejection.to_string(), "invalid_field: amount.total: expected an integer number of fen over 0");
        }
    }

    #[test]
    fn what_nobody_asks_for_may_have_any_type() {
        let object =
            Object::parse(b"{\"detail\":[{\"x\":1,\"x\":\"2\"}],\"name\":\"n\",\"none\":null,\"empty\":\"\"}").unwrap();
        assert_eq!(object.text("name").unwrap().as_deref(), Some("n"));
        assert_eq!((object.text("none").unwrap(), object.text("empty").unwrap()), (None, None));
        assert!(object.has("detail") && !object.has("none"));
        assert!(object.list("detail").unwrap()[0].is_err());
        assert!(object.required_text("detail").is_err());
    }
}
