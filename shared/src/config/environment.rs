//! The variables that lie over the file: those with our prefix, which must be text.

use std::ffi::OsString;

use super::{ConfigError, ENV_PREFIX};

/// What the environment says of the configuration, for [`Config::load`](super::Config::load). Other programs' variables may
/// hold any bytes.
///
/// # Errors
/// [`ConfigError`] with the variable's name, where its value is not text.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    ours(std::env::vars_os())
}

fn ours(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, ConfigError> {
    let names = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = names.filter(|(name, _)| name.starts_with(ENV_PREFIX));
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(ConfigError::new(name, "expected text in UTF-8")),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn only_our_own_variables_must_be_text_and_no_value_is_shown() {
        let variable = |name: &[u8], value: &[u8]| (OsString::from_vec(name.into()), OsString::from_vec(value.into()));
        let others = [
            variable(b"OTHER", b"\xff"),
            variable(b"\xff", b"x"),
            variable(b"WXPAY__\xff", b"x"),
            variable(b"WXPAY__QUEUE__URL", b"embedded"),
        ];
        let url = ("WXPAY__QUEUE__URL".to_owned(), "embedded".to_owned());
        assert_eq!(ours(others.clone()).unwrap(), [url]);
        let secret = variable(b"WXPAY__SEAL__KEY", b"secret\xff");
        let error = ours(others.into_iter().chain([secret])).unwrap_err();
        assert_eq!(error.to_string(), "WXPAY__SEAL__KEY: expected text in UTF-8");
    }
}
