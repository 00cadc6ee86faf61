//! What WeChat has to tell: orders with their payments, refunds and mistakes, made from a seed, and what must become of
//! each. The same seed is the same story, whatever happens on the way.

use serde_json::{Value, json};
use wxpay_shared::{
    reason::Reason,
    wechat::{sender::SigningKey, v2_sign::SignType},
};

use super::{
    notice::Notice,
    pair::{API_V3_KEY, MCH_ID, V2_KEY},
    wechat,
};

/// The merchant of every story.
pub(crate) const MERCHANT: &str = "shop";
/// Users among whom the orders are spread.
const USERS: u64 = 40;
/// Letters of one order, at most.
const LETTERS_MAX: u64 = 10;
/// Tellings of one letter, at most.
const TELLINGS_MAX: u64 = 10_000;

/// An order, what WeChat tells about it, and how it must end once every letter was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) out_trade_no: String,
    /// In fen.
    pub(crate) amount: i64,
    pub(crate) user: String,
    /// Whether the shop registers it at all.
    pub(crate) registered: bool,
    pub(crate) letters: Vec<Letter>,
    pub(crate) ends: Ends,
}

/// One fact as WeChat tells it, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// Unique among all letters of a run; a telling's number follows from it.
    pub(crate) number: u64,
    pub(crate) what: What,
    pub(crate) v3: bool,
    /// How many servers of WeChat tell it at the same time.
    pub(crate) copies: usize,
    pub(crate) fate: Fate,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Payment {
        transaction: String,
        amount: i64,
    },
    Refund {
        transaction: String,
        number: usize,
        amount: i64,
    },
    /// A payment that failed: authentic, and it changes nothing.
    Failed {
        transaction: String,
    },
}

/// What must become of a letter that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Applied,
    Ignored,
    /// Nothing is recorded; every copy that was taken is a dead letter with this reason.
    Dead(Reason),
    /// Of two such letters the first to arrive is applied. The other is a dead letter with this reason.
    OneOfTwo(Reason),
}

/// How an order must end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) state: &'static str,
    pub(crate) received: i64,
    pub(crate) kept: i64,
    pub(crate) points: i64,
    /// The reason of its dead letters.
    pub(crate) dead: Option<Reason>,
}

impl Story {
    /// The story of an order. `index` makes its names unique within a run.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
        let out_trade_no = format!("ORDER{index:07}");
        let amount = i64::from(random.u32(1..1_000)) * 100;
        let mut story = Self {
            user: format!("user{}", random.u64(0..USERS)),
            registered: true,
            letters: Vec::new(),
            ends: Ends::default(),
            out_trade_no,
            amount,
        };
        let reason = story.plot(random.u8(0..100), index, &mut random);
        random.shuffle(&mut story.letters);
        story.ends.dead = reason;
        story
    }

    /// Chooses what happens; the reason of its dead letters, if it has some.
    fn plot(&mut self, choice: u8, index: u64, random: &mut fastrand::Rng) -> Option<Reason> {
        let amount = self.amount;
        let transaction = |n: u8| format!("42{n}{index:09}");
        let payment = |n: u8, amount: i64| What::Payment { transaction: transaction(n), amount };
        let refund = |number: usize, amount: i64| What::Refund { transaction: transaction(1), number, amount };
        let mut tell = |what: What, fate: Fate| {
            let number = index * LETTERS_MAX + u64::try_from(self.letters.len()).unwrap_or(u64::MAX);
            let copies = if random.u8(0..3) == 0 { random.usize(2..5) } else { 1 };
            self.letters.push(Letter { number, what, v3: random.u8(0..4) == 0, copies, fate });
        };
        let paid = Ends { state: "paid", received: amount, kept: amount, points: amount / 100, dead: None };
        let unpaid = Ends { state: "unpaid", ..Ends::default() };
        let refunded = |back: i64| {
            let kept = amount - back;
            let state = if kept == 0 { "refunded" } else { "partially_refunded" };
            Ends { state, kept, points: kept / 100, ..paid.clone() }
        };
        let (ends, reason) = match choice {
            0..15 => {
                tell(payment(1, amount), Fate::Applied);
                tell(refund(1, amount / 4 + 1), Fate::Applied);
                tell(refund(2, amount / 2), Fate::Applied);
                (refunded(amount / 4 + 1 + amount / 2), None)
            }
            15..22 => {
                tell(payment(1, amount), Fate::Applied);
                tell(refund(1, amount), Fate::Applied);
                (refunded(amount), None)
            }
            22..28 => {
                tell(payment(1, amount - 1), Fate::Dead(Reason::AmountMismatch));
                (unpaid, Some(Reason::AmountMismatch))
            }
            28..31 => {
                tell(payment(1, amount), Fate::Applied);
                tell(payment(2, amount + 1), Fate::Dead(Reason::AmountMismatch));
                (paid, Some(Reason::AmountMismatch))
            }
            31..35 => {
                tell(payment(1, amount), Fate::OneOfTwo(Reason::SurplusPayment));
                tell(payment(2, amount), Fate::OneOfTwo(Reason::SurplusPayment));
                (Ends { received: 2 * amount, kept: 2 * amount, ..paid }, Some(Reason::SurplusPayment))
            }
            35..38 => {
                let most = amount * 3 / 5;
                tell(payment(1, amount), Fate::Applied);
                tell(refund(1, most), Fate::OneOfTwo(Reason::OverRefund));
                tell(refund(2, most), Fate::OneOfTwo(Reason::OverRefund));
                (refunded(most), Some(Reason::OverRefund))
            }
            38..42 => {
                tell(payment(1, amount), Fate::Dead(Reason::UnknownOrder));
                self.registered = false;
                (Ends::default(), Some(Reason::UnknownOrder))
            }
            42..44 => {
                tell(What::Failed { transaction: transaction(1) }, Fate::Ignored);
                (unpaid, None)
            }
            _ => {
                tell(payment(1, amount), Fate::Applied);
                (paid, None)
            }
        };
        self.ends = ends;
        reason
    }
}

/// One telling of a letter, ready to be posted.
pub(crate) struct Telling {
    /// What finds it again in a dead letter.
    pub(crate) tag: u64,
    /// `v2` or `v3`.
    pub(crate) route: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Letter {
    /// The letter, told for the `turn`th time: a nonce and an id of its own, signed now.
    pub(crate) fn telling(&self, story: &Story, turn: u64, key: &SigningKey) -> Telling {
        let tag = self.number * TELLINGS_MAX + turn % TELLINGS_MAX;
        if self.v3 {
            let event = match &self.what {
                What::Payment { .. } => "TRANSACTION.SUCCESS",
                What::Failed { .. } => "TRANSACTION.PAYERROR",
                What::Refund { .. } => "REFUND.SUCCESS",
            };
            let number = usize::try_from(tag).expect("a tag has twelve digits");
            let signed = wechat::v3(key, API_V3_KEY, event, number, &self.content(story));
            return Telling { tag, route: "v3", headers: signed.headers, body: signed.body };
        }
        let nonce = format!("EV{tag}");
        let body = match &self.what {
            What::Payment { transaction, amount } => notice(story, transaction, *amount, tag, None).xml(&nonce),
            What::Failed { transaction } => notice(story, transaction, story.amount, tag, Some("FAIL")).xml(&nonce),
            What::Refund { .. } => wechat::v2_refund_with(V2_KEY, MCH_ID, &self.content(story), &nonce),
        };
        Telling { tag, route: "v2", headers: Vec::new(), body }
    }

    /// The key under which the fact is recorded.
    pub(crate) fn key(&self) -> String {
        match &self.what {
            What::Payment { transaction, .. } | What::Failed { transaction } => format!("pay:{MCH_ID}:{transaction}"),
            What::Refund { transaction, number, .. } => format!("refund:{MCH_ID}:50{number}{transaction}:success"),
        }
    }

    fn content(&self, story: &Story) -> Value {
        match &self.what {
            What::Payment { transaction, amount } => payment(story, transaction, *amount, "SUCCESS"),
            What::Failed { transaction } => payment(story, transaction, story.amount, "PAYERROR"),
            What::Refund { transaction, number, amount } => {
                let mut content = wechat::refund(&story.out_trade_no, story.amount, *number, *amount, "SUCCESS");
                content["transaction_id"] = json!(transaction);
                content["refund_id"] = json!(format!("50{number}{transaction}"));
                content
            }
        }
    }
}

/// The number of a telling, found in a body: in its nonce or its id. `None` for what no letter of ours says.
pub(crate) fn tag_of(body: &str) -> Option<u64> {
    let digits = |from: &str| from.split(|next: char| !next.is_ascii_digit()).next().and_then(|run| run.parse().ok());
    body.match_indices("EV").find_map(|(at, _)| digits(body[at + 2..].trim_start_matches('-')))
}

/// The number of the letter that a telling with this tag told.
pub(crate) const fn letter_of(tag: u64) -> u64 {
    tag / TELLINGS_MAX
}

/// The index of the story that a letter with this number belongs to.
pub(crate) const fn story_of(letter: u64) -> u64 {
    letter / LETTERS_MAX
}

fn notice(story: &Story, transaction: &str, amount: i64, tag: u64, result: Option<&str>) -> Notice {
    Notice {
        transaction_id: transaction.to_owned(),
        sign_type: if tag.is_multiple_of(2) { SignType::Md5 } else { SignType::HmacSha256 },
        more: result.map(|result| ("result_code", result.to_owned())).into_iter().collect(),
        ..Notice::new(&story.out_trade_no, amount)
    }
}

fn payment(story: &Story, transaction: &str, amount: i64, state: &str) -> Value {
    let mut content = wechat::transaction(&story.out_trade_no, amount);
    content["transaction_id"] = json!(transaction);
    content["trade_state"] = json!(state);
    content
}
