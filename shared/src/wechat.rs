//! What WeChat Pay sends: formats, signatures, and their translation into [`crate::event`]. Pure, no I/O.
//!
//! Reading goes in three steps that never mix: bytes to fields (refuse what is not exactly the format), fields to "this
//! is WeChat's" (refuse what is not signed), fields to facts (what does not fit our side is a
//! [`Rejection`](crate::reason::Rejection)).

pub mod keys;
pub mod merchant_ids;
pub mod v2_xml;
pub mod v2_sign;
pub mod v2_payment;
pub mod v2_refund;
pub mod v3_sign;
pub mod v3_resource;
pub mod v3_event;
mod json;

pub mod self_test;
pub mod sender;
pub mod v2_sender;
