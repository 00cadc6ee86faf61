//! A file with headers, as `curl -D`, `curl -v` or a proxy's log shows them.

use anyhow::{Context, Result, anyhow};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The headers in this file; a request or status line, blank lines and the marks of `curl -v` are passed over.
pub(super) fn parse(text: &[u8]) -> Result<HeaderMap> {
    let text = std::str::from_utf8(text).ok().context("expected text in UTF-8")?;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.strip_prefix("> ").or_else(|| line.strip_prefix("< ")).unwrap_or(line);
        if line.trim().is_empty() || is_first_line(line) {
            continue;
        }
        // Never the line itself: it may hold the signature.
        let wrong = || anyhow!("line {number}: expected a header, `Name: value`");
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim_matches([' ', '\t', '\r'])).map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn is_first_line(line: &str) -> bool {
    line.starts_with("HTTP/") || line.trim_end().rsplit(' ').next().is_some_and(|end| end.starts_with("HTTP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_write_is_read() {
        let text = b"POST /v3/shop HTTP/1.1\r\nWechatpay-Nonce: a b \r\nwechatpay-nonce:c\r\n\r\n> X-Y: 1:2\n";
        let headers = parse(text).unwrap();
        let values: Vec<_> = headers.get_all("Wechatpay-Nonce").iter().collect();
        assert_eq!(values, ["a b", "c"]);
        assert_eq!(headers["x-y"], "1:2");
        assert_eq!(parse(b"A: 1\nsecret").unwrap_err().to_string(), "line 2: expected a header, `Name: value`");
    }
}
