//! The acts, in the order in which they are played. One point a yuan; every order belongs to the same user.

use wxpay_shared::{admin::ReplayOutcome, fen::Fen, order::OrderState, reason::Reason, wechat::v2_sign::SignType};

use super::act::{Act, End, Step};
use crate::wechat_sender::v3;

/// Every act.
pub(crate) fn all() -> Vec<Act> {
    let mut acts = paid();
    acts.extend(refunded());
    acts.extend(by_v3());
    acts.extend(refused_or_parked());
    acts
}

fn paid() -> Vec<Act> {
    vec![
        Act {
            story: "A customer pays 19.99 yuan, and WeChat says so.",
            order: "DEMO-paid",
            steps: vec![Step::Register(1999), Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(1999)))],
            expect: End::paid(1999, 19),
        },
        Act {
            story: "WeChat tells of one payment five times at once.",
            order: "DEMO-five-times",
            steps: vec![
                Step::Register(8800),
                Step::post_times(5, "SUCCESS", |wechat| wechat.sign(wechat.payment(8800))),
            ],
            expect: End::paid(8800, 88),
        },
        Act {
            story: "A shop that chose HMAC-SHA256 is paid.",
            order: "DEMO-hmac",
            steps: vec![
                Step::Register(5000),
                Step::post("SUCCESS", |wechat| wechat.payment(5000).signed(wechat.key, SignType::HmacSha256)),
            ],
            expect: End::paid(5000, 50),
        },
        Act {
            story: "A customer pays 100 yuan, 30 of them with a coupon: the order's amount counts.",
            order: "DEMO-coupon",
            steps: vec![
                Step::Register(10_000),
                Step::post("SUCCESS", |wechat| {
                    let coupon = Fen::new(3000).expect("an amount");
                    wechat.sign(wechat.payment(10_000).with_coupon(coupon))
                }),
            ],
            expect: End::paid(10_000, 100),
        },
    ]
}

/// The transactions that an act names more than once.
const PAID: &str = "4200000000202603180000000001";
const RETURNED: &str = "4200000000202603180000000002";
const OVERTAKEN: &str = "4200000000202603180000000003";
const PAID_V3: &str = "4200000000202603180000000004";
const ABNORMAL: &str = "4200000000202603180000000005";
const PROBED: &str = "4200000000202603180000000006";

fn refunded() -> Vec<Act> {
    vec![
        Act {
            story: "A customer pays 60 yuan and gets 25 back; the refund takes its points along.",
            order: "DEMO-refunded",
            steps: vec![
                Step::Register(6000),
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(6000).with("transaction_id", PAID))),
                Step::AwaitRecorded(1),
                Step::post("SUCCESS", |wechat| wechat.refund(PAID, 6000, 2500)),
            ],
            expect: End {
                state: Some(OrderState::PartiallyRefunded),
                received: 6000,
                points: 35,
                ledger_entries: 2,
                dead: Vec::new(),
            },
        },
        Act {
            story: "A customer returns everything: the refund takes all its points back.",
            order: "DEMO-returned",
            steps: vec![
                Step::Register(7500),
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(7500).with("transaction_id", RETURNED))),
                Step::AwaitRecorded(1),
                Step::post("SUCCESS", |wechat| wechat.refund(RETURNED, 7500, 7500)),
            ],
            expect: End {
                state: Some(OrderState::Refunded),
                received: 7500,
                points: 0,
                ledger_entries: 2,
                dead: Vec::new(),
            },
        },
        Act {
            story: "A refund overtakes its payment; the order ends as if they had come in turn.",
            order: "DEMO-overtaken",
            steps: vec![
                Step::Register(4000),
                Step::post("SUCCESS", |wechat| wechat.refund(OVERTAKEN, 4000, 4000)),
                Step::AwaitRecorded(1),
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(4000).with("transaction_id", OVERTAKEN))),
            ],
            expect: End {
                state: Some(OrderState::Refunded),
                received: 4000,
                points: 0,
                ledger_entries: 0,
                dead: Vec::new(),
            },
        },
    ]
}

fn by_v3() -> Vec<Act> {
    vec![
        Act {
            story: "A payment comes by APIv3, signed by the platform and encrypted for the merchant.",
            order: "DEMO-v3",
            steps: vec![Step::Register(6400), Step::post("SUCCESS", |wechat| wechat.v3_payment(PAID_V3, 6400))],
            expect: End::paid(6400, 64),
        },
        Act {
            story: "By APIv3, WeChat cannot pay a refund out: the money stays, and a person must look.",
            order: "DEMO-v3-abnormal",
            steps: vec![
                Step::Register(3300),
                Step::post("SUCCESS", |wechat| wechat.v3_payment(ABNORMAL, 3300)),
                Step::AwaitRecorded(1),
                Step::post("SUCCESS", |wechat| wechat.v3_abnormal_refund(ABNORMAL, 3300, 3300)),
            ],
            expect: End::paid(3300, 33).and_dead(Reason::RefundAbnormal),
        },
        Act {
            story: "WeChat probes whether signatures are checked, with a wrong one; the right one follows.",
            order: "DEMO-v3-probe",
            steps: vec![
                Step::Register(1200),
                Step::post("FAIL", |wechat| v3::probing(wechat.v3_payment(PROBED, 1200))),
                Step::post("SUCCESS", |wechat| wechat.v3_payment(PROBED, 1200)),
            ],
            expect: End::paid(1200, 12),
        },
    ]
}

fn refused_or_parked() -> Vec<Act> {
    vec![
        Act {
            story: "Somebody changes a notification on its way, so that its signature no longer fits.",
            order: "DEMO-tampered",
            steps: vec![
                Step::Register(1999),
                Step::post("FAIL", |wechat| wechat.sign(wechat.payment(1)).with("total_fee", "1999")),
            ],
            expect: End::unpaid(),
        },
        Act {
            story: "WeChat says that 0.01 yuan was paid for an order of 19.99.",
            order: "DEMO-wrong-amount",
            steps: vec![Step::Register(1999), Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(1)))],
            expect: End::unpaid().and_dead(Reason::AmountMismatch),
        },
        Act {
            story: "A customer pays one order twice, by two transactions.",
            order: "DEMO-paid-twice",
            steps: vec![
                Step::Register(2000),
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(2000))),
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(2000))),
            ],
            expect: End { received: 4000, ..End::paid(2000, 20).and_dead(Reason::SurplusPayment) },
        },
        Act {
            story: "A payment arrives for an order that nobody registers; the retry tiers are short here.",
            order: "DEMO-unregistered",
            steps: vec![Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(3000)))],
            expect: End::unknown().and_dead(Reason::UnknownOrder),
        },
        Act {
            story: "Another one; a developer registers the order afterwards and replays the dead letter.",
            order: "DEMO-replayed",
            steps: vec![
                Step::post("SUCCESS", |wechat| wechat.sign(wechat.payment(3000))),
                Step::AwaitDeadLetter(Reason::UnknownOrder),
                Step::Register(3000),
                Step::Replay(ReplayOutcome::Applied),
            ],
            expect: End::paid(3000, 30),
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_act_has_an_order_of_its_own() {
        let orders: BTreeSet<_> = all().into_iter().map(|act| act.order).collect();
        assert_eq!(orders.len(), all().len());
    }
}
