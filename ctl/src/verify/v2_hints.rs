//! Why a v2 digest may not fit: tries the changes that bodies usually suffer, and names one only if the digest then fits.

use wxpay_shared::{
    merchant::Merchant,
    wechat::{
        v2_sign::{self, SignType},
        v2_xml::Fields,
    },
};

type Pairs = Vec<(String, String)>;

/// What happened to the body, where undoing it makes the digest fit.
pub(super) fn digest(fields: &Fields<'_>, merchant: &Merchant, algorithm: SignType) -> Option<String> {
    let sign = fields.get("sign")?;
    let pairs: Pairs = fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let fits = |pairs: &Pairs| fits(pairs, sign, merchant, algorithm);
    if merchant.v2_keys.iter().any(|key| v2_sign::digest(fields, key, algorithm).eq_ignore_ascii_case(sign)) {
        return Some("The sign fits in upper case: something wrote it in lower case.".to_owned());
    }
    for (found, all) in [
        ("line ends are CR LF instead of LF", mapped(&pairs, |text| text.replace('\n', "\r\n"))),
        ("line ends are LF instead of CR LF", mapped(&pairs, |text| text.replace("\r\n", "\n"))),
        ("entities such as &amp; are resolved once more", mapped(&pairs, resolved)),
        ("the text is read as UTF-8 instead of Latin-1", mapped(&pairs, from_latin1)),
    ] {
        if all != pairs && fits(&all) {
            return Some(format!("It fits if {found}: the body was changed so on its way."));
        }
    }
    one_field(&pairs, fits)
}

fn one_field(pairs: &Pairs, fits: impl Fn(&Pairs) -> bool) -> Option<String> {
    for sign_type in ["MD5", "HMAC-SHA256"] {
        let mut more = pairs.clone();
        if more.iter().all(|(name, _)| name != "sign_type") {
            more.push(("sign_type".to_owned(), sign_type.to_owned()));
            if fits(&more) {
                return Some("It fits if sign_type is there: the field was dropped.".to_owned());
            }
        }
    }
    for (index, (name, value)) in pairs.iter().enumerate() {
        if name == "sign" {
            continue;
        }
        let mut fewer = pairs.clone();
        fewer.remove(index);
        if fits(&fewer) {
            return Some(format!("It fits without the field {name}: the field was added, or filled, after signing."));
        }
        for changed in [format!("{value} "), format!(" {value}"), format!("{value}\n"), value.replace(' ', "+")] {
            let mut other = pairs.clone();
            other[index].1 = changed;
            if other != *pairs && fits(&other) {
                return Some(format!(
                    "It fits with a blank, line end or plus sign more in {name}: the value was trimmed."
                ));
            }
        }
    }
    None
}

fn fits(pairs: &Pairs, sign: &str, merchant: &Merchant, algorithm: SignType) -> bool {
    Fields::from_pairs(pairs.iter().cloned())
        .is_ok_and(|fields| merchant.v2_keys.iter().any(|key| v2_sign::digest(&fields, key, algorithm) == sign))
}

fn mapped(pairs: &Pairs, change: impl Fn(&str) -> String) -> Pairs {
    pairs.iter().map(|(name, value)| (name.clone(), change(value))).collect()
}

fn resolved(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

/// UTF-8 that something took for Latin-1 and encoded once more, taken back.
fn from_latin1(text: &str) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}
