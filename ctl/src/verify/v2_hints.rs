//! Why a v2 digest may not fit: tries the changes that bodies usually suffer, and names one only if the digest then fits.

use wxpay_shared::{
    merchant::Merchant,
    wechat::{
        v2_sign::{self, SignType},
        v2_xml::{Fields, XmlError},
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
    fields_of(pairs)
        .is_ok_and(|fields| merchant.v2_keys.iter().any(|key| v2_sign::digest(&fields, key, algorithm) == sign))
}

fn fields_of(pairs: &Pairs) -> Result<Fields<'_>, XmlError> {
    Fields::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
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

#[cfg(test)]
mod tests {
    use wxpay_shared::{config::Config, merchant::Merchants};

    use super::*;
    use crate::dev_merchant;

    /// Signs these fields, as WeChat would, and says what is told about what arrived instead of them.
    fn hint(algorithm: SignType, signed: &[(&str, &str)], arrived: &[(&str, &str)]) -> Option<String> {
        told(algorithm, signed, arrived, |sign| sign)
    }

    fn told(
        algorithm: SignType,
        signed: &[(&str, &str)],
        arrived: &[(&str, &str)],
        sign: impl Fn(String) -> String,
    ) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = dev_merchant::ensure(directory.path()).unwrap();
        let merchants = Merchants::open(&Config::load(Some(&file), []).unwrap()).unwrap();
        let merchant = merchants.get(dev_merchant::NAME).unwrap();
        let owned = |pairs: &[(&str, &str)]| -> Pairs {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let digest = v2_sign::digest(&fields_of(&owned(signed)).unwrap(), &merchant.v2_keys[0], algorithm);
        let mut arrived = owned(arrived);
        arrived.push(("sign".to_owned(), sign(digest)));
        super::digest(&fields_of(&arrived).unwrap(), merchant, algorithm)
    }

    #[test]
    fn what_happened_to_a_value_is_told() {
        let twice_encoded: String = "商品".bytes().map(char::from).collect();
        for (signed, arrived, told) in [
            ("a\r\nb", "a\nb", "It fits if line ends are CR LF instead of LF"),
            ("a\nb", "a\r\nb", "It fits if line ends are LF instead of CR LF"),
            ("1<2", "1&lt;2", "It fits if entities such as &amp; are resolved once more"),
            ("商品", &twice_encoded, "It fits if the text is read as UTF-8 instead of Latin-1"),
            ("a ", "a", "more in attach: the value was trimmed"),
            (" a", "a", "more in attach: the value was trimmed"),
            ("a\n", "a", "more in attach: the value was trimmed"),
            ("a+b", "a b", "more in attach: the value was trimmed"),
        ] {
            for algorithm in [SignType::Md5, SignType::HmacSha256] {
                let hint = hint(
                    algorithm,
                    &[("attach", signed), ("total_fee", "1")],
                    &[("attach", arrived), ("total_fee", "1")],
                );
                assert!(hint.as_ref().is_some_and(|hint| hint.contains(told)), "{signed:?} to {arrived:?}: {hint:?}");
            }
        }
    }

    #[test]
    fn a_field_more_or_less_is_told() {
        let fee = ("total_fee", "1");
        let added = hint(SignType::Md5, &[fee], &[fee, ("is_subscribe", "N")]).unwrap();
        assert!(added.starts_with("It fits without the field is_subscribe"), "{added}");
        let dropped = hint(SignType::HmacSha256, &[fee, ("sign_type", "HMAC-SHA256")], &[fee]).unwrap();
        assert!(dropped.starts_with("It fits if sign_type is there"), "{dropped}");
    }

    #[test]
    fn a_sign_in_lower_case_is_told() {
        let fee = [("total_fee", "1")];
        let told = told(SignType::Md5, &fee, &fee, |sign| sign.to_ascii_lowercase()).unwrap();
        assert!(told.starts_with("The sign fits in upper case"), "{told}");
    }

    #[test]
    fn nothing_is_told_where_no_usual_change_explains_it() {
        assert_eq!(hint(SignType::Md5, &[("total_fee", "1")], &[("total_fee", "2")]), None);
    }
}
