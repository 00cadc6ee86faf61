//! What ingress, worker and `wxpayctl` must agree on.
//!
//! Three layers, each knowing only those above it: the pure core (money, names, orders, the notification's formats), the
//! two contracts ([`queue`] and [`store`]) with their homes, and what every program needs to run (configuration, HTTP
//! listeners, logging).

pub mod clock;
pub mod disk;
pub mod envelope;
pub mod event;
pub mod fen;
pub mod ids;
pub mod order;
pub mod points;
pub mod reason;

pub mod queue;
pub mod settled;
pub mod store;
