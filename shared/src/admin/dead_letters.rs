//! Dead letters as the API shows them, and which of them a request means.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Attempt,
    fen::Fen,
    ids::{Currency, MerchantName, NotificationId, OrderId},
    order::OrderState,
    reason::Reason,
    store::audit::AuditEntry,
};

/// Dead letters, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// Those that match, up to the limit.
    pub dead_letters: Vec<DeadLetterView>,
    /// How many match in all.
    pub matching: usize,
    /// How many there are by reason, whether they match or not.
    pub by_reason: BTreeMap<String, usize>,
    /// What to ask for as `page` to see the next ones; `None` on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A dead letter. What is read from the body is read without checking it; personal fields are masked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The notification's id.
    pub id: NotificationId,
    /// Why it is here.
    pub reason: Reason,
    /// The facts of this case.
    pub detail: String,
    /// What usually cures this reason.
    pub cure: String,
    /// The merchant that its headers name.
    pub merchant: Option<String>,
    /// What its body names, decrypted where it is encrypted: first of all if it names several.
    #[serde(flatten)]
    pub named: Named,
    /// The others that a combined payment names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Named>,
    /// When ingress received it.
    pub received_at: Option<Timestamp>,
    /// Attempts since ingress or the last replay.
    pub attempts: u32,
    /// How often it was replayed.
    #[serde(default)]
    pub replays: u32,
    /// Whether its seal fits: whether it is what ingress accepted.
    pub sealed: bool,
    /// The attempts; this and what follows only when one dead letter is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// What people did with it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<AuditEntry>,
    /// The body's fields, personal ones and the signature masked. A member of a JSON object has its path as its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The fields that the body holds encrypted, masked in the same way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub content: BTreeMap<String, String>,
    /// Why there is no more to show of the body, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// The orders that it names, as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<OrderNow>,
}

/// What a notification says it is about, as written there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The order.
    pub out_trade_no: Option<String>,
    /// The payment.
    pub transaction_id: Option<String>,
    /// The refund, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_refund_no: Option<String>,
    /// The amount: of the refund where it is one, otherwise of the payment.
    pub amount: Option<String>,
}

/// An order as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderNow {
    /// `merchant/out_trade_no`
    pub order: String,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How an order stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Standing {
    /// It is registered.
    Registered {
        /// Its state.
        state: OrderState,
        /// What it costs.
        amount: Fen,
        /// In which currency.
        currency: Currency,
        /// Money that came.
        received: Fen,
        /// Money that was given back.
        refunded: Fen,
        /// Points it has credited, less those taken back.
        points: i64,
    },
    /// It is not.
    NotRegistered,
    /// The store cannot say.
    Unknown {
        /// Why.
        problem: String,
    },
}

/// Which dead letters: all conditions together. At least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Those with one of these ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<NotificationId>,
    /// Those with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Those of this merchant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merchant: Option<MerchantName>,
    /// Those that name this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// Those that ingress received before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_before: Option<Timestamp>,
    /// Those that ingress received at this moment or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_after: Option<Timestamp>,
    /// Every one; it must be said.
    pub all: bool,
}

/// Removes dead letters for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// Which.
    pub select: Selection,
    /// Why; the audit record keeps it.
    pub reason: String,
    /// Who; the audit record keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a discard did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// Those that are gone.
    pub ids: Vec<NotificationId>,
}
