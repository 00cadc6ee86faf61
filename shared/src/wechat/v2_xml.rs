//! The flat XML of APIv2: one root, and fields that hold nothing but text.
//!
//! WeChat sends no DOCTYPE, no attribute, no comment, no nesting and no field twice. Each of them is a way to make a
//! verifier and a reader see different values, so each is refused, whatever the signature says. Values come out exactly
//! as they stand: CDATA literal, references resolved, pieces joined, nothing trimmed.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    events::{BytesDecl, BytesStart, Event},
};

/// A document with more fields is refused; the largest real notices have about 60.
pub const FIELDS_MAX: usize = 128;

/// Why bytes are not a flat document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not UTF-8, or declared as something else.
    #[error("the encoding is not UTF-8")]
    Encoding,
    /// A DOCTYPE, with or without entities.
    #[error("a DOCTYPE is not allowed")]
    Doctype,
    /// An element inside a field.
    #[error("a field holds another element")]
    Nested,
    /// Two fields of one name.
    #[error("a field occurs twice")]
    Duplicate,
    /// More than [`FIELDS_MAX`] fields.
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// Anything else.
    #[error("not well-formed XML of the expected shape")]
    Malformed,
}

/// The fields of a document, sorted by name in byte order as the signature wants them.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// The value of a field. An empty one is as good as none: WeChat signs neither.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        Some(self.0[index].1.as_ref()).filter(|value| !value.is_empty())
    }

    /// Whether the field is there, be it empty.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|(known, _)| (*known).cmp(name)).is_ok()
    }

    /// Every field, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Fields from pairs that are already at hand: what a sender is about to write.
    ///
    /// # Errors
    /// [`XmlError::Duplicate`] or [`XmlError::TooManyFields`].
    pub fn from_pairs(pairs: impl IntoIterator<Item = (&'a str, impl Into<Cow<'a, str>>)>) -> Result<Self, XmlError> {
        Self::sorted(pairs.into_iter().map(|(name, value)| (name, value.into())).collect())
    }

    fn sorted(mut fields: Vec<(&'a str, Cow<'a, str>)>) -> Result<Self, XmlError> {
        if fields.len() > FIELDS_MAX {
            return Err(XmlError::TooManyFields);
        }
        fields.sort_unstable_by_key(|(name, _)| *name);
        if fields.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(XmlError::Duplicate);
        }
        Ok(Self(fields))
    }
}

/// Names only: values are personal.
impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Reads a document whose root has this name.
///
/// # Errors
/// [`XmlError`] for everything that is not a flat document in UTF-8.
pub fn parse<'a>(body: &'a [u8], root: &str) -> Result<Fields<'a>, XmlError> {
    let text = std::str::from_utf8(body).map_err(|_| XmlError::Encoding)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !all_allowed(text) {
        return Err(XmlError::Malformed);
    }
    let mut reader = Reader::from_str(text);
    let mut fields = Vec::with_capacity(32);
    if open_root(&mut reader, root)? {
        while let Some((name, empty)) = next_field(&mut reader, text)? {
            if fields.len() == FIELDS_MAX {
                return Err(XmlError::TooManyFields);
            }
            let value = if empty { Cow::Borrowed("") } else { read_value(&mut reader)? };
            fields.push((name, value));
        }
    }
    match skip_blanks(&mut reader) {
        Ok(Event::Eof) => Fields::sorted(fields),
        Ok(Event::DocType(_)) => Err(XmlError::Doctype),
        _ => Err(XmlError::Malformed),
    }
}

/// Reads up to and with the root's start tag. Returns whether it has content.
fn open_root(reader: &mut Reader<&[u8]>, root: &str) -> Result<bool, XmlError> {
    let mut event = skip_blanks(reader);
    if let Ok(Event::Decl(declaration)) = &event {
        check_declaration(declaration)?;
        event = skip_blanks(reader);
    }
    match event {
        Ok(Event::Start(tag)) if plain_name(&tag)? == root => Ok(true),
        Ok(Event::Empty(tag)) if plain_name(&tag)? == root => Ok(false),
        Ok(Event::DocType(_)) => Err(XmlError::Doctype),
        _ => Err(XmlError::Malformed),
    }
}

/// The version, then the encoding and `standalone` where they are said, each once.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
    let mut names = ["version", "encoding", "standalone"].into_iter();
    let mut first = true;
    for attribute in BytesStart::from_content(&**declaration, "xml".len()).attributes() {
        let attribute = attribute.map_err(|_| XmlError::Malformed)?;
        let name = names.find(|name| *name == attribute.key.as_ref()).ok_or(XmlError::Malformed)?;
        if first != (name == "version") {
            return Err(XmlError::Malformed);
        }
        first = false;
        if name == "encoding" && !attribute.value.eq_ignore_ascii_case("utf-8") {
            return Err(XmlError::Encoding);
        }
    }
    if first { Err(XmlError::Malformed) } else { Ok(()) }
}

/// The next field's name and whether it is an empty element; `None` at the root's end tag.
fn next_field<'a>(reader: &mut Reader<&'a [u8]>, text: &'a str) -> Result<Option<(&'a str, bool)>, XmlError> {
    let event = skip_blanks(reader);
    let read = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
    match event {
        Ok(Event::Start(tag)) => Ok(Some((name_in(text, read, &tag, ">")?, false))),
        Ok(Event::Empty(tag)) => Ok(Some((name_in(text, read, &tag, "/>")?, true))),
        Ok(Event::End(_)) => Ok(None),
        Ok(Event::DocType(_)) => Err(XmlError::Doctype),
        _ => Err(XmlError::Malformed),
    }
}

/// The name of a tag without attributes, as it stands in the text: the reader lends it no longer than the tag, which was
/// read up to here and ends so. What stands there is compared, since the reader does not count every byte.
fn name_in<'a>(text: &'a str, read: usize, tag: &BytesStart<'_>, end: &str) -> Result<&'a str, XmlError> {
    let name = plain_name(tag)?;
    let start = read.checked_sub(tag.len() + end.len());
    let found = start.and_then(|start| text.get(start..start + name.len()));
    found.filter(|found| *found == name).ok_or(XmlError::Malformed)
}

/// A field's text up to and with its end tag.
fn read_value<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Cow<'a, str>, XmlError> {
    let mut value = Cow::Borrowed("");
    loop {
        match reader.read_event() {
            // The raw text, line ends as they are: what WeChat signed is what it wrote, not what XML would make of it.
            Ok(Event::Text(text)) => append(&mut value, text.into_inner()),
            Ok(Event::CData(text)) => append(&mut value, text.into_inner()),
            Ok(Event::GeneralRef(reference)) => {
                let character = match reference.resolve_char_ref().map_err(|_| XmlError::Malformed)? {
                    Some(character) if allowed_char(character) => character,
                    Some(_) => return Err(XmlError::Malformed),
                    None => predefined(&reference).ok_or(XmlError::Malformed)?,
                };
                value.to_mut().push(character);
            }
            Ok(Event::End(_)) => return Ok(value),
            Ok(Event::Start(_) | Event::Empty(_)) => return Err(XmlError::Nested),
            Ok(Event::DocType(_)) => return Err(XmlError::Doctype),
            Ok(Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::Eof) | Err(_) => {
                return Err(XmlError::Malformed);
            }
        }
    }
}

/// The next event that is not white space between tags. The reader's own result, as everywhere here: to change its
/// error would copy the event, which cost a quarter of the reading.
fn skip_blanks<'a>(reader: &mut Reader<&'a [u8]>) -> quick_xml::Result<Event<'a>> {
    // Between fields only: within one, white space is part of the value.
    reader.config_mut().trim_text_start = true;
    let event = reader.read_event();
    reader.config_mut().trim_text_start = false;
    event
}

fn append<'a>(value: &mut Cow<'a, str>, piece: Cow<'a, str>) {
    if value.is_empty() {
        *value = piece;
    } else {
        value.to_mut().push_str(&piece);
    }
}

/// The name of a tag without attributes. Only the characters of WeChat's names: `=` or `&` in a name could make two
/// field sets with one signature.
fn plain_name<'t>(tag: &'t BytesStart<'_>) -> Result<&'t str, XmlError> {
    let name = tag.name().into_inner();
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if first && rest && tag.attributes_raw().trim_ascii().is_empty() { Ok(name) } else { Err(XmlError::Malformed) }
}

fn predefined(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// Whether XML 1.0 allows every character; above ASCII two are forbidden. Without a branch, so that the compiler takes
/// many bytes at a time.
fn all_allowed(text: &str) -> bool {
    let control = |byte: u8| (byte < b' ') & (byte != b'\t') & (byte != b'\n') & (byte != b'\r');
    !text.bytes().fold(false, |any, byte| any | control(byte))
        && (text.is_ascii() || !text.contains(['\u{fffe}', '\u{ffff}']))
}

/// The characters that XML 1.0 allows.
fn allowed_char(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(xml: &str) -> Result<String, XmlError> {
        parse(xml.as_bytes(), "xml").map(|fields| fields.iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn values_come_out_as_they_stand() {
        for (xml, expected) in [
            ("<xml><a>  b </a></xml>", "  b "),
            ("<xml><a><![CDATA[a&b<c>&amp;]]></a></xml>", "a&b<c>&amp;"),
            ("<xml><a>x&amp;y&#20013;&#x4e2d;&lt;</a></xml>", "x&y中中<"),
            ("<xml><a><![CDATA[a]]]]><![CDATA[>b]]></a></xml>", "a]]>b"),
            ("<xml><a>12<![CDATA[34]]>5</a></xml>", "12345"),
            ("<xml><a>l1\r\nl2</a></xml>", "l1\r\nl2"),
            ("<xml><a/></xml>", ""),
            ("<xml><a></a ></xml>", ""),
            ("<xml/>", ""),
            ("\u{feff} \n<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<xml>\n <a>b</a>\n</xml>\n ", "b"),
            ("<xml><a>&lt;![CDATA[x]]&gt;</a></xml>", "<![CDATA[x]]>"),
        ] {
            assert_eq!(value(xml).as_deref(), Ok(expected), "{xml}");
        }
    }

    #[test]
    fn everything_that_is_not_flat_text_is_refused() {
        use XmlError::{Doctype, Duplicate, Encoding, Malformed, Nested};
        for (xml, expected) in [
            ("", Malformed),
            ("   ", Malformed),
            ("{}", Malformed),
            ("<root><a>b</a></root>", Malformed),
            // The reader drops a second byte order mark and does not count it.
            ("\u{feff}\u{feff}<xml><a>b</a><c>d</c></xml>", Malformed),
            ("<xml><a>b</a>", Malformed),
            ("<xml><a>b</xml>", Malformed),
            ("<xml><a>b</b></xml>", Malformed),
            ("<xml><a><![CDATA[b</a></xml>", Malformed),
            ("<xml><a>b</a></xml>x", Malformed),
            ("<xml><a>b</a></xml><xml></xml>", Malformed),
            ("<xml><a>b</a></xml><!-- c -->", Malformed),
            ("<xml>x<a>b</a></xml>", Malformed),
            ("<xml><![CDATA[x]]><a>b</a></xml>", Malformed),
            ("<xml>&amp;<a>b</a></xml>", Malformed),
            ("<xml><a>b<!-- c --></a></xml>", Malformed),
            ("<xml><a>b<?c d?></a></xml>", Malformed),
            ("<xml><a b=\"c\">d</a></xml>", Malformed),
            ("<xml a=\"b\"><a>d</a></xml>", Malformed),
            ("<xml><a>&nbsp;</a></xml>", Malformed),
            ("<xml><a>& b</a></xml>", Malformed),
            ("<xml><a>&#0;</a></xml>", Malformed),
            ("<xml><a>&#xd800;</a></xml>", Malformed),
            ("<xml><a>\u{0}</a></xml>", Malformed),
            ("<xml><a=1&b>c</a=1&b></xml>", Malformed),
            ("<xml><a><b>c</b></a></xml>", Nested),
            ("<xml><a><b/></a></xml>", Nested),
            ("<xml><a>1</a><a>1</a></xml>", Duplicate),
            ("<!DOCTYPE xml><xml><a>b</a></xml>", Doctype),
            ("<?xml version=\"1.0\"?><!DOCTYPE xml [<!ENTITY e \"x\">]><xml><a>&e;</a></xml>", Doctype),
            ("<xml><!DOCTYPE xml><a>b</a></xml>", Doctype),
            ("<?xml version=\"1.0\" encoding=\"GBK\"?><xml><a>b</a></xml>", Encoding),
            ("<?xml version=\"1.0\" encoding=\"UTF-8\" encoding=\"GBK\"?><xml><a>b</a></xml>", Malformed),
            ("<?xml version=\"1.0\" Encoding=\"GBK\"?><xml><a>b</a></xml>", Malformed),
            ("<?xml encoding=\"UTF-8\"?><xml><a>b</a></xml>", Malformed),
            ("<?xml?><xml><a>b</a></xml>", Malformed),
        ] {
            assert_eq!(value(xml), Err(expected), "{xml}");
        }
        assert_eq!(parse(b"<xml><a>\xd6\xd0</a></xml>", "xml"), Err(Encoding));
        assert_eq!(parse(b"\xff\xfe<\0x\0m\0l\0/\0>\0", "xml"), Err(Encoding));
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let xml = |count: usize| {
            let fields = (0..count).fold(String::new(), |text, index| format!("{text}<f{index}>1</f{index}>"));
            format!("<xml>{fields}</xml>")
        };
        assert!(parse(xml(FIELDS_MAX).as_bytes(), "xml").is_ok());
        assert_eq!(parse(xml(FIELDS_MAX + 1).as_bytes(), "xml"), Err(XmlError::TooManyFields));
    }

    #[test]
    fn fields_are_sorted_by_byte_and_an_empty_one_is_none() {
        let fields = parse(b"<xml><b>2</b><B>1</B><a_1>3</a_1><e/></xml>", "xml").unwrap();
        assert_eq!(fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["B", "a_1", "b", "e"]);
        assert_eq!((fields.get("b"), fields.get("e"), fields.get("x")), (Some("2"), None, None));
        assert_eq!(format!("{fields:?}"), r#"["B", "a_1", "b", "e"]"#);
    }
}
