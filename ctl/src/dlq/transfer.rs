//! `wxpayctl dlq export` and `import`: dead letters as a file, a line each.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tempfile::NamedTempFile;
use wxpay_shared::{
    admin::{ExportEnd, ExportItem, Import, Imported, LetterFile, Selection},
    ids::NotificationId,
    reason::Reason,
};

use super::{Filters, Who, reason};
use crate::{
    cli::Verdict,
    client::Client,
    screen::{Screen, count},
};

/// Letters and bytes that travel in one request, at most.
const PAGE: usize = 2_000;
const PAGE_BYTES: usize = 8 << 20;
/// A line of a dead letter is far shorter: bodies have at most 64 KiB.
const LINE_MAX: usize = 1 << 20;

/// `wxpayctl dlq export`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
pub(super) struct ExportArgs {
    /// The notifications' ids.
    #[arg(group = "which", value_parser = NotificationId::parse)]
    ids: Vec<NotificationId>,
    /// Those with this reason.
    #[arg(group = "which", long, visible_alias = "reason", value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    #[command(flatten)]
    filters: Filters,
    /// All of them.
    #[arg(group = "which", long, conflicts_with_all = ["ids", "with_reason", "merchant", "order", "older_than", "newer_than"])]
    all: bool,
    /// The file; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// `wxpayctl dlq import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The file that an export wrote.
    file: PathBuf,
    /// Why, for the audit record.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    who: Who,
}

pub(super) async fn export(client: &Client, screen: &mut Screen<'_>, args: ExportArgs) -> Result<Verdict> {
    let ExportArgs { ids, with_reason, filters, all, to } = args;
    if to.exists() {
        bail!("{} exists; an export does not overwrite", to.display());
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Only its owner can read a temporary file, and it has the name only once it is whole.
    let file = NamedTempFile::new_in(directory).with_context(|| format!("cannot write in {}", directory.display()))?;
    let select = filters.select(ids, with_reason, all);
    let end = tokio::select! {
        end = fetch(client, &select, file.as_file()) => end?,
        // The personal data in the temporary file goes with it.
        _ = tokio::signal::ctrl_c() => bail!("stopped; nothing was written"),
    };
    if let Some(problem) = &end.problem {
        bail!("{problem}; nothing was written");
    }
    file.as_file().sync_all()?;
    file.persist_noclobber(&to).with_context(|| format!("cannot write {}", to.display()))?;
    say_exported(screen, &end, &to)?;
    Ok(Verdict::found_if(end.exported == 0))
}

/// Writes the letters as they come, until the end.
async fn fetch(client: &Client, select: &Selection, file: &File) -> Result<ExportEnd> {
    let mut lines = client.export(select).await?;
    let mut writer = BufWriter::new(file);
    loop {
        match lines.next().await? {
            Some(ExportItem::Letter(letter)) => {
                serde_json::to_writer(&mut writer, &letter)?;
                writer.write_all(b"\n")?;
            }
            Some(ExportItem::End(end)) => {
                writer.flush()?;
                return Ok(end);
            }
            None => bail!("the answer was cut off; nothing was written"),
        }
    }
}

fn say_exported(screen: &mut Screen<'_>, end: &ExportEnd, to: &Path) -> Result<()> {
    if screen.is_json() {
        return screen.json(end);
    }
    let number = count(end.exported, "dead letter");
    screen.line(format_args!("{number} written to {}; they are still dead letters.", to.display()))?;
    screen.line("The file holds personal data: keep it like a database dump, and delete it after use.")
}

/// What became of a file.
#[derive(Default, Serialize)]
struct Outcome {
    imported: usize,
    present: usize,
    bad_lines: Vec<BadLine>,
}

#[derive(Serialize)]
struct BadLine {
    line: usize,
    problem: String,
}

pub(super) async fn import(client: &Client, screen: &mut Screen<'_>, args: ImportArgs) -> Result<Verdict> {
    let ImportArgs { file, why, who } = args;
    let opened = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut reader = BufReader::new(opened);
    let (mut outcome, mut letters, mut bytes) = (Outcome::default(), Vec::new(), 0);
    let by = who.name();
    for line in 1.. {
        let mut text = Vec::new();
        let read = reader.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut text)?;
        if !text.trim_ascii().is_empty() {
            match parse(&text) {
                Ok(letter) => {
                    letters.push(letter);
                    bytes += read;
                }
                Err(problem) => outcome.bad_lines.push(BadLine { line, problem }),
            }
            if read == LINE_MAX && !text.ends_with(b"\n") {
                skip_line(&mut reader)?;
            }
        }
        if !letters.is_empty() && (read == 0 || letters.len() == PAGE || bytes >= PAGE_BYTES) {
            let page = Import { letters: std::mem::take(&mut letters), by: by.clone(), why: why.clone() };
            let sent = client.import(&page).await;
            let Imported { imported, present } =
                sent.with_context(|| format!("{} of {} were imported", outcome.imported, file.display()))?;
            outcome.imported += imported.len();
            outcome.present += present.len();
            bytes = 0;
        }
        if read == 0 {
            break;
        }
    }
    say_imported(screen, &outcome, &file)?;
    Ok(Verdict::found_if(!outcome.bad_lines.is_empty()))
}

fn parse(line: &[u8]) -> Result<LetterFile, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    if !text.ends_with('\n') && text.len() == LINE_MAX {
        return Err(format!("longer than {LINE_MAX} bytes"));
    }
    LetterFile::parse(text).map_err(|error| error.to_string())
}

/// The rest of a line that is too long to be one.
fn skip_line(reader: &mut BufReader<File>) -> Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(length);
        if ended {
            return Ok(());
        }
    }
}

fn say_imported(screen: &mut Screen<'_>, outcome: &Outcome, file: &Path) -> Result<()> {
    if screen.is_json() {
        return screen.json(outcome);
    }
    for BadLine { line, problem } in &outcome.bad_lines {
        screen.line(format_args!("{}:{line}: {problem}; refused", file.display()))?;
    }
    let imported = count(outcome.imported, "dead letter");
    screen.line(format_args!("{imported} imported, {} were here already", outcome.present))?;
    if !outcome.bad_lines.is_empty() {
        screen.line(format_args!(
            "{} refused; correct the file and import it again",
            count(outcome.bad_lines.len(), "line")
        ))?;
    }
    Ok(())
}
