//! The fuzz targets' properties over the vectors and thousands of mutations of them, the same ones on every run.

use std::collections::BTreeSet;

use jiff::Timestamp;
use wxpay_shared::wechat::{
    keys::PlatformKeys,
    v2_sign,
    v2_xml::{self, Fields},
    v3_sign::{self, V3Headers},
};

use crate::support::{Vector, platform_keys, v2_key, vectors};

#[path = "../../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use it as a library")]
mod targets;

const MUTATIONS: usize = 12;
/// The vectors above it are there for their size, which a mutation does not change.
const MUTATED_MAX: usize = 16 * 1024;
const INSERTIONS: [&str; 16] = [
    "<!DOCTYPE xml>",
    "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/hostname\">]>",
    "&",
    "&e;",
    "&amp;",
    "&#0;",
    "&#x26;",
    "]]>",
    "<![CDATA[",
    "<!-- -->",
    "<?x y?>",
    "<total_fee>1</total_fee>",
    "\u{feff}",
    "\r\n\r\n",
    "\"amount\":{\"total\":1},",
    "\0",
];

/// `SplitMix64`: enough of chance, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed >> 33) % bound.max(1) as u64).expect("below a usize")
    }

    fn mutated(&mut self, body: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        let at = self.below(bytes.len() + 1);
        match self.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).expect("below 256"),
            3 => {
                let end = (at + self.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => bytes = [&body[..at], &other[self.below(other.len() + 1)..]].concat(),
            5 => {
                // One field more, of this document or of another.
                let lines: Vec<_> = if self.below(2) == 0 { body } else { other }.split_inclusive(is_break).collect();
                let line = lines.get(self.below(lines.len())).copied().unwrap_or_default();
                let start = bytes[..at].iter().rposition(is_break).map_or(0, |position| position + 1);
                bytes.splice(start..start, line.iter().copied());
            }
            _ => {
                let piece = INSERTIONS[self.below(INSERTIONS.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
        bytes
    }
}

fn is_break(byte: &u8) -> bool {
    matches!(byte, b'\n' | b',')
}

/// Every vector's body, and mutations of it, each with the vector that it comes from.
fn corpus(families: &[&str]) -> Vec<(Vector, Vec<Vec<u8>>)> {
    let vectors: Vec<_> = families.iter().flat_map(|family| self::vectors(family)).collect();
    let others: Vec<_> = vectors.iter().map(|vector| vector.body.clone()).collect();
    let mut dice = Dice(1);
    let with_mutations = |vector: Vector| {
        let mut bodies = vec![vector.body.clone()];
        if vector.body.len() <= MUTATED_MAX {
            bodies.extend((0..MUTATIONS).map(|_| {
                let other = &others[dice.below(others.len())];
                dice.mutated(&vector.body, other)
            }));
        }
        (vector, bodies)
    };
    vectors.into_iter().map(with_mutations).collect()
}

/// The vector's headers and this body, as [`targets::v3_headers`] takes them.
fn with_headers(vector: &Vector, body: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    for (digit, name) in targets::HEADERS.into_iter().enumerate() {
        for value in vector.headers.get_all(name) {
            input.extend_from_slice(format!("{digit}{}\n", value.to_str().unwrap()).as_bytes());
        }
    }
    [&input, &b"\n"[..], body].concat()
}

#[test]
fn every_target_holds_over_the_vectors_and_mutations_of_them() {
    let mut dice = Dice(2);
    let mut cases = 0;
    for (vector, bodies) in corpus(&["v2pay", "v2refund", "v3"]) {
        for body in bodies {
            targets::v2_xml(&body);
            targets::v2_refund(&body);
            targets::v3_resource(&body);
            let input = with_headers(&vector, &body);
            targets::v3_headers(&input);
            targets::v3_headers(&dice.mutated(&input, &body));
            cases += 5;
        }
    }
    assert!(cases > 5_000, "{cases} cases");
}

#[test]
fn the_inside_of_a_refund_is_read_without_a_panic_whatever_it_says() {
    let inner = "<root>\n<out_refund_no><![CDATA[R1]]></out_refund_no>\n<out_trade_no><![CDATA[O1]]></out_trade_no>\n\
        <refund_fee><![CDATA[3960]]></refund_fee>\n<refund_id><![CDATA[50300]]></refund_id>\n\
        <refund_status><![CDATA[SUCCESS]]></refund_status>\n<total_fee>8800</total_fee>\n\
        <success_time><![CDATA[2026-03-18 10:20:28]]></success_time>\n<transaction_id>4200</transaction_id>\n</root>";
    let mut dice = Dice(3);
    for _ in 0..1_000 {
        let mutated = dice.mutated(inner.as_bytes(), inner.as_bytes());
        targets::v2_refund(&mutated);
        targets::v2_refund(&dice.mutated(&mutated, inner.as_bytes()));
    }
}

/// What is signed: every field that is not empty.
fn said(fields: &Fields<'_>) -> BTreeSet<(String, String)> {
    let pairs = fields.iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_mutated_v2_notice_that_still_verifies_says_what_was_signed() {
    let key = v2_key();
    let verified = |body: &[u8]| {
        let fields = v2_xml::parse(body, "xml").ok()?;
        v2_sign::verify(&fields, &key).is_ok().then(|| said(&fields))
    };
    let corpus = corpus(&["v2pay"]);
    let signed: BTreeSet<_> = corpus.iter().filter_map(|(vector, _)| verified(&vector.body)).collect();
    let mut mutations = 0;
    for (vector, bodies) in &corpus {
        for fields in bodies.iter().filter(|body| **body != vector.body).filter_map(|body| verified(body)) {
            assert!(signed.contains(&fields), "{}: {fields:?}", vector.id);
            mutations += 1;
        }
    }
    assert!(signed.len() > 10 && mutations > 0, "{} signed, {mutations} mutations verify", signed.len());
}

#[test]
fn a_mutated_v3_notice_never_verifies() {
    let keys = platform_keys();
    let verifies = |vector: &Vector, body: &[u8], keys: &PlatformKeys| {
        let now = Timestamp::from_second(vector.now.unwrap()).unwrap();
        V3Headers::read(&vector.headers).is_ok_and(|headers| v3_sign::verify(&headers, body, now, keys).is_ok())
    };
    let mut verified = 0;
    for (vector, bodies) in corpus(&["v3"]) {
        for body in bodies {
            if verifies(&vector, &body, &keys) {
                assert!(body == vector.body, "{}", vector.id);
                verified += 1;
            }
        }
    }
    assert!(verified > 20, "{verified} verified");
}
