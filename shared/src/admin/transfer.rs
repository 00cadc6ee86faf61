//! Dead letters as lines of a file: everything that makes one, byte for byte.
//!
//! The seal travels along, so a line that was edited by hand is a dead letter again when it is replayed: `unsealed`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Log, Message},
    ids::NotificationId,
};

/// The version of the lines that this program writes, and the only one so far.
const FORMAT: u8 = 1;

/// One dead letter as a line of a file. It holds personal data.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterFile {
    format: u8,
    id: NotificationId,
    headers: BTreeMap<String, String>,
    body: String,
    log: Log,
}

/// Why a line is no dead letter.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// It is not the JSON that an export writes. The cause names the member, never its value.
    #[error("not a dead letter: {0}")]
    Json(String),
    /// A later program wrote it.
    #[error("format: this program reads {FORMAT}, got {0}")]
    Format(u8),
    /// The bytes cannot be read.
    #[error("body: expected base64")]
    Body,
}

impl LetterFile {
    /// The line of a dead letter.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let Message { id, headers, body, log } = message.clone();
        Self { format: FORMAT, id, headers, body: STANDARD.encode(body), log }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`LetterError`]; its text names what is wrong and repeats nothing of the line.
    pub fn parse(line: &str) -> Result<Self, LetterError> {
        let letter: Self = serde_json::from_str(line).map_err(|error| LetterError::Json(without_values(&error)))?;
        letter.message()?;
        Ok(letter)
    }

    /// The dead letter.
    ///
    /// # Errors
    /// [`LetterError`].
    pub fn message(&self) -> Result<Message, LetterError> {
        if self.format != FORMAT {
            return Err(LetterError::Format(self.format));
        }
        let body = STANDARD.decode(&self.body).map_err(|_| LetterError::Body)?;
        Ok(Message { id: self.id.clone(), headers: self.headers.clone(), body: body.into(), log: self.log.clone() })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &NotificationId {
        &self.id
    }
}

/// Without headers and body, which are personal.
impl std::fmt::Debug for LetterFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterFile").field("id", &self.id).finish_non_exhaustive()
    }
}

/// serde's sentences about a wrong type repeat the value that it found.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!("column {}", error.column());
    match text.split_once(": ") {
        Some((kind, rest)) if kind.starts_with("invalid") => match rest.split_once(", expected ") {
            Some((_, expected)) => {
                let expected = expected.split(" at line ").next().unwrap_or_default();
                format!("expected {expected} at {place}")
            }
            None => format!("{kind} at {place}"),
        },
        _ if error.is_data() => text.split(" at line ").next().unwrap_or_default().to_owned(),
        _ => format!("no complete JSON document at {place}"),
    }
}

/// A line of an export's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportItem {
    /// A dead letter.
    Letter(LetterFile),
    /// The last line.
    End(ExportEnd),
}

/// How an export ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExportEnd {
    /// How many were told.
    pub exported: usize,
    /// Why it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Makes dead letters of what an export wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The lines.
    pub letters: Vec<LetterFile>,
    /// Who; the audit record keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why; the audit record keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What an import did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Those that are dead letters now.
    pub imported: Vec<NotificationId>,
    /// Those that were dead letters before; they stay as they are.
    pub present: Vec<NotificationId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{Reason, Rejection};

    fn message() -> Message {
        let headers =
            BTreeMap::from([("wxpay-seal".to_owned(), "00ff".to_owned()), ("追".to_owned(), "踪".to_owned())]);
        let rejection = Some(Rejection::new(Reason::UnknownOrder, "order 7"));
        let log = Log { attempts: 2, rejection, replays: 1, ..Log::default() };
        Message::received(Some("0a-1b"), headers, vec![0, 255, 10].into(), log)
    }

    #[test]
    fn a_letter_comes_back_byte_for_byte() {
        let line = serde_json::to_string(&LetterFile::of(&message())).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(LetterFile::parse(&line).unwrap().message().unwrap(), message());
    }

    #[test]
    fn a_bad_line_is_told_what_is_wrong_and_never_what_was_in_it() {
        let line = serde_json::to_string(&LetterFile::of(&message())).unwrap();
        let said = |line: String| LetterFile::parse(&line).unwrap_err().to_string();
        assert_eq!(said(line.replace("\"format\":1", "\"format\":2")), "format: this program reads 1, got 2");
        assert_eq!(said(line.replace("AP8K", "oSECRET!")), "body: expected base64");
        assert_eq!(
            said(line.replace("\"id\":", "\"ID\":")),
            "not a dead letter: unknown field `ID`, expected one of `format`, `id`, `headers`, `body`, `log`"
        );
        for bad in
            [&line[..40], "", "[]", "\"oSECRET\"", &line.replace("\"AP8K\"", "77"), &line.replace("0a-1b", "oSECRET")]
        {
            let said = said(bad.to_owned());
            assert!(
                said.starts_with("not a dead letter: ") && !said.contains("SECRET") && !said.contains("77"),
                "{said}"
            );
        }
    }
}
