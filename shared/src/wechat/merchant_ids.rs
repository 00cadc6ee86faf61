//! Whose notification it is: the merchant's own numbers, and the check of a notification's numbers against them.
//!
//! A signature proves that WeChat wrote a notification, not that it was written for the merchant on whose path it came.
//! The checks here are what keeps one merchant's payment out of another merchant's orders.

use crate::{
    ids::{AppId, IdError, MchId},
    reason::{Reason, Rejection},
};

/// The numbers under which WeChat knows a merchant. With a `sub_mch_ids` it is a service provider, 服务商: every
/// notification must then name one of its sub-merchants; without, none may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerchantIds {
    /// The merchant's number; the provider's own in service-provider mode.
    pub mch_id: MchId,
    /// The applications that may be paid through; the provider's own in service-provider mode.
    pub appids: Vec<AppId>,
    /// The sub-merchants, 子商户, of a service provider; empty for a merchant that acts for itself.
    pub sub_mch_ids: Vec<MchId>,
    /// The sub-merchants' applications.
    pub sub_appids: Vec<AppId>,
}

impl MerchantIds {
    /// The merchant number (`mch_id`, `mchid`, `sp_mchid`) if it is this merchant's and the sub-merchant is as the mode
    /// wants it. An empty text counts as absent.
    ///
    /// # Errors
    /// [`Reason::MerchantMismatch`] for other numbers, [`Reason::InvalidField`] for texts that are no numbers.
    pub fn check_mchid(&self, mchid: &str, sub_mchid: Option<&str>) -> Result<MchId, Rejection> {
        let mchid = self.check_own_mchid(mchid)?;
        let mismatch = |detail| Err(Rejection::new(Reason::MerchantMismatch, detail));
        match (self.sub_mch_ids.is_empty(), sub_mchid.filter(|text| !text.is_empty())) {
            (true, None) => Ok(mchid),
            (true, Some(_)) => mismatch("expected no sub-merchant, got one".to_owned()),
            (false, None) => mismatch("expected one of the sub-merchants, got none".to_owned()),
            (false, Some(text)) => {
                let sub = MchId::parse(text).map_err(|error| invalid(&IdError { name: "sub_mch_id", ..error }))?;
                if self.sub_mch_ids.contains(&sub) {
                    Ok(mchid)
                } else {
                    mismatch(format!("expected one of the sub-merchants, got {sub}"))
                }
            }
        }
    }

    /// The merchant number if it is this merchant's own, whatever the mode: for the outer part of a combined payment.
    ///
    /// # Errors
    /// As [`MerchantIds::check_mchid`].
    pub fn check_own_mchid(&self, mchid: &str) -> Result<MchId, Rejection> {
        let mchid = MchId::parse(mchid).map_err(|error| invalid(&error))?;
        if mchid == self.mch_id {
            Ok(mchid)
        } else {
            let detail = format!("expected mch_id {}, got {mchid}", self.mch_id);
            Err(Rejection::new(Reason::MerchantMismatch, detail))
        }
    }

    /// The application if it is one of the merchant's. A sub-merchant's application, where named, must be known too. An
    /// empty text counts as absent.
    ///
    /// # Errors
    /// [`Reason::AppidMismatch`] for other applications, [`Reason::InvalidField`] for texts that are no appids.
    pub fn check_appid(&self, appid: &str, sub_appid: Option<&str>) -> Result<AppId, Rejection> {
        let appid = known(appid, &self.appids, "appid")?;
        if let Some(sub_appid) = sub_appid.filter(|text| !text.is_empty()) {
            known(sub_appid, &self.sub_appids, "sub_appid")?;
        }
        Ok(appid)
    }
}

fn known(text: &str, list: &[AppId], name: &'static str) -> Result<AppId, Rejection> {
    let appid = AppId::parse(text).map_err(|error| invalid(&IdError { name, ..error }))?;
    if list.contains(&appid) {
        Ok(appid)
    } else {
        Err(Rejection::new(Reason::AppidMismatch, format!("expected one of the merchant's, got {name} {appid}")))
    }
}

fn invalid(error: &IdError) -> Rejection {
    Rejection::new(Reason::InvalidField, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(sub_mch_ids: &[&str]) -> MerchantIds {
        MerchantIds {
            mch_id: MchId::parse("1900990001").unwrap(),
            appids: vec![AppId::parse("wxa").unwrap(), AppId::parse("wxb").unwrap()],
            sub_mch_ids: sub_mch_ids.iter().map(|id| MchId::parse(id).unwrap()).collect(),
            sub_appids: vec![AppId::parse("wxsub").unwrap()],
        }
    }

    fn reason<T>(result: Result<T, Rejection>) -> Option<Reason> {
        result.err().map(|rejection| rejection.reason)
    }

    #[test]
    fn a_direct_merchant_takes_its_own_number_and_no_sub_merchant() {
        let ids = ids(&[]);
        let check = |mchid, sub| reason(ids.check_mchid(mchid, sub));
        assert_eq!(check("1900990001", None), None);
        assert_eq!(check("1900990001", Some("")), None);
        assert_eq!(check("1900990001", Some("1900990002")), Some(Reason::MerchantMismatch));
        assert_eq!(check("1900990002", None), Some(Reason::MerchantMismatch));
        assert_eq!(check("19009900010", None), Some(Reason::MerchantMismatch));
        assert_eq!(check("", None), Some(Reason::InvalidField));
    }

    #[test]
    fn a_provider_takes_its_own_number_with_one_of_its_sub_merchants() {
        let ids = ids(&["77", "78"]);
        let check = |mchid, sub| reason(ids.check_mchid(mchid, sub));
        assert_eq!(check("1900990001", Some("78")), None);
        assert_eq!(check("1900990001", None), Some(Reason::MerchantMismatch));
        assert_eq!(check("1900990001", Some("79")), Some(Reason::MerchantMismatch));
        assert_eq!(check("77", Some("77")), Some(Reason::MerchantMismatch));
        assert_eq!(check("1900990001", Some("7 8")), Some(Reason::InvalidField));
    }

    #[test]
    fn every_named_appid_must_be_known() {
        let ids = ids(&[]);
        let check = |appid, sub| reason(ids.check_appid(appid, sub));
        assert_eq!(check("wxb", None), None);
        assert_eq!(check("wxb", Some("wxsub")), None);
        assert_eq!(check("wxc", None), Some(Reason::AppidMismatch));
        assert_eq!(check("wxsub", None), Some(Reason::AppidMismatch));
        assert_eq!(check("wxa", Some("wxb")), Some(Reason::AppidMismatch));
        assert_eq!(check("wx a", None), Some(Reason::InvalidField));
    }
}
