//! What WeChat Pay sends: formats, signatures, and their translation into [`crate::event`]. Pure, no I/O.
//!
//! Reading goes in three steps that never mix: bytes to fields (refuse what is not exactly the format), fields to "this
//! is WeChat's" (refuse what is not signed), fields to facts (what does not fit our side is a [`crate::reason::Rejection`]).

pub mod keys;
pub mod merchant_ids;
pub mod v2_payment;
pub mod v2_sender;
pub mod v2_sign;
pub mod v2_xml;
