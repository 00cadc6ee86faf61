//! Step 2: from a message to events: check the seal, find the merchant, read the notification.
//!
//! Looks at the body for the first time. What ingress proved is not proven again, and no age is checked: a message may
//! have waited for a week. What fails here fails for good, so it is a dead letter at once.

use secrecy::ExposeSecret as _;
use wxpay_shared::{
    config::Refunds,
    envelope::{Api, Envelope, Message},
    event::{Event, Fact},
    merchant::{Merchant, Merchants},
    metric,
    reason::{Reason, Rejection},
    wechat::{
        v2_payment::{self, Notice},
        v2_refund,
        v2_xml::{self, Fields},
        v3_event::{self, Ignored, Outcome},
    },
};

use crate::Worker;

/// What a message holds: any number of events, and why parts of it, or all, cannot be applied.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) events: Vec<Event>,
    pub(crate) rejections: Vec<Rejection>,
}

impl Worker {
    /// The events in a message: none where it is authentic and changes nothing.
    pub(crate) fn open(&self, message: &Message, merchants: &Merchants) -> Opened {
        let mut opened = Opened::default();
        for outcome in self.read(message, merchants) {
            match outcome {
                Outcome::Fact(fact) => opened.events.push(Event { notification: message.id.clone(), fact }),
                Outcome::Ignored(ignored) => {
                    tracing::info!(notification = %message.id, ?ignored, "changes nothing");
                    metric::ignored(kind(&ignored));
                }
                Outcome::Rejected(rejection) => opened.rejections.push(rejection),
            }
        }
        opened
    }

    /// What a message says.
    pub(crate) fn read(&self, message: &Message, merchants: &Merchants) -> Vec<Outcome> {
        let outcomes = Envelope::open(message, &self.parts.seal).and_then(|envelope| outcomes(&envelope, merchants));
        outcomes.unwrap_or_else(|rejection| vec![Outcome::Rejected(rejection)])
    }
}

fn outcomes(envelope: &Envelope, merchants: &Merchants) -> Result<Vec<Outcome>, Rejection> {
    let merchant = merchants.get(envelope.merchant.as_str()).ok_or_else(|| {
        Rejection::new(Reason::UnknownMerchant, format!("no merchant {} is configured", envelope.merchant))
    })?;
    let mut outcomes = match envelope.api {
        Api::V2 => vec![open_v2(envelope, merchant)?],
        Api::V3 => {
            let missing = || Rejection::new(Reason::Unopenable, format!("merchant {} has no APIv3 key", merchant.name));
            let keys = merchant.v3.as_ref().ok_or_else(missing)?;
            v3_event::open(&envelope.body, &merchant.name, &merchant.ids, &keys.api)
        }
    };
    for outcome in &mut outcomes {
        if let Outcome::Fact(Fact::Refund(refund)) = outcome {
            refund.must_be_announced = merchant.refunds == Refunds::RegisteredOnly;
        }
    }
    Ok(outcomes)
}

fn open_v2(envelope: &Envelope, merchant: &Merchant) -> Result<Outcome, Rejection> {
    let fields =
        v2_xml::parse(&envelope.body, "xml").map_err(|error| Rejection::new(Reason::Unopenable, error.to_string()))?;
    if fields.contains("req_info") {
        return open_v2_refund(&fields, merchant);
    }
    match v2_payment::read(&fields, &merchant.name, &merchant.ids)? {
        Notice::Unfinished(state) => Ok(Outcome::Ignored(Ignored::trade_state(&state))),
        Notice::Paid(payment) => Ok(Outcome::Fact(Fact::Payment(payment))),
    }
}

fn open_v2_refund(fields: &Fields<'_>, merchant: &Merchant) -> Result<Outcome, Rejection> {
    let outer = v2_refund::read_outer(|name| fields.get(name), &merchant.ids)?;
    let unopenable = || Rejection::new(Reason::Unopenable, "req_info does not open under the merchant's v2 key");
    // The current key, then the previous one: a notice may have waited while the key changed.
    let opened = merchant.v2_keys.iter().find_map(|key| v2_refund::open_req_info(key, outer.req_info).ok());
    let xml = opened.ok_or_else(unopenable)?;
    let inner = v2_xml::parse(xml.expose_secret().as_bytes(), "root").map_err(|_| unopenable())?;
    let refund = v2_refund::read_refund(|name| inner.get(name), &merchant.name, outer.mchid)?;
    Ok(Outcome::Fact(Fact::Refund(refund)))
}

fn kind(ignored: &Ignored) -> &str {
    match ignored {
        Ignored::EventType(name) | Ignored::TradeState(name) => name,
        Ignored::ProfitSharing => "profit_sharing",
    }
}
