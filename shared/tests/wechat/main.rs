//! The protocol modules against the notification vectors and against hostile input.

#![expect(clippy::unwrap_used, reason = "clippy takes a test's helpers for product code")]

mod corpus;
mod hostile;
mod support;
mod vectors;
