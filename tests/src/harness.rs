//! The servers that tests run against, and the programs under test.

pub(crate) mod audit;
pub(crate) mod browser;
pub(crate) mod evidence;
pub(crate) mod faults;
pub(crate) mod notice;
pub(crate) mod pair;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod scale;
pub(crate) mod schedule;
pub(crate) mod sender;
pub(crate) mod story;
pub(crate) mod wechat;

pub(crate) use wxpay_servers::{database, process, rabbitmq, wait_until};
