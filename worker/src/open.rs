//! Step 2: from a message to events: check the seal, find the merchant, read the notification.
//!
//! Looks at the body for the first time. What ingress proved is not proven again, and no age is checked: a message may
//! have waited for a week. What fails here fails for good, so it is a dead letter at once.

use wxpay_shared::{
    envelope::{Api, Envelope, Message},
    event::{Event, Fact},
    merchant::Merchant,
    reason::{Reason, Rejection},
    wechat::{
        v2_payment::{self, Notice},
        v2_xml,
    },
};

use crate::Worker;

impl Worker {
    /// The events in a message: none where it is authentic and changes nothing.
    pub(crate) fn open(&self, message: &Message) -> Result<Vec<Event>, Rejection> {
        let envelope = Envelope::open(message, &self.parts.seal)?;
        let merchant = self.parts.merchants.get(envelope.merchant.as_str()).ok_or_else(|| {
            Rejection::new(Reason::UnknownMerchant, format!("no merchant {} is configured", envelope.merchant))
        })?;
        let facts = match envelope.api {
            Api::V2 => open_v2(&envelope, merchant)?,
            Api::V3 => return Err(Rejection::new(Reason::UnknownVersion, "this program does not read v3")),
        };
        Ok(facts.into_iter().map(|fact| Event { notification: envelope.id.clone(), fact }).collect())
    }
}

fn open_v2(envelope: &Envelope, merchant: &Merchant) -> Result<Vec<Fact>, Rejection> {
    let fields =
        v2_xml::parse(&envelope.body, "xml").map_err(|error| Rejection::new(Reason::Unopenable, error.to_string()))?;
    match v2_payment::read(&fields, &merchant.name, &merchant.ids)? {
        Notice::Failed => Ok(Vec::new()),
        Notice::Paid(payment) => Ok(vec![Fact::Payment(payment)]),
    }
}
