//! What a person sees: the one place that knows how money, times and tables look.
//!
//! A command writes to a [`Screen`] and never to standard output, so a test reads what a person would. With `--json` the
//! same command writes one JSON document instead.

use std::{fmt::Display, io::Write};

use anyhow::Result;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, presets};
use jiff::{Timestamp, tz};
use serde::Serialize;
use wxpay_shared::{fen::Fen, ids::Currency};

/// The widths that tables fit into; a narrower terminal wraps, a wider one leaves space.
const WIDTHS: std::ops::RangeInclusive<u16> = 80..=120;
/// The width where there is no terminal to ask.
const WIDTH_DEFAULT: u16 = 100;

/// Where a command writes, and how.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    width: u16,
    json: bool,
}

impl<'a> Screen<'a> {
    /// A screen on standard output or in a test's memory. `width` of `None` means no terminal.
    pub fn new(out: &'a mut dyn Write, width: Option<u16>, json: bool) -> Self {
        let width = width.map_or(WIDTH_DEFAULT, |width| width.clamp(*WIDTHS.start(), *WIDTHS.end()));
        Self { out, width, json }
    }

    /// Whether a program reads it.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One line, or several.
    ///
    /// # Errors
    /// Where nobody can read it any more.
    pub fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.out, "{text}")?;
        // A person who waits for the next line must see this one, also through a pipe.
        Ok(self.out.flush()?)
    }

    /// One JSON document.
    ///
    /// # Errors
    /// As [`Screen::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(text)
    }

    /// A table.
    ///
    /// # Errors
    /// As [`Screen::line`].
    pub fn table(&mut self, mut grid: Grid) -> Result<()> {
        grid.0.set_width(self.width);
        let text = grid.0.trim_fmt();
        self.line(text)
    }

    /// Names and values below each other; a value of `None` is left out.
    ///
    /// # Errors
    /// As [`Screen::line`].
    pub fn facts(&mut self, facts: &[(&str, Option<String>)]) -> Result<()> {
        let given = || facts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let width = given().map(|(name, _)| name.len()).max().unwrap_or(0);
        given().try_for_each(|(name, value)| self.line(format_args!("  {name:width$}  {value}")))
    }
}

/// A table: a header, and rows that wrap where the screen is narrow.
pub struct Grid(Table);

impl Grid {
    /// A table with these columns.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Table::new();
        let rule = LineStyle::none().fill('─').junction('─');
        table.load_style(presets::NOTHING.header_separator(rule));
        table.set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
        Self(table)
    }

    /// Adds a row; a line end in a cell starts a new line in it.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells);
    }

    /// Keeps a column in one piece: what is there is meant to be copied.
    #[must_use]
    pub fn whole(mut self, column: usize) -> Self {
        if let Some(column) = self.0.column_mut(column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        self
    }

    /// Numbers stand right.
    #[must_use]
    pub fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.0.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }
}

/// `8800 fen (88.00 yuan)`. Other currencies have other units, so only their code is added.
#[must_use]
pub fn money(amount: Fen, currency: &Currency) -> String {
    let fen = amount.get();
    if *currency == Currency::cny() {
        format!("{fen} fen ({} yuan)", yuan(amount))
    } else {
        format!("{fen} {currency}")
    }
}

/// The amount in yuan, by whole numbers only.
#[must_use]
pub fn yuan(amount: Fen) -> String {
    format!("{}.{:02}", amount.get() / 100, amount.get() % 100)
}

/// Beijing time to the second, as WeChat's bills show it.
#[must_use]
pub fn time(at: Timestamp) -> String {
    tz::offset(8).to_datetime(at).strftime("%Y-%m-%d %H:%M:%S+08:00").to_string()
}

/// `1 order`, `2 orders`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The name that a value has in JSON: `paid_after_close` for a state, say.
#[must_use]
pub fn code(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(code)) => code,
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_printed_by_whole_numbers() {
        let cny = |fen| money(Fen::new(fen).unwrap(), &Currency::cny());
        assert_eq!(cny(8800), "8800 fen (88.00 yuan)");
        assert_eq!(cny(1), "1 fen (0.01 yuan)");
        assert_eq!(cny(100_000_000_000_000), "100000000000000 fen (1000000000000.00 yuan)");
        assert_eq!(money(Fen::new(5).unwrap(), &Currency::parse("JPY").unwrap()), "5 JPY");
    }

    #[test]
    fn times_are_beijings() {
        assert_eq!(time("2026-03-18T23:20:30.9Z".parse().unwrap()), "2026-03-19 07:20:30+08:00");
    }

    #[test]
    fn a_table_fits_and_keeps_what_is_copied_in_one_piece() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Some(20), false);
        let mut grid = Grid::new(["id", "why", "points"]).whole(0).right(2);
        grid.row([
            "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10".to_owned(),
            "amount_mismatch\norder 1999 fen, paid 1 fen by this payment".to_owned(),
            "19".to_owned(),
        ]);
        screen.table(grid).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
         id                                     why                              points
        ────────────────────────────────────────────────────────────────────────────────
         0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   amount_mismatch                      19
                                                order 1999 fen, paid 1 fen by
                                                this payment
        ");
    }
}
