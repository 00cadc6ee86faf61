//! WeChat's side of v2, for simulators and tests: writes a notice as WeChat does and signs it. No service uses this.

use std::fmt::Write as _;

use super::{
    keys::V2Key,
    v2_sign::{SignType, digest},
    v2_xml::{Fields, XmlError},
};

/// A document of these fields, in this order, one a line. The amount stands as bare text, unless
/// it is none and could not, every other value in CDATA.
#[must_use]
pub fn document<'f>(root: &str, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> String {
    let mut xml = format!("<{root}>");
    for (name, value) in fields {
        if name == "total_fee" && !value.contains(['<', '&']) {
            writeln!(xml, "<{name}>{value}</{name}>").expect("writing to a String cannot fail");
        } else {
            // A CDATA section cannot hold its own end, so that is split over two.
            let value = value.replace("]]>", "]]]]><![CDATA[>");
            writeln!(xml, "<{name}><![CDATA[{value}]]></{name}>").expect("writing to a String cannot fail");
        }
    }
    xml.truncate(xml.trim_end().len());
    write!(xml, "\n</{root}>").expect("writing to a String cannot fail");
    xml
}

/// A notice of these fields with its `sign`.
///
/// # Errors
/// [`XmlError`] where a name occurs twice or there are too many.
pub fn signed(fields: &[(&str, &str)], key: &V2Key, sign_type: SignType) -> Result<String, XmlError> {
    let sign = digest(&Fields::from_pairs(fields.iter().copied())?, key, sign_type);
    Ok(document("xml", fields.iter().copied().chain([("sign", sign.as_str())])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wechat::{v2_sign::verify, v2_xml::parse};

    #[test]
    fn a_written_notice_reads_and_verifies() {
        let key = V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap();
        for sign_type in [SignType::Md5, SignType::HmacSha256] {
            let xml = signed(&[("total_fee", "1"), ("attach", "a]]>b 中 <&>")], &key, sign_type).unwrap();
            let fields = parse(xml.as_bytes(), "xml").unwrap();
            assert_eq!(fields.get("attach"), Some("a]]>b 中 <&>"));
            // A value with `&` in an incomplete notice is ambiguous, which is told only after the digest was right.
            assert_eq!(verify(&fields, &key), Err(crate::wechat::v2_sign::SignRefusal::Ambiguous));
        }
    }
}
